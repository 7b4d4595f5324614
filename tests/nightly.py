"""Whether searches may take long: ``HYPOTHESIS_PROFILE=nightly``, for those of hypothesis and for all others."""

from __future__ import annotations

import os

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "quick")
NIGHTLY = PROFILE == "nightly"
WHOLE = NIGHTLY or bool(os.environ.get("ANGOS_TEST_EVERY_STORE"))
"""What is promised of a version is tried as often as it is promised, as before each landing."""

SHARE = 1 if NIGHTLY else 3
"""Of the schedules with as many interruptions as a search allows every so many-th is tried; all of those with fewer."""
