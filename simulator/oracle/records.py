"""What the names in the storage claim, and what has to be there for it.

A key says the same in every run, so what was read in one is remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from angos.sansio import layout
from angos.sansio.effects import Key
from angos.sansio.layout import TagEvent
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace
from angos.simulator.oracle.history import Register

REMEMBERED = 1 << 14


@dataclass(frozen=True, slots=True)
class Record:
    """A key below ``v2/ns/`` that names a manifest: its revision, an event of a tag, or a referrer record."""

    kind: Literal["rev", "tag", "sub"]
    namespace: Namespace
    digest: Digest
    tag: str = ""
    event: TagEvent | None = None

    @property
    def subject(self) -> str:
        """How a sentence calls it."""
        return f"the tag {self.tag}" if self.kind == "tag" else "a referrer record"


@dataclass(frozen=True, slots=True)
class Claim:
    """A key that may only be there when another one is durable."""

    needs: Key
    unless: Register | None
    """The manifest may be gone for a moment while somebody deletes it."""
    kind: str
    sentence: str
    """The violation, when what it needs is not durable."""


@lru_cache(maxsize=REMEMBERED)
def read_record(key: str) -> Record | None:
    """None for every other key."""
    if not key.startswith("v2/ns/"):
        return None
    text, _, rest = key[len("v2/ns/") :].partition("!")
    kind, _, rest = rest.partition("/")
    namespace, last = Namespace(text), rest.rpartition("/")[2]
    if kind == "rev" and (digest := layout.parse_revision_name(rest)) is not None:
        return Record("rev", namespace, digest)
    if kind == "tag" and (event := layout.parse_tag_event(last)) is not None:
        return Record("tag", namespace, event.digest, rest.partition("!")[0], event)
    if kind == "sub" and (digest := layout.parse_referrer_name(last)) is not None:
        return Record("sub", namespace, digest)
    return None


@lru_cache(maxsize=REMEMBERED)
def claim_of(key: str) -> Claim | None:
    """None for a key that claims nothing."""
    if key.endswith("!own"):
        _, _, algorithm, _, encoded, _ = key.split("/", 5)
        digest = Digest(algorithm, encoded)
        sentence = f"{key} says who owns {short(digest)}, whose bytes are not durable"
        return Claim(layout.blob_key(digest), None, "name before bytes", sentence)
    record = read_record(key)
    if record is None or (record.event is not None and record.event.kind == "del"):
        return None
    namespace, digest = record.namespace, record.digest
    if record.kind == "rev":
        sentence = f"the manifest {short(digest)} can be named in {namespace} but its bytes are not durable"
        return Claim(layout.blob_key(digest), None, "name before bytes", sentence)
    sentence = f"{record.subject} of {namespace} names {short(digest)}, which is not there"
    manifest = ("manifest", namespace, str(digest))
    return Claim(layout.revision_key(namespace, digest), manifest, "name before manifest", sentence)


@lru_cache(maxsize=REMEMBERED)
def keys_of(register: Register) -> tuple[Key, ...]:
    """The keys that make up the value of a register. A tag has none that are known before: its events are dated."""
    kind, namespace_text, *rest = register
    namespace = Namespace(namespace_text)
    if kind == "tag":
        return ()
    digest = Digest.parse(rest[0])
    if kind == "blob":
        return layout.blob_key(digest), layout.owner_key(digest, namespace)
    if kind == "manifest":
        return layout.blob_key(digest), layout.revision_key(namespace, digest)
    return (layout.referrer_key(namespace, digest, Digest.parse(rest[1])),)


def short(digest: Digest) -> str:
    """For sentences."""
    return f"{digest.algorithm}:{digest.hex[:12]}"
