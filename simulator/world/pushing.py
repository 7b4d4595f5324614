"""Clients that push as real ones do, and do not give up at the first lost answer."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from angos.simulator.oracle.history import Answer
from angos.simulator.world.calls import (
    head_blob_call,
    mount_call,
    offset_of,
    open_upload_call,
    patch_call,
    post_blob_call,
    put_call,
    put_manifest_call,
    upload_of,
)
from angos.simulator.world.client import Act, Call, Script, Shared
from angos.simulator.world.images import NAMESPACES, blob, image

ATTEMPTS_MAX = 3

Pushed = Generator[Call, Answer | None, bool]
"""Calls and answers, and at the end whether it is there."""


def push_blob(act: Act, shared: Shared) -> Script:
    """Push one blob in the form that the act names."""
    yield from _push_blob(act, shared, NAMESPACES[act.namespace], act.item)


def push_image(act: Act, shared: Shared) -> Script:
    """Push an image as docker does: look for each blob, push those that are missing, then the manifest."""
    namespace, wanted = NAMESPACES[act.namespace], image(act.item)
    for child in wanted.children:
        yield from push_image(Act("push_image", act.namespace, -1, child, act.form), shared)
    for index in wanted.blobs:
        answer = yield head_blob_call(namespace, index)
        if answer is None or answer.status != 200:
            pushed = yield from _push_blob(act, shared, namespace, index)
            if not pushed:
                return
    yield from put_manifest(act, shared)


def put_manifest(act: Act, shared: Shared) -> Script:
    """Push a manifest and nothing before it."""
    call = put_manifest_call(NAMESPACES[act.namespace], act.tag, act.item)
    for _ in range(ATTEMPTS_MAX):
        answer = yield call
        if _settled(answer):
            return


def mount_blob(act: Act, shared: Shared) -> Script:
    """Mount a blob of another namespace; push it when the registry would rather have the bytes."""
    namespace = NAMESPACES[act.namespace]
    answer = yield mount_call(namespace, act.item, NAMESPACES[act.other % len(NAMESPACES)])
    if answer is not None and answer.status == 202:
        yield put_call(answer.headers.get("location", ""), blob(act.item).content, namespace, act.item)


def join_upload(act: Act, shared: Shared) -> Script:
    """Work on an upload that another client opened, at the same time as that one."""
    if not shared.uploads:
        return
    namespace, location, index = shared.uploads[act.other % len(shared.uploads)]
    yield from _resume(act, namespace, location, index)


def leave_upload(act: Act, shared: Shared) -> Script:
    """Open an upload, bring all bytes or those before the cut, and go away."""
    location = yield from _open(shared, NAMESPACES[act.namespace], act.item)
    if location:
        yield patch_call(location, blob(act.item).content, cut_at=act.cut_at)


def cancel_upload(act: Act, shared: Shared) -> Script:
    """Open an upload, bring some bytes, and cancel it."""
    location = yield from _open(shared, NAMESPACES[act.namespace], act.item)
    if location:
        yield patch_call(location, blob(act.item).content[:8])
        yield Call("DELETE", location, upload=upload_of(location))


def cancel_other(act: Act, shared: Shared) -> Script:
    """Cancel an upload that another client opened."""
    if shared.uploads:
        location = shared.uploads[act.other % len(shared.uploads)][1]
        yield Call("DELETE", location, upload=upload_of(location))


def _push_blob(act: Act, shared: Shared, namespace: str, index: int) -> Pushed:
    for attempt in range(ATTEMPTS_MAX):
        if act.form == "post":
            answer = yield post_blob_call(namespace, index, None if attempt else act.cut_at)
            if _settled(answer):
                return answer is not None and answer.status == 201
            continue
        location = yield from _open(shared, namespace, index)
        # After one byte "0-0" says the same as after none: such an upload is given up, and the next one is not cut.
        attempted = act if attempt == 0 else replace(act, cut_at=None)
        if location and (yield from _fill(attempted, namespace, location, index)):
            return True
    return False


def _open(shared: Shared, namespace: str, index: int) -> Generator[Call, Answer | None, str]:
    answer = yield open_upload_call(namespace, index)
    if answer is None or answer.status != 202:
        return ""
    location = answer.headers.get("location", "")
    shared.uploads.append((namespace, location, index))
    return location


def _fill(act: Act, namespace: str, location: str, index: int) -> Pushed:
    content = blob(index).content
    if act.form == "put":
        answer = yield put_call(location, content, namespace, index, cut_at=act.cut_at)
    elif act.form == "patch":
        answer = yield patch_call(location, content, cut_at=act.cut_at)
        if answer is not None and answer.status == 202:
            answer = yield put_call(location, b"", namespace, index)
    else:
        size = max(len(content) // 4, 2)  # so that some requests bring a state back
        answer = None
        for start in range(0, len(content), size):
            piece = content[start : start + size]
            if start + size >= len(content):
                answer = yield put_call(location, piece, namespace, index, start=start)
            else:
                answer = yield patch_call(location, piece, start=start, cut_at=act.cut_at if start == 0 else None)
            if answer is None or answer.status not in (201, 202):
                break
            location = answer.headers.get("location", location)
        if not content:
            answer = yield put_call(location, b"", namespace, index)
    if answer is not None and answer.status == 201:
        return True
    return (yield from _resume(act, namespace, location, index))


def _resume(act: Act, namespace: str, location: str, index: int) -> Pushed:
    """Ask, on another replica, how far it came; go on from there; or find that it was finished after all."""
    content = blob(index).content
    for _ in range(ATTEMPTS_MAX):
        answer = yield Call("GET", location, upload=upload_of(location), elsewhere=True)
        if answer is None or answer.status >= 500:
            continue
        if answer.status == 404:
            # Perhaps finished: the same PUT again has to say so.
            answer = yield put_call(location, b"", namespace, index)
            return answer is not None and answer.status == 201
        offset, location = offset_of(answer), answer.headers.get("location", location)
        if offset > len(content):
            return False
        half = offset + max((len(content) - offset) // 2, 2)
        if act.form == "chunks" and half < len(content):
            answer = yield patch_call(location, content[offset:half], start=offset)
            if answer is None or answer.status != 202:
                continue
            offset, location = half, answer.headers.get("location", location)
        rest = content[offset:]
        answer = yield put_call(location, rest, namespace, index, start=offset if rest else None)
        if answer is not None and answer.status == 201:
            return True
    return False


def _settled(answer: Answer | None) -> bool:
    """Asking again would not change it. A body that was cut short (400) is worth another try."""
    return answer is not None and answer.status < 500 and answer.status != 400
