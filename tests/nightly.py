"""Whether searches may take long: ``HYPOTHESIS_PROFILE=nightly``, for those of hypothesis and for all others."""

from __future__ import annotations

import os

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "quick")
NIGHTLY = PROFILE == "nightly"

SHARE = 1 if NIGHTLY else 3
"""Of the schedules with as many interruptions as a search allows every so many-th is tried; all of those with fewer."""
