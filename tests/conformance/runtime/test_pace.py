"""How long work on bytes has to pause."""

from __future__ import annotations

from angos.runtime.pace import Pace


def test_whoever_is_faster_than_agreed_pauses_for_the_difference() -> None:
    now = 10.0
    pace = Pace(100, lambda: now)
    assert pace.early(50) == 0.5
    now = 10.75
    assert pace.early(50) == 0.25
    now = 13.0
    assert pace.early(100) < 0


def test_without_an_agreement_nobody_pauses() -> None:
    assert Pace(None).early(10**12) == 0
