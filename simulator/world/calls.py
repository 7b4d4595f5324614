"""The requests that clients make, and what their answers say.

A call that is the same in every run is made once: it is a value, and a run makes dozens.
"""

from __future__ import annotations

import json
from functools import cache, lru_cache
from typing import Any

from angos.simulator.oracle.history import HERE, Answer, Intent, Register
from angos.simulator.world.bodies import SyntheticBody
from angos.simulator.world.client import Call
from angos.simulator.world.images import TAGS, blob, image

# --- blobs and uploads ------------------------------------------------------------------------------------------------


@cache
def head_blob_call(namespace: str, index: int) -> Call:
    """HEAD of a blob."""
    digest = str(blob(index).digest)
    return Call("HEAD", f"/v2/{namespace}/blobs/{digest}", intents=(Intent("read", ("blob", namespace, digest)),))


@cache
def delete_blob_call(namespace: str, index: int) -> Call:
    """DELETE of a blob."""
    digest = str(blob(index).digest)
    return Call("DELETE", f"/v2/{namespace}/blobs/{digest}", intents=(Intent("drop", ("blob", namespace, digest)),))


@cache
def open_upload_call(namespace: str, index: int) -> Call:
    """POST that opens an upload for a blob."""
    algorithm = blob(index).digest.algorithm
    hint = "" if algorithm == "sha256" else f"?digest-algorithm={algorithm}"
    return Call("POST", f"/v2/{namespace}/blobs/uploads/{hint}")


@cache
def post_blob_call(namespace: str, index: int, cut_at: int | None) -> Call:
    """POST of a whole blob."""
    wanted = blob(index)
    target = f"/v2/{namespace}/blobs/uploads/?digest={wanted.digest}"
    return Call("POST", target, body=SyntheticBody(wanted.content, cut_at), intents=_blob_set(namespace, index))


@cache
def mount_call(namespace: str, index: int, source: str) -> Call:
    """POST that mounts a blob of another namespace."""
    target = f"/v2/{namespace}/blobs/uploads/?mount={blob(index).digest}&from={source}"
    return Call("POST", target, intents=_blob_set(namespace, index))


def patch_call(location: str, piece: bytes, *, start: int | None = None, cut_at: int | None = None) -> Call:
    """PATCH of an upload: with ``Content-Range``, or chunked when it does not say where the bytes start."""
    body = SyntheticBody(piece, cut_at, chunked=start is None)
    return Call("PATCH", location, _content_range(start, piece), body, upload=upload_of(location))


def upload_of(location: str) -> str:
    """The upload that a ``Location`` is of, whatever state is in it."""
    return location.partition("?")[0]


def put_call(
    location: str, piece: bytes, namespace: str, index: int, *, start: int | None = None, cut_at: int | None = None
) -> Call:
    """PUT that closes an upload as a blob."""
    target = f"{location}{'&' if '?' in location else '?'}digest={blob(index).digest}"
    body = SyntheticBody(piece, cut_at)
    return Call(
        "PUT", target, _content_range(start, piece), body, _blob_set(namespace, index), upload=upload_of(location)
    )


@cache
def _blob_set(namespace: str, index: int) -> tuple[Intent, ...]:
    return (Intent("set", ("blob", namespace, str(blob(index).digest)), HERE),)


def _content_range(start: int | None, piece: bytes) -> tuple[tuple[str, str], ...]:
    return () if start is None else (("content-range", f"{start}-{start + len(piece) - 1}"),)


# --- manifests, tags, referrers ---------------------------------------------------------------------------------------


@cache
def put_manifest_call(namespace: str, tag: int, index: int) -> Call:
    """PUT of a manifest, by digest when the number of the tag is below zero."""
    wanted = image(index)
    digest = str(wanted.digest)
    reference = digest if tag < 0 else TAGS[tag]
    intents = [Intent("set", ("manifest", namespace, digest), HERE)]
    if tag >= 0:
        intents.append(Intent("set", ("tag", namespace, reference), digest))
    if wanted.subject is not None:
        intents.append(Intent("set", ("referrer", namespace, str(wanted.subject), digest), HERE))
    # A manifest needs its blobs and children, so a push that finds them keeps them, also when a delete crosses it.
    intents += [Intent("keep", ("blob", namespace, str(blob(needed).digest))) for needed in wanted.blobs]
    intents += [Intent("keep", ("manifest", namespace, str(image(child).digest))) for child in wanted.children]
    return Call(
        "PUT",
        f"/v2/{namespace}/manifests/{reference}",
        (("content-type", wanted.media_type),),
        SyntheticBody(wanted.content),
        tuple(intents),
    )


@cache
def restore_tag_call(namespace: str, tag: str, index: int) -> Call:
    """POST that sets a tag back to a manifest, which means the same as pushing that."""
    target = f"/v2/_ext/{namespace}/_restore?tag={tag}&to={image(index).digest}"
    return Call("POST", target, intents=put_manifest_call(namespace, TAGS.index(tag), index).intents)


@cache
def delete_manifest_call(namespace: str, index: int) -> Call:
    """DELETE of a manifest by digest."""
    wanted = image(index)
    digest = str(wanted.digest)
    intents = [Intent("drop", ("manifest", namespace, digest))]
    intents += [Intent("drop if", ("tag", namespace, tag), digest) for tag in TAGS]
    if wanted.subject is not None:
        intents.append(Intent("drop if", ("referrer", namespace, str(wanted.subject), digest), HERE))
    return Call("DELETE", f"/v2/{namespace}/manifests/{digest}", intents=tuple(intents))


@cache
def delete_tag_call(namespace: str, tag: str) -> Call:
    """DELETE of a tag."""
    return Call("DELETE", f"/v2/{namespace}/manifests/{tag}", intents=(Intent("drop", ("tag", namespace, tag)),))


@lru_cache(maxsize=4096)
def read_call(register: Register) -> Call:
    """GET of what a register holds."""
    kind, namespace, name = register[:3]
    endpoint = {"blob": "blobs", "referrer": "referrers"}.get(kind, "manifests")
    return Call("GET", f"/v2/{namespace}/{endpoint}/{name}", intents=(Intent("read", register),))


# --- answers ----------------------------------------------------------------------------------------------------------


def offset_of(answer: Answer) -> int:
    """The bytes that an upload holds, from ``Range``. Blobs of this world never have just one."""
    last = int(answer.headers.get("range", "0-0").rpartition("-")[2])
    return last + 1 if last else 0


@lru_cache(maxsize=4096)
def blob_digests(manifest: bytes) -> tuple[str, ...]:
    """The digests of the config and the layers that a manifest names."""
    value: dict[str, Any] = json.loads(manifest)
    descriptors = [*([value["config"]] if "config" in value else []), *value.get("layers", [])]
    return tuple(descriptor["digest"] for descriptor in descriptors)


@lru_cache(maxsize=4096)
def named_digests(manifest: bytes) -> tuple[str, ...]:
    """The digests of everything that a manifest is made of: config, layers, children."""
    value: dict[str, Any] = json.loads(manifest)
    return (*blob_digests(manifest), *(child["digest"] for child in value.get("manifests", [])))
