"""What must be true at every moment, at every answer, and at the end.

The oracle is told what happens and looks at the storage; it never changes anything. It knows the layout but none of the
operations: whether a manifest is complete is found by reading keys.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import lru_cache

from angos.sansio import layout
from angos.sansio.effects import Key
from angos.sansio.http.message import Redirect, Response
from angos.sansio.layout import TagEvent
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.simulator.oracle.history import Answer, History, Register, named_instead
from angos.simulator.oracle.linearizable import is_linearizable
from angos.simulator.oracle.records import Record, claim_of, keys_of, read_record, short
from angos.simulator.oracle.uploads import Uploads
from angos.simulator.oracle.violation import Violation, Visible
from angos.simulator.world.bodies import hexdigest
from angos.simulator.world.calls import blob_digests, named_digests, read_call
from angos.simulator.world.client import Call
from angos.simulator.world.quirks import UNTRUSTED

EFFECTS_MAX = 150
"""Of one request in these small worlds, fan-out included. A loop that does not end shows here first."""


class Invariants:
    """The oracle of one run."""

    def __init__(self, store: Visible, history: History) -> None:
        self._store = store
        self._history = history
        self._uploads = Uploads(store)
        self._dropped: set[Register] = set()
        self._written: set[str] = set()
        self._used: set[Register] = set()
        self._collected: set[str] = set()
        """Digests of which a collector has removed something."""
        self._pruned: set[Register] = set()
        """Manifests that were removed because nothing needed them."""
        self._seen: dict[Register, int] = {}
        """Blobs that somebody was told are there, a short while ago, and when."""
        self._aged = -1
        self._slow = False
        """Somebody has stood still for longer than names protect what they name."""
        self._pushed: set[tuple[str, str]] = set()
        """Namespace and manifest of pushes that were acknowledged and not undone."""
        self._promised: set[tuple[str, str, str]] = set()
        """Namespace, manifest, and a blob that was there when it was pushed."""

    # --- after every applied effect -----------------------------------------------------------------------------------

    def touched(self) -> None:
        """Look at every key that got a value."""
        touched, store = self._store.touched, self._store
        for key in touched:
            if key.startswith("v2/blobs/"):
                self._check_bytes(key)
            elif (
                (claim := claim_of(key)) is not None
                and store.surviving(claim.needs) is None
                and store.get(key) is not None
                and claim.unless not in self._dropped
                and claim.unless not in self._pruned  # by events of a tag that are history
                # Bytes of an upload may be collected before they have a name; then they are put there again.
                and (claim.kind != "name before bytes" or _digest_of(claim.needs) not in self._collected)
            ):
                raise Violation(claim.kind, claim.sentence)
        touched.clear()

    def _check_bytes(self, key: str) -> None:
        digest = _parse_blob_key(key)
        value = self._store.get(key)
        if digest is None or value is None:
            return
        if (found := hexdigest(digest.algorithm, value)) != digest.hex:
            what = f"under the name of {short(digest)} lie {len(value)} bytes that hash to {found[:12]}"
            raise Violation("wrong bytes", what)

    # --- requests -----------------------------------------------------------------------------------------------------

    def sent(self, call: Call) -> None:
        """A client asks for something."""
        for intent in call.intents:
            register = intent.register
            self._used.add(register)
            if intent.kind in ("drop", "drop if"):
                self._dropped.add(register)
                if register[0] == "manifest":
                    self._pushed.discard((register[1], register[2]))
            elif intent.kind == "set" and register[0] == "blob" and "mount=" not in call.target:
                self._written.add(register[2])
        if call.upload:
            self._uploads.sent(call)

    def answered(
        self, call: Call, response: Response, answer: Answer, *, called: int, effects: int, faulty: bool
    ) -> None:
        """The registry has decided on an answer."""
        status = answer.status
        if effects > EFFECTS_MAX:
            what = f"{_name(call)} took {effects} effects, {EFFECTS_MAX} are allowed"
            raise Violation("too much work", what)
        if status >= 500 and not faulty and not self._uploads.is_ending(call.upload):
            raise Violation("needless failure", f"{_name(call)} was answered {status}, and nothing had failed")
        if status == 500:
            raise Violation("internal error", f"{_name(call)} was answered 500: {answer.body[:200]!r}")
        if isinstance(response.body, Redirect):
            self._check_redirect(call, answer)
        elif call.method != "HEAD":
            length = response.content_length
            if length is not None and length != len(answer.body):
                raise Violation("wrong length", f"{_name(call)} promises {length} bytes and has {len(answer.body)}")
            if status >= 400 and not _is_error_body(answer.body):
                raise Violation("error without a body", f"{_name(call)}: {status} with {answer.body[:100]!r}")
        if status == 200 and call.method == "GET":
            self._check_content(call, answer)
        if status == 409:
            self._check_conflict(call, answer)
        if status == 201:
            self._check_created(call)
            self._check_warnings(call, response, called)
        if call.upload:
            self._uploads.answered(call, answer)

    def _check_content(self, call: Call, answer: Answer) -> None:
        text = answer.headers.get("docker-content-digest")
        if text is None:
            return
        digest = _parse_digest(text)
        if hexdigest(digest.algorithm, answer.body) != digest.hex:
            what = f"{_name(call)} says {short(digest)} and sends {len(answer.body)} other bytes"
            raise Violation("wrong bytes", what)

    def _check_redirect(self, call: Call, answer: Answer) -> None:
        """Who was sent to the store needs nobody's leave any more: the namespace must have the value."""
        if call.method != "GET":
            raise Violation("needless redirect", f"{_name(call)} was sent to the store")
        digest = _parse_digest(answer.headers["docker-content-digest"])
        for intent in call.intents:
            namespace = Namespace(intent.register[1])
            keys = layout.owner_key(digest, namespace), layout.revision_key(namespace, digest)
            registers = {(kind, str(namespace), str(digest)) for kind in ("blob", "manifest")}
            if not registers & self._dropped and all(self._store.get(key) is None for key in keys):
                raise Violation("seen across namespaces", f"{_name(call)} was sent to what {namespace} does not own")

    def _check_conflict(self, call: Call, answer: Answer) -> None:
        """Only a tag that names another manifest is in the way of a push. That it did is for `judge`."""
        named = named_instead(answer)
        wanted = [intent.value for intent in call.intents if intent.register[0] == "tag" and intent.kind == "set"]
        if named is None or not wanted or named in wanted:
            raise Violation("needless conflict", f"{_name(call)} was answered 409: {answer.body[:200]!r}")

    def _check_created(self, call: Call) -> None:
        for intent in call.intents:
            if intent.kind == "set" and intent.register not in self._dropped:
                self._check_acknowledged(intent.register, intent.value or "")
        if "mount=" in call.target and not any(digest in call.target for digest in self._written):
            raise Violation("seen across namespaces", f"{_name(call)} mounts a blob that nobody ever pushed")

    def _check_acknowledged(self, register: Register, value: str) -> None:
        for key in keys_of(register):
            if self._store.surviving(key) is None:
                raise Violation("acknowledged, not durable", f"a 201 was sent, and a power cut would take {key}")
        if register[0] == "tag":
            namespace, tag, ending = Namespace(register[1]), Tag(register[2]), "." + value.replace(":", ".")
            names = self._store.names(layout.tag_events_prefix(namespace, tag))
            names += self._store.names(layout.tag_history_prefix(namespace, tag))
            names = [name for name in names if name.endswith(ending) and ".set." in name]
            if not any(self._store.surviving(name) is not None for name in names):
                what = f"{tag} of {namespace} was acknowledged, as {value[:19]}"
                raise Violation("acknowledged, not durable", what)

    def _check_warnings(self, call: Call, response: Response, called: int) -> None:
        """A manifest may be pushed before its blobs; but what somebody was told is there has to be there, and stay."""
        kept = [intent.register for intent in call.intents if intent.kind == "keep"]
        if not kept:
            return
        _, namespace, manifest = next(i.register for i in call.intents if i.register[0] == "manifest")
        self._pushed.add((namespace, manifest))
        missing = " ".join(value for name, value in response.headers if name == "Warning")
        for register in kept:
            if register[0] == "manifest":
                promise = (namespace, manifest, register[2])
                if register[2] in missing:
                    self._promised.discard(promise)
                elif call.method == "PUT":  # a restore does not tell what was missing before
                    self._promised.add(promise)
            elif register[2] not in missing:
                self._promised.add((namespace, manifest, register[2]))
            elif self._seen.get(register, called) < called and register not in self._dropped:
                what = f"{_name(call)} found {register[2][:19]} missing, which somebody was told is there"
                raise Violation("promise broken", what)
            elif ("manifest", namespace, manifest) in self._dropped:
                self._promised.discard((namespace, manifest, register[2]))

    # --- collection ---------------------------------------------------------------------------------------------------

    def aged(self, step: int, *, in_peace: bool = False) -> None:
        """A quarter of a grace period has passed, or more. Nobody relies any more on what he asked for before. When
        somebody was at work meanwhile, what he writes now may be incomplete until he is answered."""
        self._seen.clear()
        self._aged, self._slow = step, self._slow or not in_peace

    def removing(self, keys: tuple[Key, ...], step: int) -> None:
        """A collector or a pruner is about to remove these keys."""
        needed = self._needed(acknowledged=self._slow)
        for key in keys:
            if (record := read_record(key)) is not None:
                self._removing_name(key, record, step)
                continue
            digest = _parse_blob_key(key)
            if digest is None:
                digest, namespaces = _parse_name(key)
            else:
                namespaces = [namespace for namespace, _ in needed]
            self._collected.add(str(digest))
            if not key.endswith(("/data", "!own")):
                continue
            if any((namespace, str(digest)) in needed for namespace in namespaces):
                raise Violation("needed blob collected", f"{key} is removed, and a manifest needs it")
            for register in sorted(self._history.registers):
                if register[0] == "blob" and register[2] == str(digest) and register[1] in namespaces:
                    if register in self._seen:
                        what = f"{key} is removed, and somebody has just been told that it is there"
                        raise Violation("promise broken", what)
                    self._history.collected(register, step)

    def _removing_name(self, key: Key, record: Record, step: int) -> None:
        namespace, digest = record.namespace, str(record.digest)
        if record.kind == "sub":
            pair = layout.parse_subject_name(key.removeprefix(layout.subjects_prefix(namespace)))
            assert pair is not None, "it was read before"
            self._history.collected(("referrer", namespace, str(pair[0]), digest), step)
            return
        records = [found for name in self._store.names(f"v2/ns/{namespace}!") if (found := read_record(name))]
        newest: dict[str, Record] = {}
        for found in records:
            if found.kind == "tag":
                newest[found.tag] = max(newest.get(found.tag, found), found, key=_rank)
        if any(each.digest == record.digest and each.event and each.event.kind == "set" for each in newest.values()):
            raise Violation("needed manifest pruned", f"{key} is removed, and a tag names it")
        for found in records:
            body = self._store.get(layout.blob_key(found.digest)) if found.kind == "rev" else None
            if digest in named_digests(body or b"{}"):
                raise Violation("needed manifest pruned", f"{key} is removed, and {short(found.digest)} names it")
        self._history.collected(("manifest", namespace, digest), step)
        self._pruned.add(("manifest", namespace, digest))
        self._promised = {promise for promise in self._promised if promise[:2] != (namespace, digest)}

    def _needed(self, *, acknowledged: bool = False) -> set[tuple[str, str]]:
        """Namespaces and digests of what their manifests are made of; only of those whose push was acknowledged."""
        needed = set()
        for name in self._store.names("v2/ns/"):
            record = read_record(name)
            if record is not None and record.kind == "rev":
                if acknowledged and (str(record.namespace), str(record.digest)) not in self._pushed:
                    continue
                needed.add((str(record.namespace), str(record.digest)))
                body = self._store.get(layout.blob_key(record.digest))
                needed |= {(str(record.namespace), digest) for digest in named_digests(body or b"{}")}
        return needed

    def _reached_from(self, needed: set[tuple[str, str]]) -> set[tuple[str, str]]:
        reached, new = set(needed), needed
        while new:
            found = set()
            for namespace, digest in new:
                body = self._store.get(layout.blob_key(_parse_digest(digest))) or b""
                if body.startswith(b"{"):
                    found |= {(namespace, named) for named in named_digests(body)}
                    found.add((namespace, digest))
            new = found - reached
            reached |= new
        return reached

    def exact(self) -> None:
        """What the store holds is what can be reached. Through a child of an index that was deleted, too: the tag that
        names the index could be set back to it, and the child be brought back with it."""
        certain = self._needed()
        needed = self._reached_from(certain)
        digests = {digest for _, digest in needed}
        for key in self._store.names("v2/"):
            digest = _parse_blob_key(key)
            if digest is not None:
                if str(digest) not in digests:
                    raise Violation("needless blob left", f"{key} is left, and nobody needs it")
            elif key.startswith("v2/ref/"):
                digest, (namespace,) = _parse_name(key)
                if (namespace, str(digest)) not in needed:
                    raise Violation("needless name left", f"{key} is left, and nobody needs it")
            elif key.startswith("v2/repositories/"):
                raise Violation("upload left", f"{key} is left, and nobody continues it")
            elif key.startswith("v2/collector/") or (
                (suspicion := layout.parse_suspect_name(key.removeprefix("v2/suspect/"))) is not None
                and not any(str(suspicion.digest) == digest for _, digest in needed - certain)
            ):
                raise Violation("collector left something", f"{key} is left, and no collector is at work")

    def power_cut(self) -> None:
        """What is not finished need not go on."""
        self._uploads.power_cut()

    def told(self, call: Call, answer: Answer | None, called: int, returned: int) -> None:
        """A client was given this answer, or none."""
        if call.upload:
            self._uploads.told(call, answer, called, returned)
        if answer is not None and answer.status in (200, 201):
            for intent in call.intents:
                announced = intent.kind == "set" or (intent.kind == "read" and call.method == "HEAD")
                if intent.register[0] == "blob" and announced and called > self._aged:
                    self._seen.setdefault(intent.register, returned)

    # --- the end ------------------------------------------------------------------------------------------------------

    def audit(self) -> list[Call]:
        """The requests whose answers show the final value of every register that anybody used."""
        return [read_call(register) for register in sorted(self._used)]

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
        records = [record for name in self._store.names("v2/ns/") if (record := read_record(name)) is not None]
        for record in records:
            if record.kind == "rev":
                self._check_complete(record)
        if not faulty:
            self._check_names(records)
            self._uploads.at_rest()

    def bucket_at_rest(self, pieces: Collection[str], quirks: tuple[str, ...], *, faulty: bool) -> None:
        """No multipart upload is left; and nothing but tries in a bucket that cannot be trusted."""
        if pieces and not faulty:
            raise Violation(
                "pieces left", f"nobody works, and {len(pieces)} multipart uploads are neither done nor gone"
            )
        if any(quirk in UNTRUSTED for quirk in quirks):
            kept = [key for key in self._store.names("") if not key.startswith(layout.PROBES_PREFIX)]
            if kept:
                raise Violation("kept in vain", f"{kept[0]} was written to a bucket that cannot be trusted with it")

    def _check_names(self, records: list[Record]) -> None:
        """No tag and no referrer record names a manifest that was deleted. A crash may leave such a name behind."""
        newest: dict[tuple[Namespace, str], Record] = {}
        for record in records:
            if record.kind == "sub":
                self._check_named(record)
            elif record.kind == "tag":
                tag = (record.namespace, record.tag)
                newest[tag] = max(newest.get(tag, record), record, key=_rank)
        for record in newest.values():
            if record.event is not None and record.event.kind == "set":
                self._check_named(record)

    def _check_named(self, record: Record) -> None:
        if self._store.get(layout.revision_key(record.namespace, record.digest)) is None:
            what = f"{record.subject} of {record.namespace} names {short(record.digest)}, which was deleted"
            raise Violation("dangling", what)

    def _check_complete(self, record: Record) -> None:
        """The blobs that were readable when the image was pushed still are, unless somebody deleted them."""
        namespace, manifest = record.namespace, short(record.digest)
        if (body := self._store.get(layout.blob_key(record.digest))) is None:
            raise Violation("dangling", f"the manifest {manifest} of {namespace} has no bytes")
        for digest in blob_digests(body):
            register = ("blob", namespace, digest)
            if digest in self._collected and (namespace, str(record.digest), digest) not in self._promised:
                continue
            if register in self._dropped or not self._history.is_acknowledged(register):
                continue
            if any(self._store.get(key) is None for key in keys_of(register)):
                what = f"{manifest} of {namespace} lost its blob {short(Digest.parse(digest))}"
                raise Violation("incomplete image", what)
        for digest in named_digests(body):
            child = ("manifest", namespace, digest)
            if (namespace, str(record.digest), digest) not in self._promised or child in self._dropped:
                continue
            if digest not in blob_digests(body) and any(self._store.get(key) is None for key in keys_of(child)):
                what = f"{manifest} of {namespace} lost its child {short(Digest.parse(digest))}"
                raise Violation("incomplete image", what)


def _digest_of(key: str) -> str:
    return str(_parse_blob_key(key))


def _parse_name(key: str) -> tuple[Digest, list[str]]:
    """Digest and namespace of a key that says who owns or needs a blob."""
    _, _, algorithm, _, encoded, rest = key.split("/", 5)
    return Digest(algorithm, encoded), [rest.partition("!")[0]]


def _rank(record: Record) -> tuple[int, bool, Digest]:
    assert isinstance(record.event, TagEvent)
    return record.event.at_ms, record.event.kind == "set", record.digest


def _name(call: Call) -> str:
    return f"{call.method} {call.target}"


# What is remembered below is about texts and bytes, not about a run.
_parse_blob_key = lru_cache(maxsize=4096)(layout.parse_blob_key)
_parse_digest = lru_cache(maxsize=4096)(Digest.parse)


@lru_cache(maxsize=4096)
def _is_error_body(body: bytes) -> bool:
    try:
        errors = json.loads(body)["errors"]
        return bool(errors) and all(error["code"].isupper() and error["message"] for error in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
