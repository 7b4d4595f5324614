"""What the storage effects mean on a disk: plans made of primitive steps, run for real or on a simulated disk."""
