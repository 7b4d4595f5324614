"""Hypothesis profiles: ``quick`` for every change, ``nightly`` for long runs (`tests.nightly`)."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.nightly import PROFILE

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile("quick", max_examples=60, deadline=None, suppress_health_check=SLOW)
settings.register_profile("nightly", max_examples=3_000, deadline=None, suppress_health_check=SLOW)
settings.load_profile(PROFILE)
