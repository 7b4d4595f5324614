"""The command line of the registry, in a hurry: what takes a collector a minute takes it seconds here.

Empty keys are dated to a quarter of a second instead of a minute, and the mark of a collector that was killed is waited
for as long as its removals can take here.
"""

from __future__ import annotations

import sys

from angos.runtime.__main__ import main
from angos.runtime.stores import disk
from angos.sansio.collection import collector

if __name__ == "__main__":
    vars(disk)["EMPTY_SECONDS"] = 0.25
    collector.REMOVAL_SECONDS, collector.SETTLED_SECONDS = 0.5, 2.0
    sys.exit(main())
