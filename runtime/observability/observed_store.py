"""A store whose operations are counted and timed."""

from __future__ import annotations

from typing import Protocol

from angos.runtime.driver import NOTHING_IN_THREAD
from angos.runtime.observability.metrics import Metrics
from angos.runtime.performer import Store
from angos.runtime.server.application import Content
from angos.sansio.effects import Key


class ContentStore(Store, Protocol):
    """A store whose values can be sent."""

    def open_content(self, key: Key) -> Content | None:
        """Open a value for sending; None when it is absent."""
        ...


class ObservedStore:
    """Does what the store behind it does. Only made when metrics are on, so that nobody else pays for it."""

    def __init__(self, store: ContentStore, metrics: Metrics) -> None:
        self.open_content = store.open_content
        self.sign_url = store.sign_url
        self.in_thread = NOTHING_IN_THREAD  # counting is for the loop alone
        self.read_key = metrics.observed("storage", "read_key", store.read_key)
        self.stat_key = metrics.observed("storage", "stat_key", store.stat_key)
        self.list_keys = metrics.observed("storage", "list_keys", store.list_keys)
        self.list_folders = metrics.observed("storage", "list_folders", store.list_folders)
        self.list_stats = metrics.observed("storage", "list_stats", store.list_stats)
        self.stat_keys = metrics.observed("storage", "stat_keys", store.stat_keys)
        self.stats_below = metrics.observed("storage", "stats_below", store.stats_below)
        self.create_keys = metrics.observed("storage", "create_keys", store.create_keys)
        self.delete_keys = metrics.observed("storage", "delete_keys", store.delete_keys)
        self.hash_key = metrics.observed("storage", "hash_key", store.hash_key)
        self.copy_key = metrics.observed("storage", "copy_key", store.copy_key)
        self.delete_keys_within = metrics.observed("storage", "delete_keys", store.delete_keys_within)
        self.stage_body = metrics.observed("storage", "stage_body", store.stage_body)
        self.hash_parts = metrics.observed("storage", "hash_parts", store.hash_parts)
        self.promote_parts = metrics.observed("storage", "promote_parts", store.promote_parts)
        self.discard_part = metrics.observed("storage", "discard_part", store.discard_part)
        self.discard_upload = metrics.observed("storage", "discard_upload", store.discard_upload)
        self.list_unfinished = metrics.observed("storage", "list_unfinished", store.list_unfinished)
        self.discard_unfinished = metrics.observed("storage", "discard_unfinished", store.discard_unfinished)
