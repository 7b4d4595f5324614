"""The canary of S3: known ways to lose data in a bucket are planted, and the search has to find each of them within a
stated number of seeds.

A bug is planted by replacing a part of the plans of the S3 store, the way somebody might have written it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from angos.sansio import layout, manifests, tags
from angos.sansio.bucket import listing, plans
from angos.sansio.bucket.requests import CompletePieces, DeleteMany, DrawWriter, Get, Head, List, Listed, Put, Terms
from angos.sansio.effects import DeleteKeys, Key, Page, Prefix, ReadKey, Stat, StatKey, StorageUnavailable
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.simulator.faults import ABSORBED, FAULTS
from angos.simulator.scenario import Scenario
from angos.simulator.search import Drawer, search
from angos.simulator.workload import Seed, draw
from angos.simulator.world import s3
from angos.simulator.world.client import Act
from angos.simulator.world.quirks import UNTRUSTED

Patch = pytest.MonkeyPatch


def anything(number: int) -> Seed:
    """The workload of the search."""
    return draw(number, store="s3")


def uploading(*faults: str) -> Drawer:
    """Two clients push blobs in pieces, and every tenth request to the bucket that can has such trouble."""

    def uploads(number: int) -> Seed:
        clients = ((Act("push_blob", form="chunks"),), (Act("push_blob", form="patch", item=1),))
        scenario = Scenario(clients=clients, store="s3", granularity="fine", replicas=2, faults=faults, faults_max=3)
        return Seed(number, scenario, 0.1, None if number % 2 else 2)

    return uploads


def with_any_trouble(number: int) -> Seed:
    """Uploads, with all of it at once."""
    trouble = ("lost_request", "lost_reply", "twice", "partial", "throttled", "short_page", "expired")
    return uploading(*trouble)(number)


def coming_and_going(number: int) -> Seed:
    """A tag is pushed, deleted and read, while requests come late."""
    clients = ((Act("put_manifest"), Act("delete_tag"), Act("pull")),)
    scenario = Scenario(clients=clients, store="s3", faults=("late",), faults_max=2)
    return Seed(number, scenario, 0.3, None)


def overwhelmed(number: int) -> Seed:
    """An image is read while the bucket answers nothing but 503, again and again."""
    clients = ((Act("pull"), Act("list_tags")),)
    before = (Act("push_image"),)
    scenario = Scenario(clients=clients, before=before, store="s3", faults=("throttled",), faults_max=9)
    return Seed(number, scenario, 0.6, None)


def reading(number: int) -> Seed:
    """An image is read from a bucket whose listings come in bits."""
    clients = ((Act("pull"), Act("list_tags"), Act("list_referrers")),)
    before = (Act("push_image"), Act("put_manifest", tag=-1, item=2))
    scenario = Scenario(clients=clients, before=before, store="s3", faults=("short_page",), faults_max=3)
    return Seed(number, scenario, 0.3, None)


def untrusted(number: int) -> Seed:
    """Pushes to a bucket that cannot be trusted."""
    clients = ((Act("push_blob", form=("post", "put")[number % 2]),), (Act("put_manifest"),))
    scenario = Scenario(clients=clients, store="s3", quirks=(UNTRUSTED[number % len(UNTRUSTED)],), tried_out=False)
    return Seed(number, scenario, 0.0, None)


# --- bugs -------------------------------------------------------------------------------------------------------------


def a_lost_reply_is_somebody_elses_key(patch: Patch) -> None:
    """An attempt that finds the key of the attempt before it in its way says that another writer was faster."""

    async def create(key: str, value: bytes) -> bool:
        return (await Put(key, (value,), await DrawWriter())).done

    patch.setattr(plans, "create", create)


def only_known_doubts_are_looked_into(patch: Patch) -> None:
    """Whose key it is, is looked up only when an attempt had no answer: something on the way sends a request twice.

    This was so until the search found it: the part of an upload was discarded, although its chunk had been written.
    """

    async def create(key: str, value: bytes) -> bool:
        writer = await DrawWriter()
        outcome = await Put(key, (value,), writer)
        if outcome.done or not outcome.again:
            return outcome.done
        found = await Head(key)
        return found is not None and found.writer == writer

    patch.setattr(plans, "create", create)


def a_short_page_is_the_last_one(patch: Patch) -> None:
    """A listing ends with the first page that has fewer names than it may have."""
    pages = listing.list_keys

    async def list_keys(effect: Any, terms: Terms) -> Page:
        listed = await List(effect.prefix, effect.after, "", terms.listing_max)
        if len(listed.keys) < terms.listing_max:
            return Page(tuple(name for name, _ in listed.keys), False)
        return await pages(effect, terms)

    patch.setattr(listing, "list_keys", list_keys)


def parts_are_looked_for_on_one_page(patch: Patch) -> None:
    """Whether all parts are there is decided by the first page of their listing."""

    async def sizes_below(prefix: Prefix, terms: Terms) -> dict[str, int]:
        listed: Listed = await List(prefix, "", "", terms.listing_max)
        return dict(listed.keys)

    patch.setattr(plans, "sizes_below", sizes_below)


def completing_twice_is_an_error(patch: Patch) -> None:
    """A multipart upload that is already complete is taken for one that has failed."""

    async def complete(
        key: str, upload_id: str, tags: tuple[str, ...], terms: Terms, *, new_size: int | None = None
    ) -> None:
        if not (await CompletePieces(key, upload_id, tags)).done:
            raise StorageUnavailable(f"creating {key}: there is no such multipart upload")

    patch.setattr(plans, "complete", complete)


def what_was_not_deleted_is_not_looked_at(patch: Patch) -> None:
    """A batch was answered with 200, so all of it is taken to be gone."""

    async def delete(keys: Sequence[str], terms: Terms) -> None:
        for start in range(0, len(keys), terms.deletions_max):
            await DeleteMany(tuple(keys[start : start + terms.deletions_max]))

    patch.setattr(plans, "delete", delete)


def tags_are_deleted_by_removing_them(patch: Patch) -> None:
    """A late write brings back what was deleted, because nothing newer says so."""

    async def unset_tag(namespace: Namespace, tag: Tag, *, only: Digest | None = None) -> bool:
        current = await tags.newest_event(namespace, tag)
        if current is None or (only is not None and current.digest != only):
            return False
        await DeleteKeys((Key(f"{layout.tag_events_prefix(namespace, tag)}{current}"),))
        return True

    patch.setattr(tags, "unset_tag", unset_tag)
    patch.setattr(manifests, "unset_tag", unset_tag, raising=False)


def an_outage_is_taken_for_absence(patch: Patch) -> None:
    """What cannot be read is not there."""

    async def read_key(effect: ReadKey) -> bytes | None:
        try:
            return await Get(effect.key)
        except StorageUnavailable:
            return None

    async def stat_key(effect: StatKey) -> Stat | None:
        try:
            found = await Head(effect.key)
        except StorageUnavailable:
            return None
        return None if found is None else Stat(found.size, found.modified_ms)

    patch.setattr(plans, "read_key", read_key)
    patch.setattr(plans, "stat_key", stat_key)


def buckets_are_not_tried_out(patch: Patch) -> None:
    """Every bucket is taken to create a key at most once."""

    async def trust(*_: Any) -> None:
        return None

    patch.setattr(s3, "ensure", trust)


def blobs_are_promoted_before_the_bucket_is_tried_out(patch: Patch) -> None:
    """Only what creates keys tries the bucket out. This was so until the search found it."""
    patch.setattr(s3.S3World, "_stage_body", _without_trying(s3.S3World._stage_body))
    patch.setattr(s3.S3World, "_promote_parts", _without_trying(s3.S3World._promote_parts))


def _without_trying(perform: Callable[..., Any]) -> Callable[..., Any]:
    async def performed(world: s3.S3World, effect: Any, process: str) -> Any:
        trusting = world._trusting
        world._trusting = {*trusting, process}
        running = perform(world, effect, process)
        try:
            first = running.send(None)
        finally:
            world._trusting = trusting
        reply = await first
        while True:
            try:
                step = running.send(reply)
            except StopIteration as stop:
                return stop.value
            reply = await step

    return performed


# The workload in which it is looked for, and after how many seeds it has to be found at the latest.
BUGS: dict[Callable[[Patch], None], tuple[Drawer, int]] = {
    a_lost_reply_is_somebody_elses_key: (uploading("lost_reply"), 100),
    only_known_doubts_are_looked_into: (uploading("twice"), 100),
    a_short_page_is_the_last_one: (reading, 50),
    parts_are_looked_for_on_one_page: (uploading("short_page"), 50),
    completing_twice_is_an_error: (uploading("lost_reply"), 50),
    what_was_not_deleted_is_not_looked_at: (uploading("partial"), 50),
    tags_are_deleted_by_removing_them: (coming_and_going, 200),
    an_outage_is_taken_for_absence: (overwhelmed, 50),
    buckets_are_not_tried_out: (untrusted, 20),
    blobs_are_promoted_before_the_bucket_is_tried_out: (untrusted, 20),
}

CALM = (anything, with_any_trouble, reading, coming_and_going, overwhelmed, untrusted)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found_within_its_budget(bug: Callable[[Patch], None], monkeypatch: Patch) -> None:
    drawer, seeds_max = BUGS[bug]
    bug(monkeypatch)
    tally = search(0, seeds_max, draw_seed=drawer, found_max=1)
    assert tally.found, f"not found in {seeds_max} seeds: {bug.__doc__}"


@pytest.mark.parametrize("drawer", CALM, ids=lambda drawer: drawer.__name__)
def test_without_bugs_nothing_is_found(drawer: Drawer) -> None:
    """None of these workloads fails by itself, and in those with faults some strike."""
    tally = search(0, 100, draw_seed=drawer)
    assert not tally.found, tally.found[0].sentence
    assert tally.fired or drawer is untrusted


def test_a_search_on_s3_finds_nothing_and_has_seen_every_kind_of_trouble() -> None:
    """The floor: what can happen to requests happened, often enough that finding nothing means something."""
    tally = search(0, 500, draw_seed=anything)
    assert not tally.found, tally.found[0].sentence
    assert not tally.shortcomings()
    possible = {name for name, fault in FAULTS.items() if fault.strikes(Put) or fault.strikes(List)}
    assert possible <= tally.fired.keys(), f"{sorted(possible - tally.fired.keys())} never struck"
    assert sum(tally.fired[name] for name in ABSORBED) > 200
