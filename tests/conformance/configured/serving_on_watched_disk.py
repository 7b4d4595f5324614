"""The command line of the registry, on a disk that can be watched and held up.

What is ``written`` to a file, and what is ``synced``, is told on standard error. As long as there is a file of the one
name or the other in the current folder, that does not come to an end.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from angos.runtime.__main__ import main

_write = os.write


def watched(done: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Do it, tell, and wait."""

    def watched_call(descriptor: int, *arguments: Any) -> Any:
        result = call(descriptor, *arguments)
        _write(2, f"{done} {os.readlink(f'/proc/self/fd/{descriptor}')}\n".encode())
        while os.path.exists(done):
            time.sleep(0.01)
        return result

    return watched_call


if __name__ == "__main__":
    os.fsync = watched("synced", os.fsync)
    os.write = watched("written", os.write)
    os.writev = watched("written", os.writev)
    sys.exit(main())
