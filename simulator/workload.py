"""Draws scenarios. Each run first decides what kind of run it is (swarm): which acts occur, which faults are possible
and how often, which world it is. Runs that all mix everything find less than runs that differ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from angos.simulator.choices import Choices, Prioritised, Seeded
from angos.simulator.faults import ACCESS_FAULTS, FAULTS, REQUEST_FAULTS
from angos.simulator.scenario import Scenario, StoreKind
from angos.simulator.world.client import FORMS, Act
from angos.simulator.world.images import NAMESPACES, TAGS
from angos.simulator.world.people import PEOPLE
from angos.simulator.world.quirks import UNTRUSTED
from angos.simulator.world.scripts import SCRIPTS

UPLOADING = (
    "push_blob",
    "push_image",
    "join_upload",
    "leave_upload",
    "cancel_upload",
    "cancel_other",
    "mount_blob",
    "head_blob",
)
NAMING = ("push_image", "put_manifest", "delete_manifest", "delete_tag", "pull", "get_manifest", "list_referrers")
LATER = {"collect", "clear_up", "prune", "restore_tag", "write_pulls"}
"""What came later is left out, so that the seeds stay what they were."""
MIXES: tuple[tuple[str, ...], ...] = (UPLOADING, NAMING, tuple(sorted(set(SCRIPTS) - LATER)))

STORAGE_FAULTS = tuple(name for name in FAULTS if name not in (*ACCESS_FAULTS, *REQUEST_FAULTS))


@dataclass(frozen=True, slots=True)
class Seed:
    """A scenario, and how its choices are made."""

    number: int
    scenario: Scenario
    fault_rate: float
    interruptions: int | None
    """Few interruptions at random points, or None for an even chance at every step."""

    def choices(self) -> Choices:
        """The choices of this run, from their beginning."""
        if self.interruptions is None:
            return Seeded(self.number, fault_rate=self.fault_rate)
        return Prioritised(self.number, interruptions=self.interruptions, fault_rate=self.fault_rate)


def draw(number: int, *, store: StoreKind | None = None, faults: bool = True, private: bool = False) -> Seed:
    """The run of this number, the same everywhere."""
    random = Random(f"scenario {number}")
    chance = random.random
    mix = random.choice(MIXES)
    verbs = random.sample(mix, random.randint(2, min(5, len(mix))))
    weight = [random.choice((1, 1, 3)) for _ in verbs]

    def act() -> Act:
        return Act(
            verb=random.choices(verbs, weight)[0],
            namespace=0 if chance() < 0.7 else random.randrange(len(NAMESPACES)),
            tag=random.randrange(len(TAGS)) if chance() < 0.4 else 0,
            item=random.randrange(4) if chance() < 0.5 else random.randrange(2),
            form=random.choice(FORMS),
            cut_at=random.choice((0, 3, 8)) if chance() < 0.2 else None,
            other=random.randrange(3),
        )

    chosen = tuple(name for name in STORAGE_FAULTS if chance() < 0.35) if faults and chance() < 0.85 else ()
    world = store or ("disk" if chance() < 0.4 else "bucket")
    replicas = random.choice((1, 1, 2, 3))
    scenario = Scenario(
        clients=tuple(tuple(act() for _ in range(random.randint(1, 3))) for _ in range(random.choice((1, 2, 2, 3)))),
        before=tuple(act() for _ in range(random.choice((0, 0, 1, 2)))),
        store=world,
        granularity="fine" if chance() < 0.5 else "coarse",
        replicas=replicas,
        faults=chosen,
        faults_max=random.randint(1, 3) if chosen else 0,
        lossy_answers=bool(chosen) and chance() < 0.3,
        leases_granted=chance() < 0.3,
        hash_states=chance() < 0.7,
        tick_ms=random.choice((0, 1, 1)),
        offsets_ms=tuple(random.choice((0, 0, -5, 5_000)) for _ in range(replicas)),
        allow_missing=chance() < 0.6,
    )
    interruptions = random.randint(1, 5) if chance() < 0.5 else None
    # Drawn last, so that what was added later leaves the rest of a seed as it was.
    scenario = replace(scenario, immutable_tags=chance() < 0.25)
    if chance() < 0.15 or private:
        scenario = _private(scenario, random, faults=faults)
    rate = random.choice((0.01, 0.03, 0.1))
    scenario = replace(scenario, redirects=chance() < 0.3)
    if store == "s3" or (store is None and scenario.store == "bucket" and chance() < 0.25):
        scenario = _in_requests(scenario, random, faults=faults)
    return Seed(number, scenario, rate, interruptions)


def _in_requests(scenario: Scenario, random: Random, *, faults: bool) -> Scenario:
    """The same, on S3: with more faults, as each of them is smaller."""
    chosen = tuple(name for name in REQUEST_FAULTS if random.random() < 0.5) if faults else ()
    quirks = (random.choice(UNTRUSTED),) if random.random() < 0.05 else ()
    return replace(
        scenario,
        store="s3",
        faults=scenario.faults + chosen,
        faults_max=scenario.faults_max + random.randint(1, 4) if scenario.faults + chosen else 0,
        quirks=quirks,
        tried_out=not quirks and random.random() < 0.9,
    )


COLLECTED = (
    "push_image",
    "push_image",
    "push_blob",
    "put_manifest",
    "mount_blob",
    "leave_upload",
    "cancel_upload",
    "delete_manifest",
    "delete_manifest",
    "delete_tag",
    "delete_blob",
    "pull",
    "head_blob",
)


def draw_collected(number: int, *, store: StoreKind | None = None, faults: bool = True) -> Seed:
    """The run of this number with collectors at work, among things that were pushed and deleted days ago. In S3, with
    requests that come late, twice or not at all, only when that is asked for."""
    random = Random(f"collected {number}")
    chance = random.random

    def act(verbs: tuple[str, ...] = COLLECTED) -> Act:
        return Act(
            verb=random.choice(verbs),
            namespace=0 if chance() < 0.6 else random.randrange(len(NAMESPACES)),
            tag=random.choice((-1, 0, 0, 1)),
            item=random.randrange(4) if chance() < 0.5 else random.randrange(2),
            form=random.choice(FORMS),
            other=random.randrange(2),
        )

    seed = draw(number, store=store, faults=faults)
    collectors = tuple((Act("collect"),) * random.randint(1, 2) for _ in range(random.choice((1, 1, 1, 2))))
    clients = tuple(tuple(act() for _ in range(random.randint(1, 3))) for _ in range(random.choice((1, 1, 2))))
    before = [act(("push_image", "push_blob", "mount_blob", "delete_manifest")) for _ in range(random.randint(1, 4))]
    if chance() < 0.7:
        before += [Act("push_image"), Act("delete_manifest")]
    # Some grace periods are over before who stands still goes on; then clocks have to agree better than these.
    grace_seconds = random.choice((86_400.0, 86_400.0, 3_600.0, 1_800.0))
    possible = STORAGE_FAULTS if store is None else (*STORAGE_FAULTS, *REQUEST_FAULTS)
    possible = possible if grace_seconds > 3_600 else tuple(name for name in possible if name != "skew")
    scenario = replace(
        seed.scenario,
        clients=collectors + clients,
        before=tuple(before),
        aged=True,
        grace_seconds=grace_seconds,
        access="open",
        immutable_tags=False,
        store="bucket" if seed.scenario.store == "s3" and store is None else seed.scenario.store,
        quirks=(),
        tried_out=True,
        faults=tuple(name for name in seed.scenario.faults if name in possible),
    )
    return replace(seed, scenario=scenario)


PULLED = (
    "push_image",
    "pull",
    "pull",
    "get_manifest",
    "get_manifest",
    "write_pulls",
    "write_pulls",
    "write_pulls",
    "put_manifest",
    "delete_manifest",
    "delete_tag",
)


def draw_pulled(number: int, *, store: StoreKind | None = None, faults: bool = True) -> Seed:
    """The run of this number with pulls that are recorded."""
    random = Random(f"pulled {number}")
    chance = random.random

    def act() -> Act:
        return Act(
            verb=random.choice(PULLED),
            namespace=0 if chance() < 0.8 else random.randrange(len(NAMESPACES)),
            tag=0 if chance() < 0.6 else random.randrange(len(TAGS)),
            item=0 if chance() < 0.6 else random.randrange(3),
        )

    seed = draw(number, store=store, faults=faults)
    clients = tuple(tuple(act() for _ in range(random.randint(2, 5))) for _ in range(random.choice((2, 2, 3))))
    before = (Act("push_image"), Act("push_image", tag=1, item=1), *(act() for _ in range(random.randint(0, 4))))
    scenario = replace(
        seed.scenario, clients=clients, before=before, access="open", quirks=(), tried_out=True, records_pulls=True
    )
    scenario = replace(scenario, faults=tuple(name for name in scenario.faults if name not in ACCESS_FAULTS))
    return replace(seed, scenario=scenario)


PRUNED = (
    "push_image",
    "push_image",
    "put_manifest",
    "put_manifest",
    "restore_tag",
    "delete_manifest",
    "delete_tag",
    "mount_blob",
    "pull",
    "get_manifest",
    "collect",
)


def draw_pruned(number: int, *, store: StoreKind | None = None, faults: bool = True) -> Seed:
    """The run of this number with pruners at work, among images, indexes and signatures that lost their tags."""
    random = Random(f"pruned {number}")
    chance = random.random

    def act(verbs: tuple[str, ...] = PRUNED) -> Act:
        return Act(
            verb=random.choice(verbs),
            namespace=0 if chance() < 0.8 else random.randrange(len(NAMESPACES)),
            tag=random.choice((-1, -1, 0, 0, 1)),
            item=random.randrange(4),
            form=random.choice(FORMS),
            other=random.randrange(2),
        )

    seed = draw_collected(number, store=store, faults=faults)
    pruners = tuple((Act("prune"),) * random.randint(1, 2) for _ in range(random.choice((1, 1, 1, 2))))
    clients = tuple(tuple(act() for _ in range(random.randint(1, 3))) for _ in range(random.choice((1, 1, 2))))
    before = [act(("push_image", "push_image", "put_manifest", "delete_tag")) for _ in range(random.randint(1, 4))]
    if chance() < 0.7:
        before.append(Act("push_image", tag=-1, item=3))
    scenario = replace(seed.scenario, clients=pruners + clients, before=tuple(before))
    return replace(seed, scenario=scenario)


def _private(scenario: Scenario, random: Random, *, faults: bool) -> Scenario:
    """The same, done by different people to a private registry whose services may fail."""

    def somebody(act: Act) -> Act:
        who = random.choice((0, 0, 3, random.randrange(len(PEOPLE))))
        return replace(act, who=who, namespace=random.randrange(len(NAMESPACES)))

    chosen = tuple(name for name in ACCESS_FAULTS if random.random() < 0.5) if faults else ()
    return replace(
        scenario,
        access="private",
        clients=tuple(tuple(somebody(act) for act in acts) for acts in scenario.clients),
        before=tuple(somebody(act) for act in scenario.before),
        faults=scenario.faults + chosen,
        faults_max=max(scenario.faults_max, random.randint(1, 3)) if chosen else scenario.faults_max,
    )
