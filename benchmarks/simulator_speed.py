"""Prints how many effects a second the simulator applies when three images are pushed at once, on one core."""

from __future__ import annotations

import sys
import time

from angos.simulator.scenario import Scenario
from angos.simulator.search import search
from angos.simulator.workload import Seed
from angos.simulator.world.client import FORMS, Act

RUNS = 600


def pushes(number: int) -> Seed:
    """Three clients push two images to two tags of one namespace, each in another form; no faults."""
    acts = [Act("push_image", tag=place % 2, item=place % 2, form=FORMS[1 + place]) for place in range(3)]
    return Seed(number, Scenario(clients=tuple((act,) for act in acts)), fault_rate=0.0, interruptions=None)


def main() -> None:
    """One figure, of processor time: what else the machine does matters little then."""
    search(0, RUNS // 10, draw_seed=pushes)
    began = time.process_time()
    tally = search(0, RUNS, draw_seed=pushes)
    took = time.process_time() - began
    if tally.found:
        sys.exit(f"the scenario is not calm: {tally.found[0].sentence}")
    sys.stdout.write(f"{tally.runs} runs, {tally.effects} effects: {tally.effects / took:,.0f} effects/s\n")


if __name__ == "__main__":
    main()
