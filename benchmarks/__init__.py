"""How fast the registry is, beside Debian's docker-registry and nginx on the same machine. `make bench` runs it."""
