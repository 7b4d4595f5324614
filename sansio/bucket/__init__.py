"""What the storage effects mean in a bucket: plans made of requests, sent for real or to a simulated bucket."""
