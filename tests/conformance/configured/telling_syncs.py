"""The command line of the registry, which tells on standard error whatever it waits for until the disk has it."""

from __future__ import annotations

import os
import sys

from angos.runtime.__main__ import main

_sync = os.fsync


def fsync(descriptor: int) -> None:
    """Tell, and do it."""
    os.write(2, f"synced {os.readlink(f'/proc/self/fd/{descriptor}')}\n".encode())
    _sync(descriptor)


if __name__ == "__main__":
    os.fsync = fsync  # type: ignore[assignment]
    sys.exit(main())
