"""What was measured, what it is compared with, and whether that is enough."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import Literal


@dataclass(frozen=True, slots=True)
class Target:
    """What an issue asks for: a ratio to the compared figure, or a figure of its own."""

    of: Literal["ratio", "figure"]
    bound: Literal["at least", "at most"]
    value: float

    def __str__(self) -> str:
        sign = "≥" if self.bound == "at least" else "≤"
        return f"{sign} {self.value:g}{' x' if self.of == 'ratio' else ''}"


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table. Figures are one for each round."""

    row: str
    work: str
    unit: str
    ours: tuple[float, ...]
    compared_with: str | None = None
    theirs: tuple[float, ...] = ()
    target: Target | None = None

    @property
    def ratio(self) -> float | None:
        """Of the medians, ours over theirs."""
        return median(self.ours) / median(self.theirs) if self.theirs else None

    @property
    def met(self) -> bool | None:
        """None without a target."""
        if self.target is None:
            return None
        figure = self.ratio if self.target.of == "ratio" else median(self.ours)
        if figure is None:
            return None
        return figure >= self.target.value if self.target.bound == "at least" else figure <= self.target.value

    def to_json(self) -> dict[str, object]:
        """Everything, for later comparison."""
        return asdict(self) | {"ratio": self.ratio, "met": self.met}


def markdown(results: list[Result]) -> str:
    """The table, medians of all rounds."""
    lines = ["| work | unit | Angos | compared with | ratio | target | |", "|---|---|---:|---:|---:|---|---|"]
    for result in results:
        theirs = f"{_shown(median(result.theirs))} ({result.compared_with})" if result.theirs else ""
        ratio = f"{result.ratio:.2f} x" if result.ratio is not None else ""
        target = str(result.target) if result.target else ""
        mark = {None: "", True: "reached", False: "**short**"}[result.met]
        ours = _shown(median(result.ours))
        lines.append(f"| {result.work} | {result.unit} | {ours} | {theirs} | {ratio} | {target} | {mark} |")
    return "\n".join(lines)


def _shown(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"
