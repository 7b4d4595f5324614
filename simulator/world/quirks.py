"""Buckets that are worse than a registry needs: each quirk is one thing that some store does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from angos.sansio.bucket.requests import (
    AbortPieces,
    CompareClocks,
    Copy,
    DeleteMany,
    Fetch,
    FetchSigned,
    Get,
    List,
    Listed,
    ListedUploads,
    ListUploads,
    NotDeleted,
    Put,
)
from angos.simulator.world.bucket import Bucket, Pieces

QUIRKS: dict[str, str] = {
    "overwrites": "takes no notice of If-None-Match",
    "races": "of writers who meet, every second one is told that it created the key",
    "late listing": "does not list what was created last below a prefix",
    "keeps": "answers that keys are gone which are not",
    "forgets": "keeps nothing of an object but its name",
    "has everything": "has an object under every key",
    "unsorted": "lists in an order of its own",
    "starts anew": "takes no notice of start-after",
    "goes in circles": "takes no notice of the token of a listing, and gives its first page again",
    "flat": "does not roll keys up into folders",
    "whole": "gives all of an object to those who ask for a range",
    "cut copies": "copies the beginning of an object only",
    "in order of arrival": "joins pieces as they came",
    "keeps pieces": "does not abort multipart uploads",
    "unsigned": "shows a page to those who come with a signed URL",
    "behind": "has a clock that is an hour behind",
    "silent": "does not tell its time",
}
"""By name, for people."""

UNTRUSTED = ("overwrites", "races", "late listing", "keeps", "forgets")
"""Those that are found out before anything is kept, and with which nothing ever is."""

HOUR_MS = 3600_000


class QuirkyBucket(Bucket):
    """A bucket with some of the `QUIRKS`."""

    def __init__(self, quirks: Iterable[str], *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.quirks = frozenset(quirks)
        assert self.quirks <= QUIRKS.keys(), "a closed vocabulary"
        self._conflicts: Counter[str] = Counter()
        self._order: dict[str, int] = {}
        self._stored = 0

    def _get(self, request: Get) -> bytes | None:
        return b"" if "has everything" in self.quirks else super()._get(request)

    def _fetch(self, request: Fetch) -> Any:
        if "whole" in self.quirks and request.key in self.objects:
            return self.objects[request.key].content
        return super()._fetch(request)

    def _fetch_signed(self, request: FetchSigned) -> bytes | None:
        return b"<html>" if "unsigned" in self.quirks else super()._fetch_signed(request)

    def _put(self, request: Put) -> bool:
        if request.writer is not None and request.key in self.objects:
            if "overwrites" in self.quirks:
                super()._put(Put(request.key, request.content))
                return True
            self._conflicts[request.key] += 1
            return "races" in self.quirks and self._conflicts[request.key] % 2 == 0
        return super()._put(request)

    def _store(self, key: str, content: Any, writer: str | None) -> None:
        super()._store(key, b"" if "forgets" in self.quirks else content, writer)
        self._stored += 1
        self._order[key] = self._stored

    def _copy(self, request: Copy) -> bool:
        copied = super()._copy(request)
        if copied and "cut copies" in self.quirks:
            self.objects[request.key].content = self.objects[request.key].content[:3]
        return copied

    def _delete_many(self, request: DeleteMany) -> tuple[NotDeleted, ...]:
        return () if "keeps" in self.quirks else super()._delete_many(request)

    def page(self, request: List, limit: int) -> Listed:
        """See `Bucket`."""
        request = replace(
            request,
            after="" if "starts anew" in self.quirks else request.after,
            token="" if "goes in circles" in self.quirks else request.token,
            folders=request.folders and "flat" not in self.quirks,
        )
        listed = super().page(request, limit)
        keys = listed.keys
        if "late listing" in self.quirks:
            newest = max(self.names(request.prefix), key=self._order.__getitem__, default="")
            keys = tuple(each for each in keys if request.prefix + each[0] != newest)
        if "unsorted" in self.quirks:
            keys = tuple(sorted(keys, key=lambda each: each[0].lower()))
        return Listed(keys, listed.folders, listed.next_token)

    def page_of_uploads(self, request: ListUploads, limit: int) -> ListedUploads:
        """See `Bucket`."""
        if "goes in circles" in self.quirks:
            request = replace(request, markers=("", ""))
        return super().page_of_uploads(request, limit)

    def _in_order(self, contents: list[Any], pieces: Pieces) -> list[Any]:
        return list(pieces.contents.values()) if "in order of arrival" in self.quirks else contents

    def _abort_pieces(self, request: AbortPieces) -> None:
        if "keeps pieces" not in self.quirks:
            super()._abort_pieces(request)

    def _compare_clocks(self, request: CompareClocks) -> int | None:
        return None if "silent" in self.quirks else -HOUR_MS if "behind" in self.quirks else 0
