"""The command line of the registry, on a disk that can be watched and held up.

Whatever it waits for until the disk has it is told on standard error. As long as there is a file ``hold`` in the
current folder, the disk does not come to an end.
"""

from __future__ import annotations

import os
import sys
import time

from angos.runtime.__main__ import main

_sync = os.fsync


def fsync(descriptor: int) -> None:
    """Tell, do it, and wait."""
    os.write(2, f"synced {os.readlink(f'/proc/self/fd/{descriptor}')}\n".encode())
    _sync(descriptor)
    while os.path.exists("hold"):
        time.sleep(0.01)


if __name__ == "__main__":
    os.fsync = fsync  # type: ignore[assignment]
    sys.exit(main())
