"""Performs the effects of the core: sockets, files, clocks, threads."""
