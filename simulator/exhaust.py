"""Certainty in small scopes: every fault at every effect of one operation, every schedule of two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from angos.simulator.choices import Exhaustive, Recording
from angos.simulator.faults import FAULTS
from angos.simulator.oracle.violation import Violation
from angos.simulator.scenario import Scenario
from angos.simulator.simulation import Simulation
from angos.simulator.world.client import Act
from angos.simulator.world.people import PEOPLE

IMAGE = Act("push_image", tag=0, item=0)

OPERATIONS: dict[str, tuple[tuple[Act, ...], Act]] = {
    "push_blob_post": ((), Act("push_blob", form="post")),
    "push_blob_put": ((), Act("push_blob", form="put")),
    "push_blob_patch": ((), Act("push_blob", form="patch")),
    "push_blob_chunks": ((), Act("push_blob", form="chunks")),
    "push_blob_cut": ((), Act("push_blob", form="patch", cut_at=8)),
    "mount_blob": ((Act("push_blob", namespace=1),), Act("mount_blob", other=1)),
    "cancel_upload": ((), Act("cancel_upload")),
    "put_manifest": ((Act("push_blob", item=0), Act("push_blob", item=1)), Act("put_manifest")),
    "put_manifest_by_digest": ((), Act("put_manifest", tag=-1)),
    "put_referrer": ((IMAGE,), Act("put_manifest", tag=-1, item=2)),
    "move_tag": ((IMAGE, Act("put_manifest", tag=-1, item=1)), Act("put_manifest", item=1)),
    "set_immutable_tag": ((), Act("put_manifest")),
    "set_immutable_tag_again": ((IMAGE,), Act("put_manifest")),
    "move_immutable_tag": ((IMAGE,), Act("put_manifest", item=1)),
    "set_immutable_tag_anew": ((IMAGE, Act("delete_tag")), Act("put_manifest", item=1)),
    "restore_tag": ((IMAGE, Act("put_manifest", item=1)), Act("restore_tag")),
    "restore_manifest": ((IMAGE, Act("delete_manifest")), Act("restore_tag")),
    "delete_tag": ((IMAGE,), Act("delete_tag")),
    "delete_manifest": ((IMAGE,), Act("delete_manifest")),
    "delete_referrer": ((IMAGE, Act("put_manifest", tag=-1, item=2)), Act("delete_manifest", item=2)),
    "delete_blob": ((Act("push_blob"),), Act("delete_blob")),
    "delete_needed_blob": ((IMAGE,), Act("delete_blob")),
    "pull": ((IMAGE,), Act("pull")),
    "list_tags": ((IMAGE, Act("put_manifest", tag=1)), Act("list_tags")),
    "list_catalog": ((IMAGE, Act("put_manifest", namespace=1)), Act("list_catalog")),
    "private_pull_by_token": ((IMAGE,), Act("pull", who=PEOPLE.index("job"))),
    "private_push_past_a_webhook": ((), Act("put_manifest", namespace=1)),
    "private_push_against_a_webhook": ((), Act("put_manifest", namespace=1, who=PEOPLE.index("carol"))),
    "private_mount": ((Act("push_blob", namespace=1),), Act("mount_blob", other=1, who=PEOPLE.index("carol"))),
    "private_mount_in_vain": ((Act("push_blob", namespace=1),), Act("mount_blob", other=1, who=PEOPLE.index("job"))),
    "list_referrers": ((IMAGE, Act("put_manifest", tag=-1, item=2)), Act("list_referrers")),
}
"""For each operation what has to be there before, and the act. "Immutable" in a name says that all
tags are, "private" that the registry is."""

BOUNDS: Mapping[str, int] = {"next": 0, "turn": 0, "entry": 1, "content": 1, "remain": 1, "kept": 1, "power-cut": 1}
"""Beside the faults: one power cut that takes something, one name that it takes alone, one content that it tears."""


@dataclass(slots=True)
class Exhausted:
    """What an enumeration has seen."""

    runs: int = 0
    fired: Counter[str] = field(default_factory=Counter)
    switches: int = 0
    cells: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    violations: list[tuple[Violation, Scenario, Recording]] = field(default_factory=list)


def enumerate_runs(scenario: Scenario, bounds: Mapping[str, int], *, found_max: int = 1, share: int = 1) -> Exhausted:
    """Every run of a scenario within the bounds; see `Exhaustive`."""
    seen = Exhausted()
    for choices in Exhaustive(bounds, share=share):
        recording = Recording(choices)
        simulation = Simulation(scenario, recording)
        violation = simulation.run()
        seen.runs += 1
        seen.switches += simulation.switches
        seen.fired += simulation.fired
        seen.cells += simulation.cells
        if violation is not None:
            seen.violations.append((violation, scenario, recording))
            if len(seen.violations) >= found_max:
                break
    return seen


def scenarios(operation: str, faults: int) -> Iterator[tuple[Scenario, Mapping[str, int]]]:
    """One operation in every kind of world, each with the bounds of its enumeration."""
    before, act = OPERATIONS[operation]
    bounds = {**BOUNDS, "fault": faults}
    names = tuple(name for name in FAULTS if name != "late")
    bucket = Scenario(
        clients=((act,),),
        before=before,
        faults=names,
        faults_max=faults,
        lossy_answers=True,
        immutable_tags="immutable" in operation,
        access="private" if "private" in operation else "open",
    )
    yield bucket, bounds
    # What comes late comes at every later moment: that is a matter of schedules.
    yield replace(bucket, faults=("late",)), {**bounds, "next": 1, "turn": 1}
    yield replace(bucket, store="disk"), bounds
    if "private" not in operation:  # who may do it does not depend on where it is kept
        # Neither does what happens between two effects, which is the same in a bucket.
        among_requests = tuple(name for name in names if name not in ("stall", "lapse"))
        s3 = replace(bucket, store="s3", faults=among_requests, lossy_answers=False)
        yield s3, {**bounds, "branch": 0}
        yield replace(s3, faults=("late",)), {**bounds, "branch": 0, "next": 1, "turn": 1}


def exhaust(operation: str, *, faults: int = 1) -> Exhausted:
    """Every run of one operation with at most so many faults, in a bucket and on a disk."""
    seen = Exhausted()
    for scenario, bounds in scenarios(operation, faults):
        part = enumerate_runs(scenario, bounds)
        seen.runs += part.runs
        seen.fired += part.fired
        seen.switches += part.switches
        seen.cells += part.cells
        seen.violations += part.violations
    return seen


def interleavings(
    before: tuple[Act, ...],
    first: Act,
    second: Act,
    *,
    interruptions: int | None = None,
    fine: bool = False,
    immutable_tags: bool = False,
    aged: bool = False,
    share: int = 1,
) -> Exhausted:
    """Every schedule of two acts without faults; with at most so many interruptions when there would be too many, and
    with as many, if they are two or more, only a share of them."""
    scenario = Scenario(
        clients=((first,), (second,)), before=before, replicas=2, immutable_tags=immutable_tags, aged=aged
    )
    if fine:
        scenario = replace(scenario, store="disk", granularity="fine")
    bounds = {} if interruptions is None else {"next": interruptions, "turn": 1}
    return enumerate_runs(scenario, bounds, share=share if (interruptions or 0) > 1 else 1)
