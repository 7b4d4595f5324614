"""What must be true at every moment, at every answer, and at the end.

The oracle is told what happens and looks at the storage; it never changes anything. It knows the layout but none of the
operations: whether a manifest is complete is found by reading keys.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from typing import Protocol

from angos.sansio import layout
from angos.sansio.effects import EffectError, Key
from angos.sansio.http.message import Response
from angos.sansio.layout import TagEvent
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.upload_session import Chunk
from angos.simulator.oracle.history import Answer, History, Intent, Register
from angos.simulator.oracle.linearizable import is_linearizable
from angos.simulator.world.bodies import hexdigest
from angos.simulator.world.client import Call, descriptors, offset_of

APPENDING = ("PATCH", "PUT")

EFFECTS_MAX = 150
"""Of one request in these small worlds, fan-out included. A loop that does not end shows here first."""


class Violation(Exception):
    """Something that must never be."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(f"{kind}: {sentence}")
        self.kind = kind
        self.sentence = sentence


class Visible(Protocol):
    """The storage, to look at."""

    touched: list[Key]

    def get(self, key: str) -> bytes | None: ...
    def surviving(self, key: str) -> bytes | None: ...
    def names(self, prefix: str) -> list[str]: ...


class Invariants:
    """The oracle of one run."""

    def __init__(self, store: Visible, history: History) -> None:
        self._store = store
        self._history = history
        self._dropped: set[Register] = set()
        self._written: set[tuple[str, str]] = set()
        self._uploads: dict[str, int] = {}
        self._told_at: dict[str, int] = {}
        self._ending: set[str] = set()
        self._finished: dict[str, int] = {}
        self._appending: Counter[str] = Counter()
        self._in_flight: Counter[str] = Counter()
        self._raced: set[str] = set()
        self._calls: dict[Register, None] = {}

    # --- after every applied effect -----------------------------------------------------------------------------------

    def touched(self) -> None:
        """Look at every key that got a value."""
        touched = self._store.touched
        for key in touched:
            if key.startswith("v2/blobs/"):
                self._check_bytes(key)
            elif key.startswith("v2/ns/"):
                self._check_name(key)
            elif key.endswith("!own"):
                self._check_owner(key)
        touched.clear()

    def _check_bytes(self, key: str) -> None:
        digest = layout.parse_blob_key(key)
        value = self._store.get(key)
        if digest is None or value is None:
            return
        if hexdigest(digest.algorithm, value) != digest.hex:
            found = f"{len(value)} bytes that hash to {hexdigest(digest.algorithm, value)[:12]}"
            raise Violation("wrong bytes", f"under the name of {_short(digest)} lie {found}")

    def _check_owner(self, key: str) -> None:
        _, _, algorithm, _, encoded, _ = key.split("/", 5)
        digest = Digest(algorithm, encoded)
        if self._store.get(key) is not None and self._store.surviving(layout.blob_key(digest)) is None:
            raise Violation("name before bytes", f"{key} says who owns {_short(digest)}, whose bytes are not durable")

    def _check_name(self, key: str) -> None:
        namespace, kind, rest = _parse_name(key)
        if self._store.get(key) is None:
            return
        if kind == "rev" and (digest := layout.parse_revision_name(rest)) is not None:
            if self._store.surviving(layout.blob_key(digest)) is None:
                what = f"the manifest {_short(digest)} can be named in {namespace} but its bytes are not durable"
                raise Violation("name before bytes", what)
        elif kind == "tag" and (event := layout.parse_tag_event(rest.rpartition("/")[2])) is not None:
            if event.kind == "set":
                self._check_named(namespace, event.digest, f"the tag {rest.partition('!')[0]}")
        elif kind == "sub" and (digest := layout.parse_referrer_name(rest.rpartition("/")[2])) is not None:
            self._check_named(namespace, digest, "a referrer record")

    def _check_named(self, namespace: Namespace, digest: Digest, what: str) -> None:
        if ("manifest", namespace, str(digest)) in self._dropped:
            return  # somebody is deleting it, so it may be gone for a moment
        if self._store.surviving(layout.revision_key(namespace, digest)) is None:
            raise Violation("name before manifest", f"{what} of {namespace} names {_short(digest)}, which is not there")

    # --- requests -----------------------------------------------------------------------------------------------------

    def sent(self, call: Call) -> None:
        """A client asks for something."""
        for intent in call.intents:
            self._calls[intent.register] = None
            if intent.kind in ("drop", "drop if"):
                self._dropped.add(intent.register)
            elif intent.kind == "set" and intent.register[0] == "blob" and "mount=" not in call.target:
                self._written.add((intent.register[1], intent.register[2]))
        if call.upload and (call.method == "DELETE" or (call.method == "PUT" and "digest=" in call.target)):
            self._ending.add(call.upload)
        if call.upload:
            self._appending[call.upload] += call.method in APPENDING
            self._in_flight[call.upload] += 1
            if self._in_flight[call.upload] > 1:
                self._raced.add(call.upload)

    def answered(self, call: Call, response: Response, answer: Answer, *, effects: int, faulty: bool) -> None:
        """The registry has decided on an answer."""
        what = f"{call.method} {call.target}"
        if effects > EFFECTS_MAX:
            raise Violation("too much work", f"{what} took {effects} effects, {EFFECTS_MAX} are allowed")
        if answer.status >= 500 and not faulty and call.upload not in self._ending:
            # An upload that somebody ends at this moment may be unavailable to others: its files go away under them.
            raise Violation("needless failure", f"{what} was answered {answer.status}, and nothing had failed")
        if answer.status == 500:
            raise Violation("internal error", f"{what} was answered 500: {answer.body[:200]!r}")
        length = response.content_length
        if call.method != "HEAD" and length is not None and length != len(answer.body):
            raise Violation("wrong length", f"{what} promises {length} bytes and has {len(answer.body)}")
        if answer.status >= 400 and call.method != "HEAD":
            self._check_error_body(what, answer)
        if call.method == "GET" and answer.status == 200:
            self._check_content(what, answer)
        if answer.status == 201:
            for intent in call.intents:
                if intent.kind == "set" and intent.register not in self._dropped:
                    self._check_acknowledged(intent.register, intent.value or "")
            if "mount=" in call.target and not any(digest in call.target for _, digest in self._written):
                raise Violation("seen across namespaces", f"{what} mounts a blob that nobody ever pushed")
        if call.upload and "range" in answer.headers and call.upload not in self._ending and not self._is_raced(call):
            self._check_offset(call.upload, what, offset_of(answer))

    def _check_error_body(self, what: str, answer: Answer) -> None:
        try:
            errors = json.loads(answer.body)["errors"]
            assert all(error["code"].isupper() and error["message"] for error in errors)
            assert errors
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
            raise Violation("error without a body", f"{what}: {answer.status} with {answer.body[:100]!r}") from None

    def _check_content(self, what: str, answer: Answer) -> None:
        text = answer.headers.get("docker-content-digest")
        if text is None:
            return
        digest = Digest.parse(text)
        if hexdigest(digest.algorithm, answer.body) != digest.hex:
            raise Violation("wrong bytes", f"{what} says {_short(digest)} and sends {len(answer.body)} other bytes")

    def _check_acknowledged(self, register: Register, value: str) -> None:
        kind, namespace_text, *rest = register
        namespace = Namespace(namespace_text)
        keys: list[str] = []
        if kind == "blob":
            digest = Digest.parse(rest[0])
            keys = [layout.blob_key(digest), layout.owner_key(digest, namespace)]
        elif kind == "manifest":
            digest = Digest.parse(rest[0])
            keys = [layout.blob_key(digest), layout.revision_key(namespace, digest)]
        elif kind == "referrer":
            keys = [layout.referrer_key(namespace, Digest.parse(rest[0]), Digest.parse(rest[1]))]
        elif kind == "tag":
            tag, ending = Tag(rest[0]), "." + value.replace(":", ".")
            names = self._store.names(layout.tag_events_prefix(namespace, tag))
            names += self._store.names(layout.tag_history_prefix(namespace, tag))
            names = [name for name in names if name.endswith(ending) and ".set." in name]
            if not any(self._store.surviving(name) is not None for name in names):
                raise Violation(
                    "acknowledged, not durable", f"{rest[0]} of {namespace} was acknowledged, as {value[:19]}"
                )
        for key in keys:
            if self._store.surviving(key) is None:
                raise Violation("acknowledged, not durable", f"a 201 was sent, and a power cut would take {key}")

    def _is_raced(self, call: Call) -> bool:
        """Somebody else appends at this moment: his chunk can be seen before it is durable, and is not promised."""
        return self._appending[call.upload] > (call.method in APPENDING)

    def _check_offset(self, upload: str, what: str, offset: int) -> None:
        prefix = layout.upload_prefix(*_parse_upload(upload))
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
        if durable < offset:
            raise Violation("offset not durable", f"{what} promises {offset} bytes, {durable} are durable")

    def power_cut(self) -> None:
        """Uploads that are not finished may be unknown from now on: they resume or they are given up."""
        self._uploads.clear()

    def told(self, call: Call, answer: Answer | None, called: int, returned: int, who: str) -> None:
        """A client was given this answer, or none."""
        upload = call.upload
        raced = bool(upload) and self._is_raced(call)
        if upload:
            self._appending[upload] -= call.method in APPENDING
            self._in_flight[upload] -= 1
        if answer is None or not upload:
            return
        if call.method == "PUT" and answer.status == 201:
            self._finished[upload] = returned
        if upload in self._ending:
            return
        known = self._uploads.get(upload, -1)
        if answer.status == 404 and known >= 0:
            raise Violation("upload lost", f"{call.method} {upload} is unknown after {known} bytes were acknowledged")
        if answer.status in (202, 204) and not raced and "range" in answer.headers:
            offset = offset_of(answer)
            if offset < known and called > self._told_at.get(upload, returned):
                raise Violation("offset went back", f"{upload} had {known} bytes and now says {offset}")
            if offset >= known:
                self._uploads[upload] = offset
                self._told_at[upload] = returned

    # --- the end ------------------------------------------------------------------------------------------------------

    def audit(self) -> list[Call]:
        """The requests whose answers show the final value of every register that anybody used."""
        return [_read_call(register) for register in sorted(self._calls)]

    def judge(self) -> None:
        """Everything that clients were told must have an order that explains it."""
        for register in sorted(self._history.registers):
            events = self._history.of(register)
            if not is_linearizable(events):
                story = "; ".join(
                    f"{event.who} {event.kind} {(event.value or 'nothing')[:19]} [{event.called}-{event.returned}]"
                    + ("" if event.required else " perhaps")
                    for event in sorted(events, key=lambda event: event.called)
                )
                raise Violation("not linearizable", f"{' '.join(register)[:80]}: no order explains: {story}")

    def at_rest(self, leases: list[str], temporaries: list[str], *, faulty: bool) -> None:
        """Nothing is left behind, and every tag reaches its image."""
        if temporaries and not faulty:
            raise Violation("temporary left", f"nobody works, and the temporary file {temporaries[0]} is there")
        if leases and not faulty:
            raise Violation("lease left", f"nobody works, and {leases[0]} is held")
        self._check_images()
        if not faulty:
            self._check_names()
            # Of two requests on one upload the slower one may leave a name behind that the faster one was to remove.
            for upload in sorted(self._finished.keys() - self._raced):
                prefix = layout.upload_prefix(*_parse_upload(upload))
                if remains := self._store.names(prefix):
                    raise Violation("upload left", f"{upload} was finished, and {remains[0]} is still there")

    def _check_images(self) -> None:
        for name in self._store.names("v2/ns/"):
            namespace, kind, rest = _parse_name(name)
            if kind == "rev" and (digest := layout.parse_revision_name(rest)) is not None:
                self._check_complete(namespace, digest)

    def _check_names(self) -> None:
        """No tag and no referrer record names a manifest that was deleted. A crash may leave such a name behind."""
        newest: dict[tuple[Namespace, str], TagEvent] = {}
        for name in self._store.names("v2/ns/"):
            namespace, kind, rest = _parse_name(name)
            last = rest.rpartition("/")[2]
            if kind == "sub" and (digest := layout.parse_referrer_name(last)) is not None:
                self._check_record(namespace, digest, "a referrer record")
            elif kind == "tag" and (event := layout.parse_tag_event(last)) is not None:
                tag = (namespace, rest.partition("!")[0])
                newest[tag] = max(newest.get(tag, event), event, key=_rank)
        for (namespace, text), event in newest.items():
            if event.kind == "set":
                self._check_record(namespace, event.digest, f"the tag {text}")

    def _check_record(self, namespace: Namespace, digest: Digest, what: str) -> None:
        if self._store.get(layout.revision_key(namespace, digest)) is None:
            raise Violation("dangling", f"{what} of {namespace} names {_short(digest)}, which was deleted")

    def _check_complete(self, namespace: Namespace, manifest: Digest) -> None:
        """The blobs that were readable when the image was pushed still are, unless somebody deleted them."""
        if (body := self._store.get(layout.blob_key(manifest))) is None:
            raise Violation("dangling", f"the manifest {_short(manifest)} of {namespace} has no bytes")
        for descriptor in descriptors(body):
            digest = Digest.parse(descriptor["digest"])
            register = ("blob", namespace, str(digest))
            acknowledged = [
                event for event in self._history.registers.get(register, ()) if event.kind == "set" and event.required
            ]
            if not acknowledged or register in self._dropped:
                continue
            if (
                self._store.get(layout.owner_key(digest, namespace)) is None
                or self._store.get(layout.blob_key(digest)) is None
            ):
                raise Violation("incomplete image", f"{_short(manifest)} of {namespace} lost its blob {_short(digest)}")


def _rank(event: TagEvent) -> tuple[int, bool, Digest]:
    return event.at_ms, event.kind == "set", event.digest


_parse_chunk = lru_cache(maxsize=4096)(Chunk.parse)


def _parse_name(key: str) -> tuple[Namespace, str, str]:
    """The namespace of a key below ``v2/ns/``, the kind of record, and the rest of the key."""
    namespace, _, rest = key[len("v2/ns/") :].partition("!")
    kind, _, rest = rest.partition("/")
    return Namespace(namespace), kind, rest


def _parse_upload(location: str) -> tuple[Namespace, str]:
    namespace, _, upload_id = location.removeprefix("/v2/").partition("/blobs/uploads/")
    return Namespace(namespace), upload_id


def _read_call(register: Register) -> Call:
    kind, namespace, *rest = register
    intents = (Intent("read", register),)
    match kind:
        case "blob":
            return Call("GET", f"/v2/{namespace}/blobs/{rest[0]}", intents=intents)
        case "referrer":
            return Call("GET", f"/v2/{namespace}/referrers/{rest[0]}", intents=intents)
        case _:
            return Call("GET", f"/v2/{namespace}/manifests/{rest[0]}", intents=intents)


def _short(digest: Digest) -> str:
    return f"{digest.algorithm}:{digest.hex[:12]}"
