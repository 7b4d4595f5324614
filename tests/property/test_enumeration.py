"""Pages joined together are the sorted whole, also while others push and delete."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from angos.simulator.choices import Calm, Seeded
from angos.simulator.scenario import Scenario
from angos.simulator.simulation import Simulation
from angos.simulator.world.bodies import SyntheticBody
from angos.simulator.world.client import Act, Call, Listing
from angos.simulator.world.images import NAMESPACES, image

TAG_CHARACTERS = "aAbB0._-"


def _push(namespace: str, tag: str) -> Call:
    wanted = image(0)
    headers = (("content-type", wanted.media_type),)
    return Call("PUT", f"/v2/{namespace}/manifests/{tag}", headers, SyntheticBody(wanted.content))


def _listings(simulation: Simulation, path: str) -> Iterator[list[str]]:
    found: list[Listing] = [listing for listing in simulation.shared.listings if listing.path == path and listing.whole]
    return (listing.names for listing in found)


names = st.from_regex(rf"[aAbB0_][{TAG_CHARACTERS}]{{0,4}}", fullmatch=True)


@given(tags=st.sets(names, min_size=1, max_size=12), store=st.sampled_from(["bucket", "disk"]))
def test_tags_come_in_byte_order_one_page_at_a_time(tags: set[str], store: str) -> None:
    """Joined, the pages of one tag each are the sorted tags, without gap or repetition."""
    scenario = Scenario(store="disk" if store == "disk" else "bucket")
    simulation = Simulation(scenario, Calm())
    simulation.calls([_push(NAMESPACES[0], tag) for tag in sorted(tags)])
    simulation.begin("reader", (Act("list_tags"),))
    simulation.settle()
    (found,) = _listings(simulation, f"/v2/{NAMESPACES[0]}/tags/list")
    assert found == sorted(tags)


@given(
    stable=st.sets(names, min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
    interruptions=st.lists(st.sampled_from(["put_manifest", "delete_tag", "delete_manifest"]), max_size=4),
)
def test_names_that_stay_are_listed_exactly_once_while_others_come_and_go(
    stable: set[str], seed: int, interruptions: list[str]
) -> None:
    """The reader goes page by page, others push and delete other tags between any two effects."""
    simulation = Simulation(Scenario(replicas=2), Seeded(seed))
    kept = sorted(stable - {"v1", "latest", "v1.0"})
    simulation.calls([_push(NAMESPACES[0], tag) for tag in kept])
    simulation.begin("reader", (Act("list_tags"), Act("list_catalog"), Act("list_tags")))
    simulation.begin(
        "writer", tuple(Act(verb, tag=place % 3, item=1) for place, verb in enumerate(interruptions)), replica=1
    )
    simulation.settle()
    for found in _listings(simulation, f"/v2/{NAMESPACES[0]}/tags/list"):
        assert all(one < other for one, other in pairwise(found)), f"not ascending: {found}"
        assert [name for name in found if name in kept] == kept


@given(namespaces=st.sets(st.from_regex(r"[a-c]([-./]?[a-c0-9]){0,4}", fullmatch=True), min_size=1, max_size=8))
def test_the_catalogue_comes_in_byte_order_one_page_at_a_time(namespaces: set[str]) -> None:
    """Also where one name is the beginning of another: ``a``, ``a-b``, ``a/b``, ``ab``."""
    simulation = Simulation(Scenario(), Calm())
    simulation.calls([_push(namespace, "v1") for namespace in sorted(namespaces)])
    simulation.begin("reader", (Act("list_catalog"),))
    simulation.settle()
    (found,) = _listings(simulation, "/v2/_catalog")
    assert found == sorted(namespaces)
