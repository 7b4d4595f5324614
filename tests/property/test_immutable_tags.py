"""Immutable tags: the first push and the same push again succeed, another manifest is a 409 (ARCHITECTURE 3.7)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angos.sansio import layout
from angos.sansio.config import RegistryConfig, RepositoryConfig
from angos.sansio.effects import AcquireLease, CreateKeys, Effect, StorageUnavailable
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.operation import Operation
from angos.sansio.tags import resolve_tag, set_immutable_tag
from angos.simulator.choices import Exhaustive
from angos.simulator.registry import Answer, SimulatedRegistry
from tests.property.crossing import Crossing, requested

IMMUTABLE = RegistryConfig(immutable_tags=True)
TYPE = {"Content-Type": "application/vnd.oci.image.index.v1+json"}
NAMESPACE, TAG = Namespace("a"), Tag("v1")


def manifest(number: int) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "mediaType": TYPE["Content-Type"], "manifests": [], "annotations": {"n": str(number)}}
    ).encode()


def push(world: SimulatedRegistry, number: int, tag: str = "v1", namespace: str = "a") -> Answer:
    return world.send("PUT", f"/v2/{namespace}/manifests/{tag}", TYPE, manifest(number))


def pulled(world: SimulatedRegistry, tag: str = "v1") -> bytes | None:
    answer = world.send("GET", f"/v2/a/manifests/{tag}")
    return answer.body if answer.status == 200 else None


def test_the_first_push_and_the_same_again_succeed_another_is_refused() -> None:
    world = SimulatedRegistry(IMMUTABLE)
    assert push(world, 1).status == 201
    assert push(world, 1).status == 201
    refused = push(world, 2)
    assert refused.status == 409
    assert json.loads(refused.body)["errors"][0]["code"] == "DENIED"
    assert pulled(world) == manifest(1)


def test_nothing_is_stored_of_a_push_that_is_refused() -> None:
    world = SimulatedRegistry(IMMUTABLE)
    push(world, 1)
    before = world.world.store.names("")
    push(world, 2)
    assert world.world.store.names("") == before


def test_tags_of_the_query_are_immutable_too() -> None:
    world = SimulatedRegistry(IMMUTABLE)
    push(world, 1)
    digest = Digest.of(manifest(2))
    assert world.send("PUT", f"/v2/a/manifests/{digest}?tag=v1&tag=v2", TYPE, manifest(2)).status == 409
    assert pulled(world, "v2") is None
    assert world.send("PUT", f"/v2/a/manifests/{digest}?tag=v2", TYPE, manifest(2)).status == 201


def test_a_deleted_tag_can_be_pushed_anew() -> None:
    world = SimulatedRegistry(IMMUTABLE)
    for number in range(4):
        assert push(world, number).status == 201
        assert push(world, number + 1).status == 409
        assert world.send("DELETE", "/v2/a/manifests/v1").status == 202
        assert pulled(world) is None


def test_a_tag_of_a_deleted_manifest_can_be_pushed_anew() -> None:
    world = SimulatedRegistry(IMMUTABLE)
    push(world, 1)
    assert world.send("DELETE", f"/v2/a/manifests/{Digest.of(manifest(1))}").status == 202
    assert push(world, 2).status == 201
    assert pulled(world) == manifest(2)


@pytest.mark.parametrize(
    ("config", "tag", "immutable"),
    [
        (RegistryConfig(), "v1", False),
        (RegistryConfig(immutable_tags=True, immutable_tags_exclusions=("^latest$", "-dev")), "latest", False),
        (RegistryConfig(immutable_tags=True, immutable_tags_exclusions=("^latest$", "-dev")), "1-dev2", False),
        (RegistryConfig(immutable_tags=True, immutable_tags_exclusions=("^latest$", "-dev")), "latest2", True),
        (RegistryConfig(repositories=(RepositoryConfig("a", immutable_tags=True),)), "v1", True),
        (RegistryConfig(repositories=(RepositoryConfig("b", immutable_tags=True),)), "v1", False),
        (RegistryConfig(immutable_tags=True, repositories=(RepositoryConfig("a"),)), "v1", True),
        (
            RegistryConfig(
                immutable_tags=True,
                immutable_tags_exclusions=("latest",),
                repositories=(RepositoryConfig("a", immutable_tags_exclusions=("edge",)),),
            ),
            "latest",
            True,
        ),
        (
            RegistryConfig(
                immutable_tags=True,
                immutable_tags_exclusions=("latest",),
                repositories=(RepositoryConfig("a", immutable_tags_exclusions=("edge",)),),
            ),
            "edge",
            False,
        ),
    ],
)
def test_exclusions_of_the_repository_replace_the_global_ones(
    config: RegistryConfig, tag: str, immutable: bool
) -> None:
    """angos.md section 10: found anywhere in the tag; a repository cannot opt out altogether."""
    world = SimulatedRegistry(config)
    push(world, 1, tag)
    assert push(world, 2, tag).status == (409 if immutable else 201)


# --- pushes that cross ------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=60),
    st.dictionaries(st.integers(0, 2), st.integers(0, 8), max_size=2),
    st.booleans(),
)
def test_pushes_that_cross_agree_on_one_manifest(choices: list[int], deaths: dict[int, int], deleted: bool) -> None:
    """Whoever is told 201 has set the tag, whatever the others did and wherever they died, with no lease at all."""
    world = SimulatedRegistry(IMMUTABLE)
    if deleted:
        push(world, 9)
        world.send("DELETE", "/v2/a/manifests/v1")
    digests = [Digest.of(manifest(number)) for number in range(3)]
    for digest in digests:
        world.run(Operation(_write_revision(digest)))
    crossing = Crossing(world, [Operation(set_immutable_tag(NAMESPACE, TAG, digest)) for digest in digests])
    world.effects.clear()
    crossing.run(choices, dict(deaths))
    told = {digests[number] if rival is None else rival for number, rival in crossing.results.items()}
    assert len(told) <= 1, "two writers were told different things"
    final = world.run(Operation(resolve_tag(NAMESPACE, TAG)))
    if told:
        assert final in told
    late = world.run(Operation(set_immutable_tag(NAMESPACE, TAG, digests[0])))
    assert (late or digests[0]) == (final or late or digests[0])
    assert not any(isinstance(effect, AcquireLease) for effect in world.effects)


@pytest.mark.parametrize("deaths", [{}, *({0: moment} for moment in range(6))], ids=str)
def test_two_pushes_of_one_immutable_tag_agree_in_every_order(deaths: dict[int, int]) -> None:
    """All orders there are, also when one of the two dies at any moment."""
    digests = [Digest.of(manifest(number)) for number in range(2)]
    runs = 0
    for choices in Exhaustive():
        world = SimulatedRegistry(IMMUTABLE)
        crossing = Crossing(world, [Operation(set_immutable_tag(NAMESPACE, TAG, digest)) for digest in digests])
        crossing.run_by(choices, dict(deaths))
        named = world.run(Operation(resolve_tag(NAMESPACE, TAG)))
        told = {digests[number] if rival is None else rival for number, rival in crossing.results.items()}
        assert told == {named}
        runs += 1
    assert runs > (200 if not deaths else 1)


def test_the_claim_of_a_dead_push_is_never_taken_back_by_another_push() -> None:
    """Somebody died after the claim, and the manifest was deleted. It is pushed again while another one is pushed:
    in no order are both told that they have the tag."""
    digests = [Digest.of(manifest(number)) for number in range(2)]

    async def push_again() -> Digest | None:
        await _write_revision(digests[0])
        return await set_immutable_tag(NAMESPACE, TAG, digests[0])

    for choices in Exhaustive():
        world = SimulatedRegistry(IMMUTABLE)
        claim = layout.TagEvent(world.world.clock.now_ms, "set", digests[0])
        world.perform(CreateKeys(((layout.tag_claim_key(NAMESPACE, TAG, 0), str(claim).encode()),)))
        operations = [Operation(push_again()), Operation(set_immutable_tag(NAMESPACE, TAG, digests[1]))]
        crossing = Crossing(world, operations)
        crossing.run_by(choices, {})
        assert crossing.results == {0: None, 1: digests[0]}
    assert push(world, 1).status == 409
    assert world.send("DELETE", "/v2/a/manifests/v1").status == 202
    assert push(world, 1).status == 201


@settings(max_examples=150)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=120))
def test_pushes_and_a_deletion_that_cross_leave_a_tag_that_leads_somewhere(choices: list[int]) -> None:
    """The whole requests, a deletion of a manifest among them: no 5xx, no tag without its manifest."""
    world = SimulatedRegistry(IMMUTABLE)
    push(world, 1)
    digest = Digest.of(manifest(1))
    requests = [
        requested(world, "PUT", "/v2/a/manifests/v1", manifest(number), TYPE["Content-Type"]) for number in (1, 2)
    ]
    requests.append(requested(world, "DELETE", f"/v2/a/manifests/{digest}", b"", ""))
    crossing = Crossing(world, requests)
    crossing.run(choices, {})
    statuses = {number: response.status for number, response in crossing.results.items()}
    assert statuses[0] in (201, 409)
    assert statuses[1] in (201, 409)
    assert statuses[2] == 202
    named = world.run(Operation(resolve_tag(NAMESPACE, TAG)))
    if named is not None:
        assert pulled(world) is not None


@pytest.mark.parametrize("fails", range(6))
def test_a_failing_store_leaves_nothing_undecided(fails: int) -> None:
    """An answer that got lost on the way: the client tries again and gets the same decision."""
    world = SimulatedRegistry(IMMUTABLE)
    perform, seen = world.perform, iter(range(100))

    def failing(effect: Effect[Any]) -> Any:
        reply = perform(effect)
        if isinstance(effect, CreateKeys) and next(seen) == fails:
            raise StorageUnavailable("the answer got lost")
        return reply

    world.perform = failing  # type: ignore[method-assign]
    first = push(world, 1).status
    assert first in (201, 503)
    assert push(world, 1).status in (201, 503)
    assert push(world, 1).status == 201
    assert push(world, 2).status == 409


async def _write_revision(digest: Digest) -> None:
    await CreateKeys(((layout.revision_key(NAMESPACE, digest), b"{}"),))
