"""No key of the configuration is without a test that sees what it changes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from tests.conformance.configured.coverage import SHOWN
from tests.conformance.runtime.example_configuration import keys

KNOWN = {".".join(pattern) for pattern, _ in keys()}


def test_every_key_of_the_schema_changes_what_somebody_sees() -> None:
    for module in Path(__file__).parent.glob("test_*.py"):
        import_module(f"tests.conformance.configured.{module.stem}")
    assert KNOWN - SHOWN.keys() == set(), "no test shows what these change"
    assert SHOWN.keys() - KNOWN == set(), "tests are about keys that there are not"
