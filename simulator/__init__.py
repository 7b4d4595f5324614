"""A deterministic world around the core: storage, crashes, clients, faults, and an oracle that watches."""
