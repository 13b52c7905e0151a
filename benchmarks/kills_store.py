"""kill -9 of every command that changes the store, at some hundred random moments of its work.

Each command runs as a person runs it, in a process of its own, and is killed at a moment drawn
evenly from the time that it takes; only kills that met it alive count. After each kill every
promise is checked (store_probes.py); then the same command is run again, at times killed again,
until it has finished its work. Ends with 1 when a promise was broken. Linux only.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import peers
from finished import STILL, environment, finished
from kills import left_behind, workers
from store_acts import ACTS, Deed, Sizes, World
from store_probes import Probes, still

KILLS = 350
QUICK_KILLS = 30
_AGAIN = 0.4
"""The chance that what is run again after a kill is killed as well."""
_EVERY = 25
"""Kills between two checks by `still fsck` and `still audit`."""
_SMALL = Sizes(large=64 << 20, many=1500)


@dataclass
class Tally:
    """What happened to one act."""

    lasts: float = 0.0
    """Seconds from its start to its end when nobody kills it."""
    kills: int = 0
    """Of processes that were alive."""
    working: int = 0
    """Of these: later than the start-up of Python and reading the ledger take."""
    traces: int = 0
    """Of these: it had changed something on the disk."""
    escaped: int = 0
    """Processes that ended before they could be killed."""


@dataclass
class Killer:
    """Kills, checks, and counts."""

    world: World
    startup: float
    tallies: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in ACTS})
    problems: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """All that count."""
        return sum(tally.kills for tally in self.tallies.values())

    def measure(self) -> None:
        """Do each act unkilled, twice; the longer time counts."""
        for name in ACTS:
            self.tallies[name].lasts = max(self._act(name, 0.0) for _ in range(2))

    def kill(self, wanted: int) -> None:
        """Kill until there are enough."""
        checked = 0
        while self.kills < wanted:
            self._act(self._next(), 1.0)
            if self.kills - checked >= _EVERY:
                checked = self.kills
                self.note("in between", self.world.probes.by_commands())
                print(f"{self.kills} kills", file=sys.stderr, flush=True)

    def _next(self) -> str:
        """One of those that were killed least, by their shares."""
        shares = {name: self.tallies[name].kills / share for name, (_, share) in ACTS.items()}
        least = [name for name in ACTS if shares[name] <= min(shares.values())]
        return self.world.chance.choice(least)

    def _act(self, name: str, chance: float) -> float:
        """One act, killed and run again until it has finished; seconds of the last run.

        chance: how likely the first run is killed.
        """
        deed = ACTS[name][0](self.world)
        code = None
        while code is None:
            at = None
            if self.world.chance.random() < chance:
                at = self.world.chance.uniform(0, self.tallies[name].lasts)
            begun = time.monotonic()
            code, said = self._run(name, deed, at)
            lasted = time.monotonic() - begun
            if code is None:
                self.note(f"{name}, killed after {at:.2f} s", self._halfway(deed, said))
            chance = min(chance, _AGAIN)
        self.note(name, self._finished(deed, code, said))
        return lasted

    def _run(self, name: str, deed: Deed, at: float | None) -> tuple[int | None, str]:
        """Run it, or kill it after `at` seconds; its exit code (None: killed), what it printed."""
        tally, probes = self.tallies[name], self.world.probes
        target = self.world.work / "out"
        before = probes.traces(target)
        out, err = self.world.work / "stdout", self.world.work / "stderr"
        with out.open("wb") as said, err.open("wb") as complained:
            process = subprocess.Popen(
                [*STILL, "--registry", str(probes.registry), *deed.words],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=complained,
                env=environment(),
                start_new_session=True,
            )
            if at is not None:
                time.sleep(at)
                self._end(process, deed)
            code = process.wait()
        if code != -signal.SIGKILL:
            tally.escaped += at is not None
            if code not in deed.codes:
                return code, err.read_text(encoding="utf-8", errors="replace")
            return code, out.read_text(encoding="utf-8")
        tally.kills += 1
        tally.working += at is not None and at > self.startup
        tally.traces += probes.traces(target) != before
        return None, out.read_text(encoding="utf-8")

    def _end(self, process: subprocess.Popen[bytes], deed: Deed) -> None:
        if process.poll() is not None:
            return
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if deed.workers:
            for pid in workers(self.world.probes.registry):
                os.kill(pid, signal.SIGKILL)

    def _halfway(self, deed: Deed, said: str) -> Iterator[str]:
        if deed.words[0] == "publish" and said.endswith("\n"):
            self.world.probes.told.add(said.strip())
        yield from deed.halfway()
        yield from self.world.probes.problems()

    def _finished(self, deed: Deed, code: int, said: str) -> Iterator[str]:
        if code not in deed.codes:
            yield f"still {' '.join(deed.words)} ended with {code}: {said[-1000:]}"
            return
        yield from deed.finished(said)
        yield from self.world.probes.problems()

    def note(self, where: str, found: Iterator[str]) -> None:
        """Keep what is broken, and say it at once."""
        for problem in found:
            self.problems.append(f"{where}: {problem}")
            print(f"BROKEN: {where}: {problem}", flush=True)

    def report(self) -> None:
        """Print the counts, an act a line."""
        print(f"{'what':24} {'lasts':>7} {'kills':>6} {'at work':>8} {'traces':>7} {'escaped':>8}")
        for name, tally in self.tallies.items():
            print(
                f"{name:24} {tally.lasts:6.2f}s {tally.kills:6} {tally.working:8} "
                f"{tally.traces:7} {tally.escaped:8}"
            )
        rows = self.tallies.values()
        at_work, traces = sum(t.working for t in rows), sum(t.traces for t in rows)
        print(f"{'all':24} {'':7} {self.kills:6} {at_work:8} {traces:7}")


def main(arguments: argparse.Namespace) -> int:
    """Kill, check, let all come to rest, check again. Returns 0 when every promise was kept."""
    wanted = arguments.kills or (QUICK_KILLS if arguments.quick else KILLS)
    sizes = _SMALL if arguments.quick else Sizes()
    with finished(arguments.finished) as pipeline, peers.folder(arguments.work) as work:
        registry = work / "still"
        shutil.copytree(pipeline.registry, registry, symlinks=True)
        probes = Probes(registry)
        world = World(probes, work, random.Random(arguments.seed), sizes)
        world.furnish()
        killer = Killer(world, _startup(registry))
        begun = time.monotonic()
        killer.measure()
        killer.kill(wanted)
        killer.note("at rest", probes.at_rest())
        killer.problems += left_behind(registry)
        print(f"seed {arguments.seed}: {killer.kills} kills in {time.monotonic() - begun:.0f} s")
        killer.report()
        state = probes.session.state()
        print(f"{len(state.artifacts)} artifacts, {len(state.absent)} of them given up on purpose")
    for problem in killer.problems:
        print(f"BROKEN: {problem}")
    print(f"{len(killer.problems)} promises broken")
    return 1 if killer.problems else 0


def _startup(registry: Path) -> float:
    """Seconds until a command has read the ledger: one that does nothing else."""
    seconds = []
    for _ in range(3):
        begun = time.monotonic()
        still(registry, "tag")
        seconds.append(time.monotonic() - begun)
    return min(seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, metavar="N", help=f"default: {KILLS}")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_KILLS} kills, small sizes")
    parser.add_argument("--finished", type=Path, metavar="DIR", help="keep the finished run here")
    parser.add_argument("--work", type=Path, metavar="DIR", help="a new folder that stays")
    sys.exit(main(parser.parse_args()))
