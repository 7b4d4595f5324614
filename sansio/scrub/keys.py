"""Which of the keys of `angos.sansio.layout` a name is: all of them, the other way round.

Besides our own there are keys that other registries leave in the same place, which we neither read nor mind: those of
CNCF distribution, whose store can be taken over and given back, and those that Angos 1.6 keeps besides.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from angos.sansio import layout
from angos.sansio.errors import Invalid
from angos.sansio.layout import TagEvent
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag, parse_namespace

Kind = Literal[
    "blob",
    "owner",
    "reference",
    "revision",
    "tag event",
    "history",
    "claim",
    "referrer",
    "pull",
    "catalogue",
    "upload",
    "chunk",
    "import",
    "probe",
    "scrub",
    "collector",
    "other registry",
]


NO_NAMESPACE = Namespace("")


@dataclass(frozen=True, slots=True)
class Known:
    """A key of the layout, taken apart."""

    kind: Kind
    namespace: Namespace = NO_NAMESPACE
    digest: Digest | None = None
    """Of the blob, the manifest, or the subject."""
    tag: Tag | None = None
    event: TagEvent | None = None
    referrer: Digest | None = None
    offset: int = 0
    """Of a chunk."""


_OTHER = Known("other registry")


def recognise(name: str) -> Known | None:
    """The key; None for one that the layout does not have."""
    for prefix, parse in _FAMILIES.items():
        if name.startswith(prefix):
            return parse(name[len(prefix) :])
    return None


def _blob(rest: str) -> Known | None:
    digest = layout.parse_blob_key(layout.BLOBS_PREFIX + rest)
    if digest is not None:
        return Known("blob", digest=digest)
    # The lists of namespaces of Angos 1.1.
    folder, _, what = rest.rpartition("/")
    if what == "index.json" and layout.parse_revision_name(folder):
        return _OTHER
    folder, _, refs = folder.rpartition("/")
    return _OTHER if refs == "refs" and layout.parse_revision_name(folder) else None


def _reference(rest: str) -> Known | None:
    algorithm, _, more = rest.partition("/")
    shard, _, more = more.partition("/")
    encoded, _, more = more.partition("/")
    digest = layout.parse_revision_name(f"{algorithm}/{shard}/{encoded}")
    namespace, what = _split(more)
    if digest is None or namespace is None:
        return None
    if what == "own":
        return Known("owner", namespace, digest)
    reason = what.removeprefix("r/")
    return Known("reference", namespace, digest) if reason != what and _is_reason(reason) else None


def _is_reason(name: str) -> bool:
    if (tag := layout.parse_tag_reference_name(name)) is not None:
        return _tag(tag.name) is not None
    if name == "rev" or layout.parse_manifest_reference_name(name) is not None:
        return True
    # As Angos 1.6 says why.
    return name in ("layer", "config") or (
        name[:4] in ("sub.", "idx.") and layout.parse_manifest_reference_name(name[4:]) is not None
    )


def _of_namespace(rest: str) -> Known | None:
    namespace, what = _split(rest)
    family, _, name = what.partition("/")
    parse = _OF_NAMESPACES.get(family)
    return None if parse is None or namespace is None else parse(namespace, name)


def _revision(namespace: Namespace, name: str) -> Known | None:
    digest = layout.parse_revision_name(name)
    return None if digest is None else Known("revision", namespace, digest)


def _event(namespace: Namespace, name: str, kind: Literal["tag event", "history"] = "tag event") -> Known | None:
    folder, _, event_name = name.partition("/")
    tag, event = layout.parse_tag_folder(folder), layout.parse_tag_event(event_name)
    return None if tag is None or event is None else Known(kind, namespace, event.digest, tag, event)


def _history(namespace: Namespace, name: str) -> Known | None:
    return _event(namespace, name, "history")


def _claim(namespace: Namespace, name: str) -> Known | None:
    folder, _, order = name.partition("/")
    tag = layout.parse_tag_folder(folder)
    return None if tag is None or layout.parse_ordered_name(order) is None else Known("claim", namespace, tag=tag)


def _referrer(namespace: Namespace, name: str) -> Known | None:
    folder, _, referrer_name = name.rpartition("/")
    subject, referrer = layout.parse_revision_name(folder), layout.parse_referrer_name(referrer_name)
    if subject is None or referrer is None:
        return None
    return Known("referrer", namespace, subject, referrer=referrer)


def _pull(namespace: Namespace, name: str) -> Known | None:
    return None if layout.parse_pull_name(name) is None else Known("pull", namespace)


_OF_NAMESPACES: dict[str, Callable[[Namespace, str], Known | None]] = {
    "rev": _revision,
    "tag": _event,
    "hist": _history,
    "claim": _claim,
    "sub": _referrer,
    "atime": _pull,
}


def _catalogue(rest: str) -> Known | None:
    namespace, what = _split(rest)
    return None if namespace is None or what or not rest.endswith("!") else Known("catalogue", namespace)


def _suspect(rest: str) -> Known | None:
    return None if layout.parse_suspect_name(rest) is None else Known("collector")


def _collector(rest: str) -> Known | None:
    kind, _, name = rest.partition("/")
    return Known("collector") if kind in ("permit", "mark") and _UUID.fullmatch(name) else None


def _import(rest: str) -> Known | None:
    if layout.IMPORTS_PREFIX + rest in (layout.TAKING_OVER_KEY, layout.TAKEN_OVER_KEY):
        return Known("collector")
    namespace, name = _split(rest)
    if namespace is None or layout.parse_ordered_name(name.removeprefix("/")) is None:
        return None
    return Known("import", namespace)


def _probe(rest: str) -> Known | None:
    folder, _, what = rest.partition("/")
    return Known("probe") if what and layout.parse_probe_folder(folder) is not None else None


def _recording(rest: str) -> Known | None:
    return None if layout.parse_ordered_name(rest) is None else Known("pull")


def _scrub(rest: str) -> Known | None:
    return None if layout.parse_ordered_name(rest) is None else Known("scrub")


_UPLOAD = re.compile(
    r"(?P<i>[0-9a-f])/(?P<id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\."
    r"(?:(?P<session>session\.[0-9]+\.(?:any|sha256|sha512))|chunk\.(?P<offset>[0-9a-f]{16})|part\.[^/]+)"
)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_OF_UPLOADS = frozenset({"data", "startedat", "session.json", "hashstates", "staged", "patches"})
_OF_DISTRIBUTION = re.compile(r"(?P<namespace>.+?)/(?:_layers|_manifests|_config)/.+")


def _repository(rest: str) -> Known | None:
    name, found, upload = rest.partition("/_uploads/")
    if not found:
        match = _OF_DISTRIBUTION.fullmatch(rest)
        return None if match is None else _OTHER
    if (match := _UPLOAD.fullmatch(upload)) is not None and match["id"].startswith(match["i"]):
        namespace = _namespace(name)
        if namespace is None:
            return None
        offset = match["offset"]
        return Known("upload", namespace) if offset is None else Known("chunk", namespace, offset=int(offset, 16))
    upload_id, _, what = upload.partition("/")
    return _OTHER if _UUID.fullmatch(upload_id) and what.partition("/")[0] in _OF_UPLOADS else None


def _marker(rest: str) -> Known | None:
    """Of a collector of Angos 1.6."""
    return _OTHER if _UUID.fullmatch(rest) else None


_FAMILIES: dict[str, Callable[[str], Known | None]] = {
    layout.BLOBS_PREFIX: _blob,
    layout.REFERENCES_PREFIX: _reference,
    layout.NAMESPACES_PREFIX: _of_namespace,
    layout.CATALOG_PREFIX: _catalogue,
    layout.DISTRIBUTION_PREFIX: _repository,
    layout.IMPORTS_PREFIX: _import,
    layout.PROBES_PREFIX: _probe,
    layout.RECORDING_PREFIX: _recording,
    layout.SCRUB_PREFIX: _scrub,
    layout.SUSPECTS_PREFIX: _suspect,
    layout.COLLECTORS_PREFIX: _collector,
    "v2/gc/": _marker,
}

FAMILIES: tuple[str, ...] = tuple(_FAMILIES)
"""The prefixes of all that is known."""


def _split(text: str) -> tuple[Namespace | None, str]:
    """The namespace before the first ``!``, and what comes after it."""
    name, found, what = text.partition("!")
    return (_namespace(name) if found else None), what


def _namespace(text: str) -> Namespace | None:
    try:
        return parse_namespace(text)
    except Invalid:
        return None


def _tag(text: str) -> Tag | None:
    try:
        return Tag.parse(text)
    except Invalid:
        return None
