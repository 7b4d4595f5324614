"""Clients: scripts that push, pull, delete and list as real ones do, and do not give up at the first lost answer.

A script is a generator: it yields a `Call` and gets the `Answer`, or None when it never came. What a call means for the
oracle is written on the call by the client, who knows what it wants; how the registry gets there is not its business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Literal

from angos.simulator.oracle.history import HERE, Answer, Intent
from angos.simulator.world.bodies import SyntheticBody
from angos.simulator.world.images import NAMESPACES, TAGS, Blob, Image, blob, image

ATTEMPTS_MAX = 3
NO_BODY = SyntheticBody()

Form = Literal["post", "put", "patch", "chunks"]
FORMS: tuple[Form, ...] = ("post", "put", "patch", "chunks")
"""One POST; POST and PUT; POST, one PATCH of unknown length, PUT; POST, PATCHes with ``Content-Range``, the last bytes
in the PUT."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request, and what the client wants with it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: SyntheticBody = NO_BODY
    intents: tuple[Intent, ...] = ()
    upload: str = ""
    """The location of the upload that the request is about."""
    elsewhere: bool = False
    """Prefer another replica than the last time."""


Script = Generator[Call, "Answer | None", None]


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that a client does. Numbers are places in the lists of `angos.simulator.world.images`."""

    verb: str
    namespace: int = 0
    tag: int = 0
    item: int = 0
    """A blob or an image."""
    form: Form = "put"
    cut_at: int | None = None
    """The connection breaks after so many bytes of the first body of every blob."""
    other: int = 0
    """A second namespace, or where a join begins."""


@dataclass(slots=True)
class Listing:
    """What a client read, page by page."""

    path: str
    names: list[str]
    whole: bool = False


@dataclass(slots=True)
class Shared:
    """What clients of one scenario know of each other."""

    listings: list[Listing] = field(default_factory=list)

    uploads: list[tuple[str, str, int]] = field(default_factory=list)
    """Namespace, location and blob of uploads that were opened."""


def play(act: Act, shared: Shared) -> Script:
    """The script of an act."""
    return SCRIPTS[act.verb](act, shared)


# --- pushing ----------------------------------------------------------------------------------------------------------


def push_blob(act: Act, shared: Shared) -> Script:
    """Push one blob in the form that the act names."""
    yield from _push_blob(act, shared, NAMESPACES[act.namespace], act.item)


def push_image(act: Act, shared: Shared) -> Script:
    """Push an image as docker does: look for each blob, push those that are missing, then the manifest."""
    namespace, wanted = NAMESPACES[act.namespace], image(act.item)
    for child in wanted.children:
        yield from push_image(Act("push_image", act.namespace, -1, child, act.form), shared)
    for index in wanted.blobs:
        answer = yield head_blob_call(namespace, blob(index))
        if answer is None or answer.status != 200:
            pushed = yield from _push_blob(act, shared, namespace, index)
            if not pushed:
                return
    yield from _put_manifest(act, namespace, wanted)


def put_manifest(act: Act, shared: Shared) -> Script:
    """Push a manifest and nothing before it."""
    yield from _put_manifest(act, NAMESPACES[act.namespace], image(act.item))


def mount_blob(act: Act, shared: Shared) -> Script:
    """Mount a blob of another namespace; push it when the registry would rather have the bytes."""
    namespace, wanted = NAMESPACES[act.namespace], blob(act.item)
    target = f"/v2/{namespace}/blobs/uploads/?mount={wanted.digest}&from={NAMESPACES[act.other % len(NAMESPACES)]}"
    answer = yield Call("POST", target, intents=(_set("blob", namespace, wanted.digest),))
    if answer is not None and answer.status == 202:
        location = answer.headers.get("location", "")
        yield from _put(location, wanted.content, wanted, namespace)


def join_upload(act: Act, shared: Shared) -> Script:
    """Work on an upload that another client opened, at the same time as that one."""
    if not shared.uploads:
        return
    namespace, location, index = shared.uploads[act.other % len(shared.uploads)]
    yield from _resume(act, namespace, location, blob(index))


def leave_upload(act: Act, shared: Shared) -> Script:
    """Open an upload, bring all bytes or those before the cut, and go away."""
    namespace, wanted = NAMESPACES[act.namespace], blob(act.item)
    location = yield from _open(shared, namespace, act.item)
    if location:
        yield Call("PATCH", location, body=SyntheticBody(wanted.content, act.cut_at, chunked=True), upload=location)


def cancel_upload(act: Act, shared: Shared) -> Script:
    """Open an upload, bring some bytes, and cancel it."""
    namespace, wanted = NAMESPACES[act.namespace], blob(act.item)
    location = yield from _open(shared, namespace, act.item)
    if location:
        yield Call("PATCH", location, body=SyntheticBody(wanted.content[:8], chunked=True), upload=location)
        yield Call("DELETE", location, upload=location)


def cancel_other(act: Act, shared: Shared) -> Script:
    """Cancel an upload that another client opened."""
    if shared.uploads:
        location = shared.uploads[act.other % len(shared.uploads)][1]
        yield Call("DELETE", location, upload=location)


def _push_blob(act: Act, shared: Shared, namespace: str, index: int) -> Generator[Call, Answer | None, bool]:
    wanted = blob(index)
    for attempt in range(ATTEMPTS_MAX):
        if act.form == "post":
            body = SyntheticBody(wanted.content, None if attempt else act.cut_at)
            target = f"/v2/{namespace}/blobs/uploads/?digest={wanted.digest}"
            answer = yield Call("POST", target, body=body, intents=(_set("blob", namespace, wanted.digest),))
            if _settled(answer):
                return answer is not None and answer.status == 201
            continue
        location = yield from _open(shared, namespace, index)
        # After one byte "0-0" says the same as after none: such an upload is given up, and the next one is not cut.
        attempted = act if attempt == 0 else replace(act, cut_at=None)
        if location and (yield from _fill(attempted, namespace, location, wanted)):
            return True
    return False


def _open(shared: Shared, namespace: str, index: int) -> Generator[Call, Answer | None, str]:
    algorithm = blob(index).digest.algorithm
    hint = "" if algorithm == "sha256" else f"?digest-algorithm={algorithm}"
    answer = yield Call("POST", f"/v2/{namespace}/blobs/uploads/{hint}")
    if answer is None or answer.status != 202:
        return ""
    location = answer.headers.get("location", "")
    shared.uploads.append((namespace, location, index))
    return location


def _fill(act: Act, namespace: str, location: str, wanted: Blob) -> Generator[Call, Answer | None, bool]:
    content = wanted.content
    if act.form == "put":
        answer = yield from _put(location, content, wanted, namespace, act.cut_at)
    elif act.form == "patch":
        answer = yield Call("PATCH", location, body=SyntheticBody(content, act.cut_at, chunked=True), upload=location)
        if answer is not None and answer.status == 202:
            answer = yield from _put(location, b"", wanted, namespace)
    else:
        size = max(len(content) // 3, 2)
        answer = None
        for start in range(0, len(content), size):
            piece, last = content[start : start + size], start + size >= len(content)
            if last:
                answer = yield from _put(location, piece, wanted, namespace, start=start)
            else:
                answer = yield _patch(location, piece, start, act.cut_at if start == 0 else None)
            if answer is None or answer.status not in (201, 202):
                break
        if not content:
            answer = yield from _put(location, b"", wanted, namespace)
    if answer is not None and answer.status == 201:
        return True
    return (yield from _resume(act, namespace, location, wanted))


def _resume(act: Act, namespace: str, location: str, wanted: Blob) -> Generator[Call, Answer | None, bool]:
    """Ask, on another replica, how far it came; go on from there; or find that it was finished after all."""
    for _ in range(ATTEMPTS_MAX):
        answer = yield Call("GET", location, upload=location, elsewhere=True)
        if answer is None or answer.status >= 500:
            continue
        if answer.status == 404:
            # Perhaps finished: the same PUT again has to say so.
            answer = yield from _put(location, b"", wanted, namespace)
            return answer is not None and answer.status == 201
        offset = offset_of(answer)
        if offset > len(wanted.content):
            return False
        half = offset + max((len(wanted.content) - offset) // 2, 2)
        if act.form == "chunks" and half < len(wanted.content):
            answer = yield _patch(location, wanted.content[offset:half], offset, None)
            if answer is None or answer.status != 202:
                continue
            offset = half
        rest = wanted.content[offset:]
        answer = yield from _put(location, rest, wanted, namespace, start=offset if rest else None)
        if answer is not None and answer.status == 201:
            return True
    return False


def offset_of(answer: Answer) -> int:
    """The bytes that an upload holds, from ``Range``. Blobs of this world never have just one."""
    last = int(answer.headers.get("range", "0-0").rpartition("-")[2])
    return last + 1 if last else 0


def _patch(location: str, piece: bytes, start: int, cut_at: int | None) -> Call:
    content_range = ("content-range", f"{start}-{start + len(piece) - 1}")
    return Call("PATCH", location, (content_range,), SyntheticBody(piece, cut_at), upload=location)


def _put(
    location: str, piece: bytes, wanted: Blob, namespace: str, cut_at: int | None = None, *, start: int | None = None
) -> Generator[Call, Answer | None, Answer | None]:
    headers = () if start is None else (("content-range", f"{start}-{start + len(piece) - 1}"),)
    target = f"{location}{'&' if '?' in location else '?'}digest={wanted.digest}"
    intents = (_set("blob", namespace, wanted.digest),)
    return (yield Call("PUT", target, headers, SyntheticBody(piece, cut_at), intents, upload=location))


def _put_manifest(act: Act, namespace: str, wanted: Image) -> Generator[Call, Answer | None, bool]:
    reference = str(wanted.digest) if act.tag < 0 else TAGS[act.tag]
    intents = [_set("manifest", namespace, wanted.digest)]
    if act.tag >= 0:
        intents.append(Intent("set", ("tag", namespace, reference), str(wanted.digest)))
    if wanted.subject is not None:
        intents.append(_set("referrer", namespace, wanted.subject, wanted.digest))
    # A manifest needs its blobs and children, so a push that finds them keeps them, also when a delete crosses it.
    intents += [Intent("keep", ("blob", namespace, str(blob(index).digest))) for index in wanted.blobs]
    intents += [Intent("keep", ("manifest", namespace, str(image(index).digest))) for index in wanted.children]
    call = Call(
        "PUT",
        f"/v2/{namespace}/manifests/{reference}",
        (("content-type", wanted.media_type),),
        SyntheticBody(wanted.content),
        tuple(intents),
    )
    for _ in range(ATTEMPTS_MAX):
        answer = yield call
        if _settled(answer):
            return answer is not None and answer.status == 201
    return False


# --- pulling ----------------------------------------------------------------------------------------------------------


def pull(act: Act, shared: Shared) -> Script:
    """Get what a tag names, and every blob of it."""
    namespace = NAMESPACES[act.namespace]
    answer = yield tag_call(namespace, TAGS[act.tag])
    if answer is None or answer.status != 200:
        return
    for descriptor in descriptors(answer.body):
        digest = descriptor["digest"]
        yield Call("GET", f"/v2/{namespace}/blobs/{digest}", intents=(_read("blob", namespace, digest),))


def head_blob(act: Act, shared: Shared) -> Script:
    """Ask whether a blob is there."""
    yield head_blob_call(NAMESPACES[act.namespace], blob(act.item))


def get_manifest(act: Act, shared: Shared) -> Script:
    """Get a manifest by its digest."""
    yield manifest_call(NAMESPACES[act.namespace], image(act.item))


def list_tags(act: Act, shared: Shared) -> Script:
    """All tags, one by one."""
    yield from _pages(f"/v2/{NAMESPACES[act.namespace]}/tags/list", "tags", shared)


def list_catalog(act: Act, shared: Shared) -> Script:
    """All namespaces, one by one."""
    yield from _pages("/v2/_catalog", "repositories", shared)


def list_referrers(act: Act, shared: Shared) -> Script:
    """What refers to an image."""
    yield referrers_call(NAMESPACES[act.namespace], image(act.item), (image(2),))


def head_blob_call(namespace: str, wanted: Blob) -> Call:
    """HEAD of a blob."""
    target = f"/v2/{namespace}/blobs/{wanted.digest}"
    return Call("HEAD", target, intents=(_read("blob", namespace, wanted.digest),))


def tag_call(namespace: str, tag: str) -> Call:
    """GET of a manifest by tag."""
    return Call("GET", f"/v2/{namespace}/manifests/{tag}", intents=(Intent("read", ("tag", namespace, tag)),))


def manifest_call(namespace: str, wanted: Image) -> Call:
    """GET of a manifest by digest."""
    target = f"/v2/{namespace}/manifests/{wanted.digest}"
    return Call("GET", target, intents=(_read("manifest", namespace, wanted.digest),))


def referrers_call(namespace: str, subject: Image, known: tuple[Image, ...]) -> Call:
    """GET of the referrers of an image, of which the `known` ones could be among them."""
    intents = tuple(_read("referrer", namespace, subject.digest, one.digest) for one in known)
    return Call("GET", f"/v2/{namespace}/referrers/{subject.digest}", intents=intents)


def descriptors(manifest: bytes) -> list[dict[str, str]]:
    """The config and the layers that a manifest names."""
    value = json.loads(manifest)
    return [*([value["config"]] if "config" in value else []), *value.get("layers", [])]


def _pages(path: str, field_name: str, shared: Shared) -> Script:
    listing = Listing(path, [])
    shared.listings.append(listing)
    target = f"{path}?n=1"
    while not listing.whole:
        answer = yield Call("GET", target)
        if answer is None or answer.status != 200:
            return
        listing.names += json.loads(answer.body)[field_name]
        link = answer.headers.get("link", "")
        listing.whole = not link
        target = link[1 : link.index(">")] if link else ""


# --- deleting ---------------------------------------------------------------------------------------------------------


def delete_tag(act: Act, shared: Shared) -> Script:
    """Take a tag away."""
    namespace, tag = NAMESPACES[act.namespace], TAGS[act.tag]
    intents = (Intent("drop", ("tag", namespace, tag)),)
    yield Call("DELETE", f"/v2/{namespace}/manifests/{tag}", intents=intents)


def delete_manifest(act: Act, shared: Shared) -> Script:
    """Delete a manifest, and with it the tags that name it."""
    namespace, wanted = NAMESPACES[act.namespace], image(act.item)
    intents = [Intent("drop", ("manifest", namespace, str(wanted.digest)))]
    intents += [Intent("drop if", ("tag", namespace, tag), str(wanted.digest)) for tag in TAGS]
    if wanted.subject is not None:
        register = ("referrer", namespace, str(wanted.subject), str(wanted.digest))
        intents.append(Intent("drop if", register, HERE))
    yield Call("DELETE", f"/v2/{namespace}/manifests/{wanted.digest}", intents=tuple(intents))


def delete_blob(act: Act, shared: Shared) -> Script:
    """Give a blob up."""
    namespace, wanted = NAMESPACES[act.namespace], blob(act.item)
    intents = (Intent("drop", ("blob", namespace, str(wanted.digest))),)
    yield Call("DELETE", f"/v2/{namespace}/blobs/{wanted.digest}", intents=intents)


def _set(kind: str, namespace: str, *digests: object) -> Intent:
    return Intent("set", (kind, namespace, *map(str, digests)), HERE)


def _read(kind: str, namespace: str, *digests: object) -> Intent:
    return Intent("read", (kind, namespace, *map(str, digests)))


def _settled(answer: Answer | None) -> bool:
    """Asking again would not change it. A body that was cut short (400) is worth another try."""
    return answer is not None and answer.status < 500 and answer.status != 400


SCRIPTS: dict[str, Callable[[Act, Shared], Script]] = {
    script.__name__: script
    for script in (
        push_image,
        push_blob,
        put_manifest,
        mount_blob,
        join_upload,
        leave_upload,
        cancel_upload,
        cancel_other,
        pull,
        head_blob,
        get_manifest,
        list_tags,
        list_catalog,
        list_referrers,
        delete_tag,
        delete_manifest,
        delete_blob,
    )
}
