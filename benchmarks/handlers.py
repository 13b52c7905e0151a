"""What it costs to have many handlers: a pass with nothing new, and the decision after one event.

A handler is a slot of a plan that was asked for: a phase that waits for its artifacts, or has met
them. Plans are those of the tests' tiny recipe over the real catalog, some finished and some at any
point in between; their events are made up in memory and folded as a daemon folds them. Timed is
what lies between an event's bytes and the next decision: parsing, folding, noting, assessing, and
asking for facts and for the first run that may start. Reading the log and appending to it are not.

Beside it, in the same run, Dagster's evaluation of as many eager assets with nothing new
(`dagster_peer.py`). It evaluates every asset each time; we only what an event can change, so there
is also what it takes us to assess every handler anew.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peers
from imagined import NOW, SITE, Imagined, about, imagine, name, published

from stillhouse.phases.catalog import CATALOG
from stillhouse.registry.planning.agenda import Agenda
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import (
    GateWaived,
    Payload,
    PlanCancelled,
    PlanRequested,
    RunFailed,
    RunRetried,
    TagMoved,
)

LATER = "2027-11-22T10:00:00.000000Z"
IDLE_HANDLERS = 1_000
IDLE_PASSES = 201
DAGSTER_ASSETS = (100, 300, 1_000)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a registry single events meet."""

    handlers: int
    artifacts: int
    rounds: int
    """Of ten events each."""


FULL = Size(handlers=10_000, artifacts=1_000_000, rounds=30)
QUICK = Size(handlers=1_000, artifacts=50_000, rounds=5)


# -- measuring ----------------------------------------------------------------------------------


def history(world: Imagined, rounds: int) -> Iterator[tuple[str, tuple[Payload, ...]]]:
    """Events of every sort, each told what it is; they follow from what was decided before."""
    for place in range(rounds):
        source = name(f"late source {place}")
        yield "an artifact that nobody needs", (published(source, Kind.SOURCE),)
        yield "a tag", (TagMoved(name=f"t{place}", digest=source),)
        plan = world.publish_recipe()
        yield "a plan is asked for", (PlanRequested(plan=plan),)
        yield from _runs(world, plan)
        yield "a waiver", (_waiver(world),)
        yield "a plan is cancelled", (PlanCancelled(plan=plan),)


def _runs(world: Imagined, plan: Digest) -> Iterator[tuple[str, tuple[Payload, ...]]]:
    """One run of a plan ends well, the next fails and is tried again."""
    start = world.ready(plan)
    assert start is not None  # noqa: S101  # a new plan has something to start
    yield "a run starts", (world.started(start),)
    made = world.succeeded(start)
    yield "a run succeeds", made
    facts = world.agenda.facts(NOW)
    assert facts  # noqa: S101  # its report is to be judged
    yield "verdicts", facts
    start = world.ready(plan)
    assert start is not None  # noqa: S101  # every gate passed
    world.take(world.started(start))
    failed = RunFailed(**about(start), code="x", message="broke", remedy="mend", seconds=1)
    yield "a run fails", (failed,)
    assert start.view.key is not None  # noqa: S101
    yield "a retry is asked for", (RunRetried(run=start.view.key),)


def _waiver(world: Imagined) -> GateWaived:
    """Of a verdict that some plan rests on."""
    gate, subject, _, _ = world.chance.choice(list(world.state.verdicts))
    return GateWaived(gate=gate, subject=subject, author="a", reason="r", until=LATER)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One event, from its bytes to the decision."""

    what: str
    seconds: float
    assessed: int
    """Slots that were looked at."""


def time_events(world: Imagined, rounds: int) -> list[Timed]:
    """Let events arrive one by one; a batch counts as one."""
    found = []
    for what, payloads in history(world, rounds):
        lines = world.events(payloads)
        before = world.agenda.assessed
        begun = time.perf_counter()
        for line in lines:
            world.hear(line)
        world.decide()
        seconds = time.perf_counter() - begun
        found.append(Timed(what=what, seconds=seconds, assessed=world.agenda.assessed - before))
    return found


def time_idle(world: Imagined) -> tuple[list[float], float]:
    """Seconds of passes with nothing new, and of assessing every handler anew."""
    world.decide()
    passes = []
    for _ in range(IDLE_PASSES):
        begun = time.perf_counter()
        world.decide()
        passes.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    Agenda(world.state, CATALOG, SITE).facts(NOW)
    return passes, time.perf_counter() - begun


def time_dagster(programs: Path, assets: int) -> dict[str, Any]:
    """Evaluations of a finished chain of eager assets."""
    with tempfile.TemporaryDirectory(prefix="dagster-") as home:
        done = subprocess.run(
            [programs / "python", Path(__file__).with_name("dagster_peer.py"), "idle", str(assets)],
            env=os.environ | {"DAGSTER_HOME": home},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# -- telling ------------------------------------------------------------------------------------


def tell_idle(world: Imagined) -> float:
    """Print what a pass costs; the median in seconds."""
    passes, anew = time_idle(world)
    median = statistics.median(passes)
    print(
        f"idle pass over {count(world)}: p50 {1e3 * median:.3f} ms, "
        f"p99 {1e3 * quantile(passes, 0.99):.3f} ms; all assessed anew: {1e3 * anew:.1f} ms"
    )
    return median


def tell_events(world: Imagined, rounds: int) -> None:
    """Print what an event costs, sort by sort."""
    times = time_events(world, rounds)
    print(f"one event over {count(world)} and {len(world.state.artifacts):,} artifacts:")
    for what in dict.fromkeys(t.what for t in times):
        _row(what, [t for t in times if t.what == what])
    _row(f"all {len(times)}", times)


def _row(what: str, times: Sequence[Timed]) -> None:
    seconds = [t.seconds for t in times]
    p50, p99, longest = statistics.median(seconds), quantile(seconds, 0.99), max(seconds)
    slots = max(t.assessed for t in times)
    print(
        f"  {what:30} p50 {1e3 * p50:7.3f} ms   p99 {1e3 * p99:7.3f} ms   "
        f"max {1e3 * longest:7.3f} ms   ≤ {slots} slots"
    )


def count(world: Imagined) -> str:
    """How many handlers there are, in words."""
    plans = world.state.wanted()
    slots = sum(len(spec.slots(world.state.recipe(p))) for p in plans for spec in CATALOG)
    return f"{slots:,} handlers ({len(plans):,} plans)"


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest value that is not below `part` of them."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def main(arguments: argparse.Namespace) -> None:
    """Idle passes beside Dagster's, then events."""
    median = tell_idle(imagine(handlers=IDLE_HANDLERS, artifacts=0))
    if not arguments.no_peer:
        with peers.folder(arguments.peers) as cache:
            programs = peers.install(cache, "dagster")
            for assets in DAGSTER_ASSETS[:1] if arguments.quick else DAGSTER_ASSETS:
                found = time_dagster(programs, assets)
                theirs = statistics.median(found["seconds"])
                print(
                    f"dagster {found['version']}, idle evaluation of {assets:,} assets: "
                    f"{theirs:.2f} s, {theirs / median:,.0f} x our pass"
                )
    size = QUICK if arguments.quick else FULL
    world = imagine(handlers=size.handlers, artifacts=size.artifacts)
    gc.collect()
    tell_events(world, size.rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, metavar="DIR", help="keep installed peers here")
    parser.add_argument("--no-peer", action="store_true", help="leave Dagster out")
    parser.add_argument("--quick", action="store_true", help="smaller worlds")
    main(parser.parse_args())
