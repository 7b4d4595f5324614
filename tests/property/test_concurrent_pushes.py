"""Pushes and deletes that cross leave nothing that leads nowhere, and take nothing back that was acknowledged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.simulator.choices import Exhaustive
from angos.simulator.exhaust import IMAGE, interleavings
from angos.simulator.scenario import Scenario
from angos.simulator.world.client import Act
from tests.nightly import SHARE, WHOLE
from tests.property.strategies import drawn, play, scenarios

NAMING = (
    "push_image",
    "restore_tag",
    "put_manifest",
    "delete_manifest",
    "delete_tag",
    "delete_blob",
    "pull",
    "list_referrers",
)

REFERRER = Act("put_manifest", tag=-1, item=2)
BLOB = Act("push_blob", form="post")
ELSEWHERE = Act("push_blob", namespace=1)
RESTORE = Act("restore_tag")
MOVED = (IMAGE, Act("push_image", item=1))
GONE = (*MOVED, Act("delete_manifest"))

EVERY = None if WHOLE else 5  # there are 85,000 schedules of a mount beside a delete

# What is there before, the two acts, and how many interruptions (None: all schedules there are).
CROSSINGS: dict[str, tuple[tuple[Act, ...], Act, Act, int | None]] = {
    "mount, delete of the source": (
        (Act("push_blob", namespace=1),),
        Act("mount_blob", other=1),
        Act("delete_blob", 1),
        EVERY,
    ),
    "push, delete of one blob": ((BLOB,), BLOB, Act("delete_blob"), EVERY),
    "two deletes of one blob": ((BLOB,), Act("delete_blob"), Act("delete_blob"), None),
    "two deletes of one tag": ((IMAGE,), Act("delete_tag"), Act("delete_tag"), None),
    "delete of a tag, read": ((IMAGE,), Act("delete_tag"), Act("pull"), None),
    "push of a tag, delete of it": ((IMAGE,), Act("put_manifest", item=1), Act("delete_tag"), 3),
    "two pushes of one tag": ((), Act("put_manifest", item=0), Act("put_manifest", item=1), 2),
    "two pushes of one manifest": ((), Act("put_manifest"), Act("put_manifest"), 2),
    "push, delete of one manifest": ((IMAGE,), Act("put_manifest"), Act("delete_manifest"), 3),
    "push of another tag, delete of the manifest": ((IMAGE,), Act("put_manifest", tag=1), Act("delete_manifest"), 3),
    "push, delete of one referrer": ((IMAGE, REFERRER), REFERRER, Act("delete_manifest", item=2), 3),
    "two deletes of one manifest": ((IMAGE, REFERRER), Act("delete_manifest"), Act("delete_manifest"), 3),
    "push of an image, delete of its blob": ((BLOB,), Act("put_manifest"), Act("delete_blob"), 3),
    "delete of an image, delete of its blob": ((IMAGE,), Act("delete_manifest"), Act("delete_blob"), 3),
    "restore, push of the tag": (MOVED, RESTORE, Act("put_manifest", item=1), 1),
    "restore, delete of the tag": (MOVED, RESTORE, Act("delete_tag"), 3),
    "restore, delete of what it goes back to": (MOVED, RESTORE, Act("delete_manifest"), 1),
    "restore of what was deleted, push of the tag": (GONE, RESTORE, Act("put_manifest", item=1), 1),
    "restore of what was deleted, delete of it": (GONE, RESTORE, Act("delete_manifest"), 2),
    "push, catalogue": ((IMAGE,), Act("put_manifest", namespace=1), Act("list_catalog"), 3),
}


@pytest.mark.parametrize("crossing", CROSSINGS)
def test_two_requests_in_every_order_keep_every_promise(crossing: str) -> None:
    """Every schedule of two short operations, every schedule with a few interruptions of longer ones."""
    before, first, second, interruptions = CROSSINGS[crossing]
    seen = interleavings(before, first, second, interruptions=interruptions, share=SHARE)
    assert not seen.violations, seen.violations[0][0]
    assert seen.switches, "the requests never met"


OTHER = Act("put_manifest", item=1)

# The same, where tags are immutable.
IMMUTABLE_CROSSINGS: dict[str, tuple[tuple[Act, ...], Act, Act, int]] = {
    "two pushes of one tag": ((), Act("put_manifest"), OTHER, 2),
    "two pushes of one manifest": ((), Act("put_manifest"), Act("put_manifest"), 2),
    "push, delete of the tag": ((IMAGE,), OTHER, Act("delete_tag"), 3),
    "push again, delete of the tag": ((IMAGE,), Act("put_manifest"), Act("delete_tag"), 3),
    "two pushes of a tag that was deleted": ((IMAGE, Act("delete_tag")), Act("put_manifest"), OTHER, 2),
    "push, delete of the manifest that has the tag": ((IMAGE,), OTHER, Act("delete_manifest"), 3),
    "restore, push of a tag that was deleted": ((IMAGE, Act("delete_tag")), RESTORE, OTHER, 1),
    "restore, delete of the tag": ((IMAGE, Act("delete_tag"), OTHER), RESTORE, Act("delete_tag"), 2),
    "push again, delete of the manifest": ((IMAGE,), Act("put_manifest"), Act("delete_manifest"), 3),
}


@pytest.mark.parametrize("crossing", IMMUTABLE_CROSSINGS)
def test_two_requests_about_an_immutable_tag_in_every_order_agree(crossing: str) -> None:
    """No two manifests are acknowledged for it without a deletion between them, and a refusal names what has it."""
    before, first, second, interruptions = IMMUTABLE_CROSSINGS[crossing]
    seen = interleavings(before, first, second, interruptions=interruptions, immutable_tags=True, share=SHARE)
    assert not seen.violations, seen.violations[0][0]
    assert seen.switches, "the requests never met"


def test_a_share_of_the_schedules_has_all_that_have_fewer_interruptions() -> None:
    def interruptions(share: int) -> list[int]:
        runs = [tuple(choices.pick("next", 3) for _ in range(20)) for choices in Exhaustive({"next": 2}, share=share)]
        assert len(set(runs)) == len(runs)
        return [sum(map(bool, run)) for run in runs]

    every, some = interruptions(1), interruptions(3)
    assert [every.count(number) for number in range(3)] == [1, 40, 760]
    assert [some.count(number) for number in range(3)] == [1, 40, 253]


@given(scenario=scenarios(NAMING), data=st.data())
def test_pushes_and_deletes_keep_every_promise_whatever_happens(scenario: Scenario, data: st.DataObject) -> None:
    """Tags are linearizable, readable tags reach complete images, nothing acknowledged is lost."""
    play(scenario, drawn(data))


@given(data=st.data())
def test_clocks_that_disagree_do_not_lose_pushes(data: st.DataObject) -> None:
    """A push that begins after another one was acknowledged wins, whatever the replicas' clocks say."""
    offsets_ms = (data.draw(st.integers(-10, 10)), data.draw(st.sampled_from([-3_600_000, 0, 3_600_000])))
    pushes = tuple(Act("put_manifest", item=item) for item in (0, 1))
    scenario = Scenario(
        clients=(pushes, pushes[::-1]), replicas=2, tick_ms=0, offsets_ms=offsets_ms, faults=("skew",), faults_max=2
    )
    play(scenario, drawn(data))
