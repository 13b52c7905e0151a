"""Simulated power cuts: on how many of the disks that one can leave something is lost, or wrong.

What the code does to a disk while it makes a registry, publishes, appends, collects garbage and
repairs is recorded (tests/power/recording.py). For every cut between two of these operations disks
are made up that lack, or hold in part, whatever was not synced (tests/power/disk.py), and each is
opened and checked with the real code (tests/power/checking.py). Seeded; ends with 1 when a disk
lost what was acknowledged, showed a wrong object, or could not be worked with.

    python benchmarks/power_cuts.py [--quick] [--states N] [--seed N] [--in DIR] [SCENARIO ...]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[1]
STATES = 1_000
"""Of each scenario, at least, where there are so many."""
QUICK = 60


def main() -> int:
    """Play every scenario; gives the exit status."""
    sys.path.insert(0, str(ROOT))
    from tests.power.checking import try_states
    from tests.power.scenarios import SCENARIOS, play

    options = _options()
    memory = Path("/dev/shm")  # noqa: S108  # a folder of our own below it
    states = lost = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(
        dir=options.place or (memory if memory.is_dir() else None)
    ) as work:
        for name in options.scenarios or SCENARIOS:
            played = play(name, Path(work))
            chance = Random(f"{options.seed} {name}")
            tally = try_states(played, Path(work), chance=chance, at_least=options.states)
            operations = len(played.history.operations)
            print(
                f"{name:28} {operations:4} operations {tally.states:7,} states "
                f"{len(tally.losses):5} lost",
                flush=True,
            )
            for loss in tally.losses[:5]:
                print(f"    cut at {loss.cut} with {loss.fates}: {'; '.join(loss.faults)}")
            states += tally.states
            lost += len(tally.losses)
    print(f"\n{states:,} different states, {lost} lost, {time.monotonic() - began:.0f} s")
    return 1 if lost else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    parser.add_argument("--states", type=int, default=STATES, help="of each scenario, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--in", dest="place", type=Path, help="where disks are laid out")
    parser.add_argument("--quick", dest="states", action="store_const", const=QUICK)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
