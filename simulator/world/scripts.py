"""Everything that a client can do, by name: pushing (`pushing`), pulling, listing and deleting."""

from __future__ import annotations

import json
from collections.abc import Callable

from angos.simulator.world.calls import (
    blob_digests,
    delete_blob_call,
    delete_manifest_call,
    delete_tag_call,
    head_blob_call,
    read_call,
    restore_tag_call,
)
from angos.simulator.world.client import Act, Call, Listing, Script, Shared
from angos.simulator.world.images import NAMESPACES, TAGS, image
from angos.simulator.world.pushing import (
    cancel_other,
    cancel_upload,
    join_upload,
    leave_upload,
    mount_blob,
    push_blob,
    push_image,
    put_manifest,
)

COLLECT = Call("", "collect", chore="collect")
CLEAR_UP = Call("", "clear up", chore="clear up")
PRUNE = Call("", "prune", chore="prune")
SWEEP = Call("", "sweep", chore="sweep")
WRITE_PULLS = Call("", "write pulls", chore="write_pulls", elsewhere=True)
"""Of the next replica each time."""


def play(act: Act, shared: Shared) -> Script:
    """The script of an act."""
    return SCRIPTS[act.verb](act, shared)


def pull(act: Act, shared: Shared) -> Script:
    """Get what a tag names, and every blob of it."""
    namespace = NAMESPACES[act.namespace]
    answer = yield read_call(("tag", namespace, TAGS[act.tag]))
    if answer is None or answer.status != 200:
        return
    for digest in blob_digests(answer.body):
        yield read_call(("blob", namespace, digest))


def head_blob(act: Act, shared: Shared) -> Script:
    """Ask whether a blob is there."""
    yield head_blob_call(NAMESPACES[act.namespace], act.item)


def get_manifest(act: Act, shared: Shared) -> Script:
    """Get a manifest by its digest."""
    yield read_call(("manifest", NAMESPACES[act.namespace], str(image(act.item).digest)))


def list_tags(act: Act, shared: Shared) -> Script:
    """All tags, one by one."""
    yield from _pages(f"/v2/{NAMESPACES[act.namespace]}/tags/list", "tags", shared)


def list_catalog(act: Act, shared: Shared) -> Script:
    """All namespaces, one by one."""
    yield from _pages("/v2/_catalog", "repositories", shared)


def list_referrers(act: Act, shared: Shared) -> Script:
    """What refers to an image; only image 2 ever does."""
    subject, referrer = str(image(act.item).digest), str(image(2).digest)
    yield read_call(("referrer", NAMESPACES[act.namespace], subject, referrer))


def restore_tag(act: Act, shared: Shared) -> Script:
    """Set a tag back to an image that it named."""
    yield restore_tag_call(NAMESPACES[act.namespace], TAGS[act.tag], act.item)


def delete_tag(act: Act, shared: Shared) -> Script:
    """Take a tag away."""
    yield delete_tag_call(NAMESPACES[act.namespace], TAGS[act.tag])


def delete_manifest(act: Act, shared: Shared) -> Script:
    """Delete a manifest, and with it the tags that name it."""
    yield delete_manifest_call(NAMESPACES[act.namespace], act.item)


def delete_blob(act: Act, shared: Shared) -> Script:
    """Give a blob up."""
    yield delete_blob_call(NAMESPACES[act.namespace], act.item)


def collect(act: Act, shared: Shared) -> Script:
    """Look for what nobody needs, and remove it."""
    yield COLLECT


def write_pulls(act: Act, shared: Shared) -> Script:
    """Write what a process remembers of pulls."""
    yield WRITE_PULLS


def clear_up(act: Act, shared: Shared) -> Script:
    """Let those pass who wait for a collector that was killed."""
    yield CLEAR_UP


def prune(act: Act, shared: Shared) -> Script:
    """Delete the manifests that no tag needs."""
    yield PRUNE


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
        restore_tag,
        delete_tag,
        delete_manifest,
        delete_blob,
        collect,
        write_pulls,
        clear_up,
        prune,
    )
}
