"""How much is measured. The defaults are those of the table in the README."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import Cores
from benchmarks.servers import Server


@dataclass(frozen=True, slots=True)
class Settings:
    """Shared by all rows."""

    rows: frozenset[str]
    """The names of the rows that are wanted."""
    rounds: int
    """How often each figure is taken; the table shows medians."""
    seconds: float
    """How long the load of one figure lasts."""
    size_mib: int
    """Of a large blob."""
    folder: Path
    """For the stores; all on one disk."""
    cores: Cores

    def alternate(self, round_number: int, first: Server, second: Server) -> tuple[Server, Server]:
        """The two in turn, so that neither always profits from going second."""
        return (first, second) if round_number % 2 == 0 else (second, first)
