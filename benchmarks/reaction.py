"""From a commit to a working worker, beside an idle daemon; and what the idle daemon costs.

Another process (this one) commits one batch to the ledger, a recipe and the request for its plan,
as `still run` and a dropped recipe do; the daemon is `still watch` as a user starts it. Measured
from the call of that append (its own sync is in the figure) until

    run.started   is recorded, by the daemon's own clock in the event
    worker        has taken the job and noted so in its run's folder, before it reads any input

The run then fails, for what it is to export is no checkpoint: what a phase does is not measured
here. The next round waits until the daemon is idle and its warm worker has imported everything,
which takes seconds. The idle figure is the CPU time (user and system) of the daemon and of all its
children, the warm worker among them, over a minute in which nothing happens.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stillhouse.publish import publish_policy
from stillhouse.registry.home import Home
from stillhouse.registry.ledger.ledger import LedgerReader
from stillhouse.schemas import canonical, moment
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.event import Event
from stillhouse.schemas.events import ArtifactPublished, PlanRequested
from stillhouse.schemas.recipe import Recipe
from stillhouse.session import Session, make_registry, open_registry

ROUNDS, QUICK_ROUNDS = 100, 5
IDLE_SECONDS, QUICK_IDLE_SECONDS = 60, 10
TICKS = os.sysconf("SC_CLK_TCK")
STILL = [sys.executable, "-c", "import sys; from stillhouse.cli.main import main; sys.exit(main())"]

POLICY = """
name = "p"
[tiers]
tier_2 = ["environment.versions"]
[gates."environment.versions"]
checks = [{ metric = "unsupported", op = "<=", value = 1000 }]
"""


@dataclass
class Bench:
    """A registry, its daemon, and what the daemon has recorded so far."""

    session: Session
    policy: str
    daemon: subprocess.Popen[bytes]
    reader: LedgerReader

    def until(self, true: Callable[[Event], bool]) -> Event:
        """Read events until one is as wanted."""
        while True:
            for event in self.reader.new_events():
                if true(event):
                    return event
            time.sleep(0.02)

    def round(self, place: int) -> tuple[float, float]:
        """One reaction: milliseconds until `run.started`, and until the worker works."""
        facts = [*self._recipe(place)]
        known = set(self.session.home.root.glob("runs/*"))
        called, wall = time.perf_counter(), time.time()
        self.session.ledger.append(facts)
        noted = self._worker(known)
        working = 1000 * (time.perf_counter() - called)
        started = self.until(lambda event: event.type == "run.started")
        recorded = 1000 * (moment.parse(started.ts).timestamp() - wall)
        self.until(lambda event: event.type == "run.failed")
        if started.data["run"] != noted:
            raise RuntimeError("another run was started than the one that was asked for")
        return recorded, working

    def _recipe(self, place: int) -> tuple[ArtifactPublished, ArtifactPublished, PlanRequested]:
        weights = self.session.store.put_bytes(f"weights {place}".encode()).digest
        recipe = Recipe.model_validate(
            {
                "name": f"round-{place}",
                "policy": self.policy,
                "given": {"checkpoint": weights},
                "export": {"prefill": [8], "primary": 8, "decode_capacity": None},
            }
        )
        data = canonical.encode(recipe.to_json())
        stored = self.session.store.put_bytes(data).digest
        given = ArtifactPublished(
            digest=weights, kind=Kind.CHECKPOINT, form="blob", size=9, origin="imported"
        )
        published = ArtifactPublished(
            digest=stored,
            kind=Kind.RECIPE,
            form="blob",
            size=len(data),
            origin="imported",
            facts={"recipe": recipe.to_json()},
        )
        return given, published, PlanRequested(plan=stored)

    def _worker(self, known: set[Path]) -> str:
        """The run whose worker is the next to leave its note; looked for every 0.2 ms."""
        runs = self.session.home.root / "runs"
        while True:
            for folder in set(runs.glob("*")) - known:
                if (folder / "worker.json").exists():
                    return folder.name
            time.sleep(0.0002)

    def rest(self) -> None:
        """Wait until daemon and warm worker have done nothing for half a second."""
        before = -1.0
        while True:
            now, warm = cpu_seconds(self.daemon.pid), family(self.daemon.pid)[1:]
            if warm and now == before:
                return
            before = now
            time.sleep(0.5)


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in family(int(child)))]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its live descendants."""
    total = 0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def main(*, quick: bool) -> None:
    """Print the percentiles of both figures, and the idle daemon's share of one core."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with tempfile.TemporaryDirectory(dir=".") as name:
        home = Home(Path(name).resolve() / ".still")
        make_registry(home)
        session = open_registry(home)
        (Path(name) / "policy.toml").write_text(POLICY, encoding="utf-8")
        policy = publish_policy(session, Path(name) / "policy.toml").digest
        daemon = subprocess.Popen(
            [*STILL, "--registry", str(home.root), "watch"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            bench = Bench(session, policy, daemon, LedgerReader(home.log))
            times = []
            for place in range(rounds + 1):
                bench.rest()
                times.append(bench.round(place))
            bench.rest()
            idle = _idle(daemon.pid, QUICK_IDLE_SECONDS if quick else IDLE_SECONDS)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()
    _tell(times[1:], idle)  # the first one also judges the environment


def _idle(pid: int, seconds: float) -> tuple[float, float]:
    """(seconds, share of one core) of an idle daemon."""
    before = cpu_seconds(pid)
    time.sleep(seconds)
    return seconds, (cpu_seconds(pid) - before) / seconds


def _tell(times: list[tuple[float, float]], idle: tuple[float, float]) -> None:
    recorded, working = (sorted(found) for found in zip(*times, strict=True))
    for what, found in {"run.started": recorded, "worker working": working}.items():
        p99 = found[min(len(found) - 1, int(0.99 * len(found)))]
        print(f"commit -> {what:15} p50 {statistics.median(found):6.1f} ms   p99 {p99:6.1f} ms")
    print(f"{len(times)} rounds; idle CPU over {idle[0]:g} s: {100 * idle[1]:.2f} % of one core")


if __name__ == "__main__":
    main(quick="--quick" in sys.argv[1:])
