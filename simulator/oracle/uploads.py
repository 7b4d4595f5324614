"""What is promised about uploads: bytes that were acknowledged stay, and an upload that was finished is gone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from angos.sansio import layout
from angos.sansio.effects import EffectError, Prefix
from angos.sansio.oci.reference import Namespace
from angos.sansio.upload_session import Chunk
from angos.simulator.oracle.history import Answer
from angos.simulator.oracle.violation import Violation, Visible
from angos.simulator.world.calls import offset_of
from angos.simulator.world.client import Call

APPENDING = ("PATCH", "PUT")


@dataclass(slots=True)
class Upload:
    """What is known of one upload."""

    location: str
    prefix: Prefix
    """Of its keys."""
    acknowledged: int = -1
    """Bytes that a client was told of; -1 before the first time, and again after a power cut."""
    told_at: int = 0
    ending: bool = False
    """Somebody finishes or cancels it, or did."""
    finished: bool = False
    appending: int = 0
    """Requests in flight that may bring bytes."""
    in_flight: int = 0
    raced: bool = False
    """Two requests were in flight at once."""

    @classmethod
    def at(cls, location: str) -> Upload:
        """The upload of which nothing is known yet."""
        namespace, _, upload_id = location.removeprefix("/v2/").partition("/blobs/uploads/")
        return cls(location, layout.upload_prefix(Namespace(namespace), upload_id))

    def is_contended(self, call: Call) -> bool:
        """Somebody else appends at this moment: his chunk can be seen before it is durable, and is not promised."""
        return self.appending > (call.method in APPENDING)


class Uploads:
    """The uploads of one run, by location."""

    def __init__(self, store: Visible) -> None:
        self._store = store
        self._uploads: dict[str, Upload] = {}

    def sent(self, call: Call) -> None:
        """A client asks something about an upload."""
        upload = self._uploads.get(call.upload)
        if upload is None:
            upload = self._uploads[call.upload] = Upload.at(call.upload)
        if call.method == "DELETE" or (call.method == "PUT" and "digest=" in call.target):
            upload.ending = True
        upload.appending += call.method in APPENDING
        upload.in_flight += 1
        if upload.in_flight > 1:
            upload.raced = True

    def is_ending(self, location: str) -> bool:
        """An upload that somebody ends may be unavailable to others: its files go away under them."""
        return location in self._uploads and self._uploads[location].ending

    def answered(self, call: Call, answer: Answer) -> None:
        """The registry has decided on an answer: what it says about the offset has to be durable."""
        upload = self._uploads[call.upload]
        if "range" not in answer.headers or upload.ending or upload.is_contended(call):
            return
        offset, durable = offset_of(answer), self._durable(upload.prefix)
        if durable < offset:
            what = f"{call.method} {call.target} promises {offset} bytes, {durable} are durable"
            raise Violation("offset not durable", what)

    def told(self, call: Call, answer: Answer | None, called: int, returned: int) -> None:
        """A client was given this answer, or none."""
        upload = self._uploads[call.upload]
        contended = upload.is_contended(call)
        upload.appending -= call.method in APPENDING
        upload.in_flight -= 1
        if answer is None:
            return
        if call.method == "PUT" and answer.status == 201:
            upload.finished = True
        if upload.ending:
            return
        known = upload.acknowledged
        if answer.status == 404 and known >= 0:
            what = f"{call.method} {upload.location} is unknown after {known} bytes were acknowledged"
            raise Violation("upload lost", what)
        if answer.status in (202, 204) and not contended and "range" in answer.headers:
            offset = offset_of(answer)
            if offset < known and called > upload.told_at:
                raise Violation("offset went back", f"{upload.location} had {known} bytes and now says {offset}")
            if offset >= known:
                upload.acknowledged, upload.told_at = offset, returned

    def power_cut(self) -> None:
        """Uploads that are not finished may be unknown from now on: they resume or they are given up."""
        for upload in self._uploads.values():
            upload.acknowledged = -1

    def at_rest(self) -> None:
        """Nothing is left of an upload that was finished.

        Of two requests on one upload the slower one may leave a name behind that the faster one was to remove.
        """
        for location, upload in sorted(self._uploads.items()):
            if upload.finished and not upload.raced and (remains := self._store.names(upload.prefix)):
                raise Violation("upload left", f"{location} was finished, and {remains[0]} is still there")

    def _durable(self, prefix: Prefix) -> int:
        """Bytes of the chain of chunks that a power cut would leave."""
        durable = 0
        for name in self._store.names(prefix):
            kind, _, rest = name[len(prefix) :].partition(".")
            value = self._store.surviving(name)
            if kind != "chunk" or value is None:
                continue
            try:
                chunk = _parse_chunk(int(rest, 16), value)
            except EffectError:
                raise Violation("wrong bytes", f"the chunk record {name} cannot be read") from None
            part = self._store.surviving(f"{prefix}part.{chunk.part.name}")
            if chunk.offset == durable and part is not None and len(part) == chunk.part.size:
                durable = chunk.end
        return durable


_parse_chunk = lru_cache(maxsize=4096)(Chunk.parse)
