"""Every storage key: format and parse, side by side. Nothing else in the project spells a key.

The layout is that of Angos 1.6. Blob bytes lie where CNCF distribution keeps them; everything else is write-once::

    v2/blobs/<alg>/<hh>/<hex>/data                            the bytes
    v2/ref/<alg>/<hh>/<hex>/<ns>!own                          the namespace may read the blob        (empty)
    v2/ref/<alg>/<hh>/<hex>/<ns>!r/<why>                      the namespace needs the blob, and why  (empty)
    v2/ns/<ns>!rev/<alg>/<hh>/<hex>                           the manifest exists in the namespace   (JSON)
    v2/ns/<ns>!tag/<tag>!/<ord>.<set|del>.<alg>.<hex>         one event in the life of a tag         (JSON)
    v2/ns/<ns>!hist/<tag>!/<same name>                        an event that later ones made history  (JSON)
    v2/ns/<ns>!claim/<tag>!/<ord>                             who may set an immutable tag next: the event it will be
    v2/ns/<ns>!sub/<alg>/<hh>/<hex>/<alg>.<hex>               a referrer of a subject                (descriptor)
    v2/ns/<ns>!atime/<what>!/<ord>.<id>                       when it was pulled: tag/<tag>, rev/<alg>/<hex> or
                                                              blob/<alg>/<hex>                       (JSON)
    v2/pulls/<ord>                                            pulls are recorded since then         (empty)
    v2/cat/<ns>!                                              the namespace may hold something       (empty)
    v2/repositories/<ns>/_uploads/<i>/<id>.<what>             an upload: see upload_session.py
    v2/import/<ns>!/<ord>                                     the namespace was taken over          (JSON)
    v2/import/!<what>                                         a take-over goes on, or has ended              (empty)
    v2/suspect/<alg>/<hh>/<hex>.<ord>.<id>                    look whether anybody needs this blob           (empty)
    v2/collector/permit/<id>                                  this collector may go on                       (empty)
    v2/collector/mark/<id>                                    what a collector removes at this moment        (JSON)
    v2/probe/<ms>.<id>/<what>                                 for a moment, while a bucket is tried out
    v2/scrub/<ord>                                            how far a scrub has come that has not ended     (JSON)
    _lost_and_found/<key>                                     what a scrub found there and moved out of the way

``<hh>`` are the first two digits of ``<hex>``, ``<i>`` is the first one of ``<id>``. ``!`` is outside the grammar of
names, so ``a`` never collides with ``a/b``, and it sorts before every character of a name, so that the order of keys
is the order of names.

``<ord>`` counts down from 2^64-2 by the milliseconds of the wall clock in 16 hex digits: the newest event sorts first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from angos.sansio.effects import Key, Prefix
from angos.sansio.oci.digest import HEX_LENGTH, Digest
from angos.sansio.oci.reference import Namespace, Tag, parse_namespace

Store = Literal["blobs", "metadata"]


LOST_AND_FOUND = "_lost_and_found/"

_OF_BLOBS = tuple(f"{where}{family}" for where in ("", LOST_AND_FOUND) for family in ("v2/blobs/", "v2/repositories/"))


def store_of(name: str) -> Store:
    """Which of the two stores holds this key or prefix."""
    return "blobs" if name.startswith(_OF_BLOBS) else "metadata"


def lost_and_found_key(key: Key, number: int = 1) -> Key:
    """Where a scrub moves what it found under this key; in the same store. `number` counts from 1, should others lie
    there already."""
    return Key(f"{LOST_AND_FOUND}{key}" if number == 1 else f"{LOST_AND_FOUND}{key}~{number}")


ROOT_PREFIX = Prefix("v2/")
"""All that the registry keeps is below. What lies beside it belongs to somebody else."""


# --- blobs and who may read or needs them -----------------------------------------------------------------------------


BLOBS_PREFIX = Prefix("v2/blobs/")


def blob_key(digest: Digest) -> Key:
    """The bytes under this digest."""
    return Key(f"v2/blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}/data")


def parse_blob_key(key: str) -> Digest | None:
    """The digest whose bytes this key holds; None for every other key."""
    if not (key.startswith("v2/blobs/") and key.endswith("/data")):
        return None
    return _parse_sharded(key[len("v2/blobs/") : -len("/data")])


def blob_references_prefix(digest: Digest) -> Prefix:
    """Everything that is recorded about who owns or needs this blob."""
    return Prefix(f"v2/ref/{_sharded(digest)}/")


REFERENCES_PREFIX = Prefix("v2/ref/")


def parse_reference_digest(key: str) -> Digest | None:
    """The blob about which this key below `REFERENCES_PREFIX` says something; None for a stray key."""
    return _parse_sharded("/".join(key.removeprefix(REFERENCES_PREFIX).split("/", 3)[:3]))


def owner_key(digest: Digest, namespace: Namespace) -> Key:
    """Present: the namespace uploaded, mounted or fetched the blob, so whoever may read the namespace may read it."""
    return Key(f"v2/ref/{_sharded(digest)}/{namespace}!own")


def parse_owner_name(name: str) -> Namespace | None:
    """The owner named by a key relative to `blob_references_prefix`; None for other keys there."""
    return _parse_namespace(name.removesuffix("!own")) if name.endswith("!own") else None


_OWNED = re.compile(r"([^/]+/[^/]+/[^/]+)/(.+)!own")


def parse_owned_name(name: str) -> tuple[Digest, Namespace] | None:
    """The blob and its owner of a name relative to `REFERENCES_PREFIX`; None for other keys there."""
    match = _OWNED.fullmatch(name)
    digest = None if match is None else _parse_sharded(match[1])
    owner = None if match is None else _parse_namespace(match[2])
    return None if digest is None or owner is None else (digest, owner)


def before_owners(repository: str) -> str:
    """What sorts right before the owners in this repository and below it, relative to `blob_references_prefix`."""
    return repository


def references_prefix(digest: Digest, namespace: Namespace) -> Prefix:
    """Why this namespace needs the blob: ``rev``, ``tag.<tag>``, or ``<alg>.<hex>`` of a manifest that names it."""
    return Prefix(f"v2/ref/{_sharded(digest)}/{namespace}!r/")


def revision_reference_key(digest: Digest, namespace: Namespace) -> Key:
    """The blob is a manifest of the namespace."""
    return Key(f"{references_prefix(digest, namespace)}rev")


def tag_reference_key(digest: Digest, namespace: Namespace, tag: Tag) -> Key:
    """The blob is a manifest that this tag names or named."""
    return Key(f"{references_prefix(digest, namespace)}tag.{tag}")


def parse_tag_reference_name(name: str) -> Tag | None:
    """The tag of a name relative to `references_prefix`; None for other references."""
    return Tag(name.removeprefix("tag.")) if name.startswith("tag.") else None


def manifest_reference_key(digest: Digest, namespace: Namespace, manifest: Digest) -> Key:
    """The blob is a config, layer or child of this manifest of the namespace."""
    return Key(f"{references_prefix(digest, namespace)}{manifest.algorithm}.{manifest.hex}")


def parse_manifest_reference_name(name: str) -> Digest | None:
    """The manifest of a name relative to `references_prefix`; None for other references."""
    return _parse_dotted(name)


# --- manifests, tags, referrers, catalogue ----------------------------------------------------------------------------


NAMESPACES_PREFIX = Prefix("v2/ns/")


def revisions_prefix(namespace: Namespace) -> Prefix:
    """The manifests of a namespace."""
    return Prefix(f"v2/ns/{namespace}!rev/")


def revision_key(namespace: Namespace, digest: Digest) -> Key:
    """Present: the manifest can be read by this digest in the namespace."""
    return Key(f"v2/ns/{namespace}!rev/{_sharded(digest)}")


def parse_revision_name(name: str) -> Digest | None:
    """The digest of a name relative to `revisions_prefix`; None for a stray name."""
    return _parse_sharded(name)


def tags_prefix(namespace: Namespace) -> Prefix:
    """One folder for each tag that the namespace has or had."""
    return Prefix(f"v2/ns/{namespace}!tag/")


def tag_folder(tag: str) -> str:
    """The folder of a tag below `tags_prefix`. Any text will do, so that ``last`` need not be a tag."""
    return f"{tag}!"


def after_tag(tag: str) -> str:
    """Below `tags_prefix` this sorts after all events of a tag and before those of the next one. Any text will do."""
    return f"{tag_folder(tag)}0"  # the character after "/"


def parse_tag_folder(folder: str) -> Tag | None:
    """The tag of a folder below `tags_prefix`; None for a stray folder."""
    return _parse_tag(folder.removesuffix("!")) if folder.endswith("!") else None


def tag_events_prefix(namespace: Namespace, tag: Tag) -> Prefix:
    """The life of a tag, newest event first."""
    return Prefix(f"v2/ns/{namespace}!tag/{tag}!/")


def histories_prefix(namespace: Namespace) -> Prefix:
    """One folder for each tag that has a history, as below `tags_prefix`."""
    return Prefix(f"v2/ns/{namespace}!hist/")


def tag_history_prefix(namespace: Namespace, tag: Tag) -> Prefix:
    """Events that no reader has to look at any more, under the same names."""
    return Prefix(f"v2/ns/{namespace}!hist/{tag}!/")


def tag_claim_key(namespace: Namespace, tag: Tag, after_ms: int) -> Key:
    """Holds the name of the one event that sets an immutable tag for the first time after its deletion at `after_ms`,
    0 for a tag without events. Whoever removes the last event of a tag must remove its claims before."""
    return Key(f"v2/ns/{namespace}!claim/{tag}!/{ORDER_MAX - after_ms:016x}")


ORDER_MAX = 2**64 - 2  # 2^64-1 is left for "no timestamp", which never wins
EVENT_MS_MAX = 253_402_300_799_999
"""The end of the year 9999, behind which times have no text. No event of a tag is dated later."""

_EVENT = re.compile(r"([0-9a-f]{16})\.(set|del)\.(sha256|sha512)\.([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class TagEvent:
    """A tag was set to, or taken off, a manifest."""

    at_ms: int
    """Milliseconds since 1970; see tags.py for what dates an event."""
    kind: Literal["set", "del"]
    digest: Digest

    def __str__(self) -> str:
        return f"{ORDER_MAX - self.at_ms:016x}.{self.kind}.{self.digest.algorithm}.{self.digest.hex}"


def parse_tag_event(name: str) -> TagEvent | None:
    """The event named by a key relative to `tag_events_prefix`; None for a stray name."""
    match = _EVENT.fullmatch(name)
    if match is None or len(match[4]) != HEX_LENGTH[match[3]]:
        return None
    at_ms = ORDER_MAX - int(match[1], 16)
    if at_ms > EVENT_MS_MAX:  # no later event could ever take it back
        return None
    return TagEvent(at_ms, "set" if match[2] == "set" else "del", Digest(match[3], match[4]))


_NAMED = re.compile(r"([^!]+)!(rev|tag)/(.+)")


def parse_namespace_revision(name: str) -> tuple[Namespace, Digest] | None:
    """The namespace and the manifest of a name relative to `NAMESPACES_PREFIX`; None for other names."""
    match = _NAMED.fullmatch(name)
    if match is None or match[2] != "rev":
        return None
    namespace, digest = _parse_namespace(match[1]), parse_revision_name(match[3])
    return None if namespace is None or digest is None else (namespace, digest)


def parse_namespace_event(name: str) -> tuple[Namespace, Tag, TagEvent] | None:
    """The namespace, the tag and its event of a name relative to `NAMESPACES_PREFIX`; None for other names."""
    match = _NAMED.fullmatch(name)
    if match is None or match[2] != "tag":
        return None
    folder, _, event_name = match[3].partition("/")
    namespace, tag, event = _parse_namespace(match[1]), parse_tag_folder(folder), parse_tag_event(event_name)
    return None if namespace is None or tag is None or event is None else (namespace, tag, event)


def referrers_prefix(namespace: Namespace, subject: Digest) -> Prefix:
    """The manifests of the namespace whose ``subject`` is this digest."""
    return Prefix(f"v2/ns/{namespace}!sub/{_sharded(subject)}/")


def subjects_prefix(namespace: Namespace) -> Prefix:
    """The referrers of all subjects in the namespace."""
    return Prefix(f"v2/ns/{namespace}!sub/")


def parse_subject_name(name: str) -> tuple[Digest, Digest] | None:
    """Subject and referrer of a name relative to `subjects_prefix`; None for a stray name."""
    folder, _, last = name.rpartition("/")
    subject, referrer = _parse_sharded(folder), _parse_dotted(last)
    return None if subject is None or referrer is None else (subject, referrer)


def referrer_name(referrer: Digest) -> str:
    """The name of a referrer below `referrers_prefix`."""
    return f"{referrer.algorithm}.{referrer.hex}"


def referrer_key(namespace: Namespace, subject: Digest, referrer: Digest) -> Key:
    """The descriptor of one referrer."""
    return Key(referrers_prefix(namespace, subject) + referrer_name(referrer))


def parse_referrer_name(name: str) -> Digest | None:
    """The digest of a name relative to `referrers_prefix`; None for a stray name."""
    return _parse_dotted(name)


# Angos 1.6 writes a key for each pull, and who pulled into its name.


def pulls_prefix(namespace: Namespace) -> Prefix:
    """When anything of the namespace was pulled."""
    return Prefix(f"v2/ns/{namespace}!atime/")


def tag_pulls_prefix(namespace: Namespace, tag: Tag) -> Prefix:
    """When something was pulled by this tag, newest first."""
    return Prefix(f"v2/ns/{namespace}!atime/tag/{tag}!/")


def manifest_pulls_prefix(namespace: Namespace, digest: Digest) -> Prefix:
    """When the manifest was pulled, by its digest or by a tag, newest first."""
    return Prefix(f"v2/ns/{namespace}!atime/rev/{digest.algorithm}/{digest.hex}!/")


def blob_pulls_prefix(namespace: Namespace, digest: Digest) -> Prefix:
    """When the blob was pulled, newest first. Angos 1.6 has no such keys."""
    return Prefix(f"v2/ns/{namespace}!atime/blob/{digest.algorithm}/{digest.hex}!/")


_PULLER = "98fc4b7e"
"""The beginning of the hash of "angos": we do not write down who pulls, so that all processes agree on a name."""
_PULL = re.compile(r"([0-9a-f]{16})\.[0-9a-f]{8}")


def pull_key(pulls: Prefix, at_ms: int) -> Key:
    """It was pulled at this time; below one of the three prefixes."""
    return Key(f"{pulls}{ORDER_MAX - at_ms:016x}.{_PULLER}")


def parse_pull_time(name: str) -> int | None:
    """The time of a pull, of a name below one of the three prefixes; None for a stray one, or one without a time."""
    match = _PULL.fullmatch(name)
    at_ms = -1 if match is None else ORDER_MAX - int(match[1], 16)
    return at_ms if at_ms >= 0 else None


@dataclass(frozen=True, slots=True)
class Pulled:
    """Something was pulled."""

    what: Tag | Digest
    """A digest is that of a manifest or of a blob."""
    at_ms: int


def parse_pull_name(name: str) -> Pulled | None:
    """The pull of a name relative to `pulls_prefix`; None for a stray one."""
    folder, mark, last = name.partition("!/")
    family, _, text = folder.partition("/")
    at_ms = parse_pull_time(last) if mark else None
    if at_ms is None:
        return None
    what: Tag | Digest | None = None
    if family == "tag":
        what = _parse_tag(text)
    elif family in ("rev", "blob"):
        what = parse_distribution_digest(text)
    return None if what is None else Pulled(what, at_ms)


RECORDING_PREFIX = Prefix("v2/pulls/")


def recording_key(at_ms: int) -> Key:
    """Present: since this time pulls are recorded."""
    return Key(f"{RECORDING_PREFIX}{ORDER_MAX - at_ms:016x}")


CATALOG_PREFIX = Prefix("v2/cat/")


def catalog_key(namespace: Namespace) -> Key:
    """Present: the namespace holds something, or did."""
    return Key(f"v2/cat/{namespace}!")


def catalog_name(namespace: str) -> str:
    """The name of a namespace below `CATALOG_PREFIX`. Any text will do, so that ``last`` need not be a namespace."""
    return f"{namespace}!"


def parse_catalog_name(name: str) -> Namespace | None:
    """The namespace of a name relative to `CATALOG_PREFIX`; None for a stray name."""
    return _parse_namespace(name.removesuffix("!")) if name.endswith("!") else None


# --- uploads ----------------------------------------------------------------------------------------------------------


def upload_prefix(namespace: Namespace, upload_id: str) -> Prefix:
    """Everything of one upload. No folder of its own: making and removing one costs a disk more than the upload."""
    return Prefix(f"v2/repositories/{namespace}/_uploads/{upload_id[0]}/{upload_id}.")


# --- collecting: see collection/collector.py --------------------------------------------------------------------------

SUSPECTS_PREFIX = Prefix("v2/suspect/")

_SUSPECT = re.compile(r"([a-z0-9]+)/([0-9a-f]{2})/([0-9a-f]+)\.([0-9a-f]{16})\.[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Suspect:
    """Somebody wants a blob to be looked at, or to be left alone for a while."""

    digest: Digest
    at_ms: int
    """By the clock of whoever wrote it; what counts is the age of the key."""


def suspects_prefix(digest: Digest) -> Prefix:
    """The suspicions about one blob, newest first."""
    return Prefix(f"{SUSPECTS_PREFIX}{_sharded(digest)}.")


def suspect_key(digest: Digest, at_ms: int, suspect_id: str) -> Key:
    """A suspicion of its own: the id is a fresh one, or the beginning of one."""
    return Key(f"{suspects_prefix(digest)}{ORDER_MAX - at_ms:016x}.{suspect_id}")


def parse_suspect_name(name: str) -> Suspect | None:
    """The suspicion of a name relative to `SUSPECTS_PREFIX`; None for a stray name."""
    match = _SUSPECT.fullmatch(name)
    if match is None or not match[3].startswith(match[2]):
        return None
    digest = _digest(match[1], match[3])
    return None if digest is None else Suspect(digest, ORDER_MAX - int(match[4], 16))


def parse_suspect_time(name: str) -> int | None:
    """When the suspicion was written whose name this is, relative to `suspects_prefix`; None for a stray name."""
    match = re.fullmatch(r"([0-9a-f]{16})\.[0-9a-f]+", name)
    return None if match is None else ORDER_MAX - int(match[1], 16)


COLLECTORS_PREFIX = Prefix("v2/collector/")
PERMITS_PREFIX = Prefix("v2/collector/permit/")
MARKS_PREFIX = Prefix("v2/collector/mark/")


def permit_key(collector_id: str) -> Key:
    """Present: this collector may go on removing."""
    return Key(PERMITS_PREFIX + collector_id)


def mark_key(mark_id: str) -> Key:
    """Holds the digests that a collector may be removing."""
    return Key(MARKS_PREFIX + mark_id)


TAKING_OVER_KEY = Key("v2/import/!running")
"""A take-over of what CNCF distribution has stored goes on, or was broken off."""

TAKEN_OVER_KEY = Key("v2/import/!done")
"""Everything that CNCF distribution had stored was taken over."""


@dataclass(frozen=True, slots=True)
class Name:
    """Why a blob is kept: a key below `blob_references_prefix`."""

    namespace: Namespace
    owner: bool
    """The namespace may read the blob."""
    revision: Digest | None
    """The manifest of the namespace without which this reason is none any more; None for an owner, and for a reason
    that this version does not know."""


def parse_blob_name(digest: Digest, name: str) -> Name | None:
    """The meaning of a name relative to `blob_references_prefix` of this digest; None for a stray name."""
    namespace, mark, rest = name.partition("!")
    if not mark or not namespace:
        return None
    if rest == "own":
        return Name(Namespace(namespace), True, None)
    if not rest.startswith("r/"):
        return None
    why = rest.removeprefix("r/")
    if why == "rev" or why.startswith(("tag.", "sub.")):
        return Name(Namespace(namespace), False, digest)
    return Name(Namespace(namespace), False, _parse_dotted(why.removeprefix("idx.")))


_UPLOAD = re.compile(r"([0-9a-f])/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\.[a-z]+\..*")


def uploads_prefix(namespace: str) -> Prefix:
    """The uploads of a namespace; those of CNCF distribution lie there too."""
    return Prefix(f"v2/repositories/{namespace}/_uploads/")


def parse_upload_name(name: str) -> str | None:
    """The id of the upload that has this key, relative to `uploads_prefix`; None for what is none of ours."""
    match = _UPLOAD.fullmatch(name)
    return match[2] if match is not None and match[2].startswith(match[1]) else None


def parse_upload_key(key: str) -> Prefix | None:
    """The `upload_prefix` of the upload that this key belongs to; None for every other key."""
    namespace, mark, name = key.removeprefix(DISTRIBUTION_PREFIX).partition("/_uploads/")
    upload_id = parse_upload_name(name) if mark and key.startswith(DISTRIBUTION_PREFIX) else None
    owner = None if upload_id is None else _parse_namespace(namespace)
    return None if upload_id is None or owner is None else upload_prefix(owner, upload_id)


# --- trying a bucket out ----------------------------------------------------------------------------------------------

PROBES_PREFIX = Prefix("v2/probe/")


def probe_prefix(at_ms: int, probe_id: str) -> Prefix:
    """The keys of one try, which began at this time of whoever makes it."""
    return Prefix(f"{PROBES_PREFIX}{at_ms:016x}.{probe_id}/")


def parse_probe_folder(folder: str) -> int | None:
    """When the try began whose keys are in this folder below `PROBES_PREFIX`; None for a stray one."""
    match = re.fullmatch(r"([0-9a-f]{16})\.[0-9a-f]+", folder)
    return None if match is None else int(match[1], 16)


# --- maintenance ------------------------------------------------------------------------------------------------------

SCRUB_PREFIX = Prefix("v2/scrub/")
"""How far scrubs have come that have not ended, newest first."""


def scrub_key(at_ms: int) -> Key:
    """How far a scrub had come at this time."""
    return Key(f"{SCRUB_PREFIX}{ORDER_MAX - at_ms:016x}")


def parse_ordered_name(name: str) -> int | None:
    """The time of a name that is ``<ord>`` alone, in milliseconds; None for a stray one."""
    return ORDER_MAX - int(name, 16) if re.fullmatch(r"[0-9a-f]{16}", name) else None


def _sharded(digest: Digest) -> str:
    return f"{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def _parse_sharded(text: str) -> Digest | None:
    algorithm, _, rest = text.partition("/")
    shard, _, encoded = rest.partition("/")
    return _digest(algorithm, encoded) if encoded.startswith(shard) and len(shard) == 2 else None


def _parse_dotted(text: str) -> Digest | None:
    algorithm, _, encoded = text.partition(".")
    return _digest(algorithm, encoded)


def _digest(algorithm: str, encoded: str) -> Digest | None:
    if HEX_LENGTH.get(algorithm) != len(encoded) or encoded.strip("0123456789abcdef"):
        return None
    return Digest(algorithm, encoded)


def _parse_namespace(text: str) -> Namespace | None:
    try:
        return parse_namespace(text)
    except ValueError:
        return None


def _parse_tag(text: str) -> Tag | None:
    try:
        return Tag.parse(text)
    except ValueError:
        return None


# --- what CNCF distribution keeps beside the blobs, when both use one folder or bucket --------------------------------

DISTRIBUTION_PREFIX = Prefix("v2/repositories/")

_LINK = re.compile(
    r"(?P<namespace>.+?)/(?:_layers/(?P<layer>[^/]+/[^/]+)|_manifests/revisions/(?P<revision>[^/]+/[^/]+)"
    r"|_manifests/tags/(?P<tag>[^/]+)/current)/link"
)


@dataclass(frozen=True, slots=True)
class DistributionLink:
    """A link file of CNCF distribution. Its name has not been checked."""

    namespace: str
    kind: Literal["layer", "revision", "tag"]
    name: str
    """``<alg>/<hex>`` of a layer or a revision, or the tag."""


def parse_distribution_link(name: str) -> DistributionLink | None:
    """The link of a name relative to `DISTRIBUTION_PREFIX`; None for everything else there."""
    match = _LINK.fullmatch(name)
    if match is None:
        return None
    if match["layer"] is not None:
        return DistributionLink(match["namespace"], "layer", match["layer"])
    if match["revision"] is not None:
        return DistributionLink(match["namespace"], "revision", match["revision"])
    return DistributionLink(match["namespace"], "tag", match["tag"])


def distribution_prefix(namespace: Namespace) -> Prefix:
    """What distribution keeps of a repository, and of those below it."""
    return Prefix(f"{DISTRIBUTION_PREFIX}{namespace}/")


def distribution_layer_key(namespace: Namespace, digest: Digest) -> Key:
    """The link by which distribution knows that the repository has the layer or config. Its value is the digest."""
    return Key(f"{DISTRIBUTION_PREFIX}{namespace}/_layers/{digest.algorithm}/{digest.hex}/link")


def distribution_revision_key(namespace: Namespace, digest: Digest) -> Key:
    """The link by which distribution knows that the repository has the manifest. Its value is the digest."""
    return Key(f"{DISTRIBUTION_PREFIX}{namespace}/_manifests/revisions/{digest.algorithm}/{digest.hex}/link")


def distribution_tag_prefix(namespace: Namespace, tag: Tag) -> Prefix:
    """All that distribution knows about a tag."""
    return Prefix(f"{DISTRIBUTION_PREFIX}{namespace}/_manifests/tags/{tag}/")


def distribution_tag_key(namespace: Namespace, tag: Tag) -> Key:
    """The link whose value is the digest that the tag names."""
    return Key(f"{distribution_tag_prefix(namespace, tag)}current/link")


def distribution_tag_index_key(namespace: Namespace, tag: Tag, digest: Digest) -> Key:
    """The link by which distribution knows that the tag names, or named, this digest."""
    return Key(f"{distribution_tag_prefix(namespace, tag)}index/{digest.algorithm}/{digest.hex}/link")


_TAG_FOLDER = re.compile(r"v2/repositories/.+?/_manifests/tags/[^/]+")


def distribution_tag_folders(key: Key) -> tuple[str, ...]:
    """The folders that exist for this key alone or for others of the same tag, deepest first; none for other keys.

    To distribution, a folder is a tag. So in a directory they have to go with the last of their keys.
    """
    match = _TAG_FOLDER.match(key)
    if match is None:
        return ()
    folders = []
    folder = key.rpartition("/")[0]
    while len(folder) >= match.end():
        folders.append(folder)
        folder = folder.rpartition("/")[0]
    return tuple(folders)


IMPORTS_PREFIX = Prefix("v2/import/")


def imports_prefix(namespace: Namespace) -> Prefix:
    """The imports of this namespace that ended, newest first: ``<ord>``, dated by the newest link that was seen. The
    value names what could not be taken."""
    return Prefix(f"v2/import/{namespace}!/")


def import_key(namespace: Namespace, at_ms: int) -> Key:
    """The links up to this time have been taken."""
    return Key(f"{imports_prefix(namespace)}{ORDER_MAX - at_ms:016x}")


def parse_distribution_digest(name: str) -> Digest | None:
    """The digest in the name of the link of a layer or a revision; None for one that cannot be stored here."""
    algorithm, _, encoded = name.partition("/")
    return _digest(algorithm, encoded)
