"""The canary: known ways to lose data are planted, and the search has to find each within a stated number of seeds.

A bug is planted by replacing a part of a plan or of an operation, the way somebody might have written it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from angos.sansio import blobs, layout, manifests, registry, tags, upload_session, uploads
from angos.sansio.access import authorize, oidc, policy, webhook
from angos.sansio.access.action import Action
from angos.sansio.access.config import Webhook
from angos.sansio.config import RegistryConfig
from angos.sansio.disk import plans
from angos.sansio.disk.steps import MakeFolder, SizeOf
from angos.sansio.effects import CreateKeys, DeleteKeys, Key, PromoteParts, ReadCache, ReadClock, Stat, StatKey
from angos.sansio.http.message import Request, Response
from angos.sansio.layout import TagEvent
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.redirects import sent_elsewhere
from angos.sansio.secret import Secret
from angos.simulator.exhaust import IMAGE, enumerate_runs
from angos.simulator.scenario import Scenario
from angos.simulator.search import Drawer, explain, search
from angos.simulator.workload import Seed, draw
from angos.simulator.world.client import Act
from angos.simulator.world.people import PEOPLE

Patch = pytest.MonkeyPatch


def anything(number: int) -> Seed:
    """The workload of the search."""
    return draw(number)


def on_a_disk(number: int) -> Seed:
    """The same, on a disk only."""
    return draw(number, store="disk")


def in_private(number: int) -> Seed:
    """The same, in a private registry."""
    return draw(number, private=True)


def knocking(number: int) -> Seed:
    """Three strangers with tokens of keys that nobody knows, after a job has come in."""
    clients = tuple((Act("head_blob", who=PEOPLE.index("stranger")),) for _ in range(3))
    before = (Act("head_blob", who=PEOPLE.index("job")),)
    return Seed(number, Scenario(clients=clients, before=before, access="private"), 0.0, 2)


def reaching(number: int) -> Seed:
    """Carol, who may only read there, pushes to what a webhook guards, and a job, who may not read there, mounts from
    it what Alice has pushed."""
    carol, job = PEOPLE.index("carol"), PEOPLE.index("job")
    clients = ((Act("put_manifest", namespace=1, who=carol),), (Act("mount_blob", other=1, who=job),))
    faults = ("unanswered", "garbage", "slow", "forgotten")
    scenario = Scenario(
        clients=clients, before=(Act("push_blob", namespace=1),), access="private", faults=faults, faults_max=2
    )
    return Seed(number, scenario, 0.1, None if number % 2 else 2)


def crossing(number: int) -> Seed:
    """A push and a delete of one manifest at the same time."""
    push, delete = Act("put_manifest", tag=number % 2), Act("delete_manifest")
    return Seed(number, Scenario(clients=((push,), (delete,)), before=(IMAGE,)), 0.0, 3 if number % 3 else None)


def sharing(number: int) -> Seed:
    """Two clients go on with one upload, and nobody waits for a lease."""
    clients = ((Act("join_upload", form="chunks"),), (Act("join_upload"),))
    scenario = Scenario(clients=clients, before=(Act("leave_upload", cut_at=8),), leases_granted=True)
    return Seed(number, scenario, 0.0, 2 if number % 2 else None)


def racing(number: int) -> Seed:
    """Pushes of different manifests to one immutable tag, and deletes of it, by two replicas whose clocks differ."""
    clients = (
        (Act("put_manifest", item=0),),
        (Act("put_manifest", item=1), Act("pull")),
        (Act("delete_tag") if number % 2 else Act("delete_manifest"), Act("pull")),
    )
    scenario = Scenario(
        clients=clients,
        before=() if number % 3 else (Act("put_manifest", item=number % 2),),
        replicas=2,
        faults=("lost_reply", "stall", "kill", "skew", "late"),
        faults_max=2,
        offsets_ms=(0, (-5_000, 0, 5_000)[number % 3]),
        immutable_tags=True,
    )
    return Seed(number, scenario, 0.03, 3 if number % 3 else None)


async def _nothing(*_: Any, **__: Any) -> None:
    return None


def no_sync_of_folders(patch: Patch) -> None:
    """Names are never synced: the plan forgets fsync on the directory."""
    patch.setattr(plans, "SyncFolder", lambda path: SizeOf(path))


def no_sync_of_files(patch: Patch) -> None:
    """Contents are never synced before they get their name."""
    patch.setattr(plans, "SyncFile", lambda path: SizeOf(path))


def only_the_last_folder_is_synced(patch: Patch) -> None:
    """The way up is forgotten: a new folder's own name is not synced in the folder above."""

    make = plans._Wave.use

    async def use(self: Any, folder: Any) -> None:
        before = dict(self._to_sync)
        await make(self, folder)
        self._to_sync = {**before, folder: None}

    patch.setattr(plans._Wave, "use", use)


def others_folders_are_trusted(patch: Patch) -> None:
    """A folder that another process has just made is taken for durable."""

    async def use(self: Any, folder: Any) -> None:
        self._to_sync[folder] = None
        if folder in self._used or self._folders.knows(folder):
            return
        above = plans.parent_of(folder)
        if above != plans.ROOT:
            await self.use(above)
        if await MakeFolder(folder):
            self._used.append(folder)
            self._to_sync[above] = None

    patch.setattr(plans._Wave, "use", use)


def chunk_record_overwritten(patch: Patch) -> None:
    """Who comes second at an offset overwrites the record of the first instead of being told."""

    def create(entries: tuple[tuple[Key, bytes], ...]) -> Awaitable[tuple[bool, ...]]:
        async def overwrite() -> tuple[bool, ...]:
            await DeleteKeys(tuple(key for key, _ in entries))
            return await CreateKeys(entries)

        return overwrite() if ".chunk." in entries[0][0] else CreateKeys(entries)

    patch.setattr(uploads, "CreateKeys", create)


def revision_not_checked_after_a_push(patch: Patch) -> None:
    """The push does not look whether a delete crossed it."""

    async def stat(key: Key) -> Stat | None:
        found = await StatKey(key)
        return found or (Stat(1, 0) if "!rev/" in key else None)

    patch.setattr(manifests, "StatKey", stat)


def tags_not_looked_for_again_after_a_delete(patch: Patch) -> None:
    """The delete does not look for tags that came while it removed the revision."""

    async def delete_manifest(namespace: Namespace, digest: Digest) -> Response:
        if await manifests.read_media_type(namespace, digest) is None:
            raise manifests.manifest_unknown(namespace, digest)
        manifest = await manifests._stored_manifest(namespace, digest)
        await manifests._unname(namespace, digest, manifest.subject if manifest is not None else None)
        await DeleteKeys((layout.revision_key(namespace, digest),))
        return Response(202)

    patch.setattr(registry, "delete_manifest", delete_manifest)


def owner_before_bytes(patch: Patch) -> None:
    """The namespace owns the blob before its bytes have their name."""

    def promote(upload: Any, parts: Any, key: Key) -> Awaitable[bool]:
        async def early() -> bool:
            digest = layout.parse_blob_key(key)
            assert digest is not None
            namespace = Namespace(upload.removeprefix("v2/repositories/").partition("/_uploads/")[0])
            await CreateKeys(((layout.owner_key(digest, namespace), b""),))
            return await PromoteParts(upload, parts, key)

        return early()

    patch.setattr(blobs, "PromoteParts", promote)


def tag_before_manifest(patch: Patch) -> None:
    """The tag is set while the references are planned, before the revision is there."""
    plan = manifests.plan_references

    def with_tags(
        namespace: Namespace, digest: Digest, body: bytes, manifest: Any, set_tags: tuple[Tag, ...]
    ) -> tuple[tuple[Key, bytes], ...]:
        events = (
            (Key(f"{layout.tag_events_prefix(namespace, tag)}{TagEvent(10**12, 'set', digest)}"), b"")
            for tag in set_tags
        )
        return (*events, *plan(namespace, digest, body, manifest, set_tags))

    patch.setattr(manifests, "plan_references", with_tags)


def tags_dated_by_the_clock_alone(patch: Patch) -> None:
    """A push is dated by its replica's clock, whatever newer events it has seen."""

    async def set_tag(namespace: Namespace, tag: Tag, digest: Digest) -> None:
        await tags._write_event(namespace, tag, TagEvent(await ReadClock(), "set", digest), b"")

    patch.setattr(manifests, "set_tag", set_tag)


def immutable_tags_without_a_claim(patch: Patch) -> None:
    """Who finds nothing sets the tag: two can find nothing at once."""

    async def look_then_set(namespace: Namespace, tag: Tag, digest: Digest) -> Digest | None:
        current = await tags.resolve_tag(namespace, tag)
        if current is not None and current != digest:
            return current
        await tags.set_tag(namespace, tag, digest)
        return None

    patch.setattr(manifests, "set_immutable_tag", look_then_set)


def helpers_of_a_claim_date_it_anew(patch: Patch) -> None:
    """Who finds somebody's claim writes its event as of now: also one that was set, acknowledged and deleted."""
    claim = tags._claim

    async def claim_as_of_now(namespace: Namespace, tag: Tag, event: TagEvent, after_ms: int) -> TagEvent:
        claimed = await claim(namespace, tag, event, after_ms)
        return TagEvent(await ReadClock(), "set", claimed.digest)

    patch.setattr(tags, "_claim", claim_as_of_now)


def every_namespace_reads_every_blob(patch: Patch) -> None:
    """A digest is taken for a capability."""

    async def readable(namespace: Namespace, digest: Digest) -> bool:
        return await StatKey(layout.blob_key(digest)) is not None

    patch.setattr(blobs, "blob_is_readable", readable)


def redirects_before_ownership(patch: Patch) -> None:
    """Whoever names a digest is sent to the store for it, as long as the bytes are there."""
    get_blob = blobs.get_blob

    async def redirect(namespace: Namespace, digest: Digest, request: Request, config: RegistryConfig) -> Response:
        key = layout.blob_key(digest)
        if request.method == "GET" and config.redirect_blobs and await StatKey(key) is not None:
            elsewhere = await sent_elsewhere(key, digest, "application/octet-stream")
            if elsewhere is not None:
                return elsewhere
        return await get_blob(namespace, digest, request, config)

    patch.setattr(registry, "get_blob", redirect)


def an_outage_of_a_webhook_lets_in(patch: Patch) -> None:
    """Who cannot be asked is taken to agree."""
    ask = webhook._ask

    async def ask_or_allow(configured: Webhook, headers: Any) -> tuple[webhook.WebhookVerdict, bool]:
        verdict, lasting = await ask(configured, headers)
        outage = verdict.outcome == "unavailable"
        return (webhook.WebhookVerdict(configured.name, "allow"), False) if outage else (verdict, lasting)

    patch.setattr(webhook, "_ask", ask_or_allow)


def webhook_answers_are_anybodys(patch: Patch) -> None:
    """What the webhook said is remembered without what it was told."""
    patch.setattr(webhook, "_variant", lambda headers: Secret(""))


def rules_that_fail_allow(patch: Patch) -> None:
    """An error in a rule counts as true."""

    def trusting(*asked: Any, **more: Any) -> policy.Decision:
        decision = policy.decide_about(*asked, **more)
        failed = any(outcome.value is None for outcome in decision.outcomes)
        return policy.Decision(decision.allowed or failed, decision.outcomes)

    patch.setattr(authorize, "decide_about", trusting)


def mounts_do_not_ask_whether_one_may_read(patch: Patch) -> None:
    """Who may push may take a blob from everywhere."""

    async def may_read(*_: Any) -> bool:
        return True

    patch.setattr(authorize.Caller, "may_read", may_read)


def scopes_of_tokens_are_not_looked_at(patch: Patch) -> None:
    """A token is good for everything that its holder may do."""
    patch.setattr(Action, "is_covered_by", lambda *_: True)


def every_unknown_key_is_fetched(patch: Patch) -> None:
    """Nobody looks whether keys were fetched a moment ago."""

    async def read(name: str) -> bytes | None:
        return None if ":cooldown:" in name else await ReadCache(name)

    patch.setattr(oidc, "ReadCache", read)


def finished_uploads_are_left(patch: Patch) -> None:
    """Nobody removes an upload that was finished."""
    patch.setattr(uploads, "DiscardUpload", _nothing)


# The workload in which it is looked for, and after how many seeds it has to be found at the latest.
BUGS: dict[Callable[[Patch], None], tuple[Drawer, int]] = {
    no_sync_of_folders: (on_a_disk, 50),
    no_sync_of_files: (on_a_disk, 50),
    only_the_last_folder_is_synced: (on_a_disk, 50),
    others_folders_are_trusted: (on_a_disk, 1000),
    chunk_record_overwritten: (sharing, 500),
    revision_not_checked_after_a_push: (crossing, 500),
    tags_not_looked_for_again_after_a_delete: (crossing, 500),
    owner_before_bytes: (anything, 100),
    tag_before_manifest: (anything, 200),
    tags_dated_by_the_clock_alone: (anything, 500),
    immutable_tags_without_a_claim: (racing, 100),
    helpers_of_a_claim_date_it_anew: (racing, 1000),
    every_namespace_reads_every_blob: (anything, 500),
    redirects_before_ownership: (anything, 500),
    an_outage_of_a_webhook_lets_in: (reaching, 100),
    webhook_answers_are_anybodys: (in_private, 1000),
    rules_that_fail_allow: (in_private, 100),
    mounts_do_not_ask_whether_one_may_read: (reaching, 10),
    scopes_of_tokens_are_not_looked_at: (in_private, 200),
    every_unknown_key_is_fetched: (knocking, 50),
    finished_uploads_are_left: (anything, 200),
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found_within_its_budget(bug: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """Found, and explained by a smaller run that still shows it."""
    drawer, seeds_max = BUGS[bug]
    bug(monkeypatch)
    tally = search(0, seeds_max, draw_seed=drawer, found_max=1)
    assert tally.found, f"not found in {seeds_max} seeds: {bug.__doc__}"


def test_remains_of_a_finished_upload_are_not_closed_again(monkeypatch: Patch) -> None:
    """A power cut may bring back some chunks of an upload that was finished, and a client asks again: without the look
    for gaps, wrong bytes get the name of the digest. Rare, so it is enumerated and not searched for."""

    async def load_parts(session: Any) -> Any:
        chunks = [await upload_session.load_chunk(session.prefix, offset) for offset in session.offsets]
        return tuple(chunk.part for chunk in chunks if chunk is not None)

    scenario = Scenario(
        clients=((Act("push_blob", form="chunks"),),), store="disk", faults=("crash",), faults_max=1, lossy_answers=True
    )
    bounds = {"fault": 1, "entry": 3, "content": 0, "power-cut": 1, "next": 0, "turn": 0}
    monkeypatch.setattr(uploads, "load_parts", load_parts)
    broken = enumerate_runs(scenario, bounds)
    assert broken.violations, f"not found in {broken.runs} runs"
    assert broken.violations[0][0].kind == "wrong bytes"


def test_what_is_found_is_explained_by_a_smaller_run(monkeypatch: Patch) -> None:
    """The report shows the same violation with fewer effects, and its trace replays it."""
    owner_before_bytes(monkeypatch)
    found = search(0, 100, draw_seed=draw, found_max=1).found[0]
    report = explain(found)
    assert report.violation is not None
    assert report.violation.kind == found.kind
    assert report.simulation.effects <= 30
    assert "POST" in report.text()


def test_a_search_without_bugs_finds_nothing_and_saw_enough() -> None:
    """The floor: faults fired and tasks overlapped, so that finding nothing means something."""
    tally = search(0, 1500)
    assert not tally.found, tally.found[0].sentence
    assert not tally.shortcomings()
    assert tally.switches > 1000
    assert len(tally.fired) >= 10, f"too few kinds of faults fired: {sorted(tally.fired)}"
