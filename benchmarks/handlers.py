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
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import peers
from blake3 import blake3
from finished import ROOT

from phases.catalog import CATALOG
from registry.admission import admissions
from registry.agenda import Agenda
from registry.decide import Start
from registry.fold import State
from registry.plans import Site, SlotView
from schemas import canonical
from schemas.artifact import Kind, Parent
from schemas.digest import Digest
from schemas.event import GENESIS, Actor, Event
from schemas.events import (
    ArtifactPublished,
    GateWaived,
    Payload,
    PlanCancelled,
    PlanRequested,
    RunFailed,
    RunRetried,
    RunStarted,
    RunSucceeded,
    TagMoved,
)
from schemas.limits import Limits
from schemas.policy import Check, Policy, phase_of
from schemas.recipe import Recipe
from schemas.report import Metric

NOW = "2026-11-22T10:00:00.000000Z"
LATER = "2027-11-22T10:00:00.000000Z"
IDLE_PASSES = 201
DAGSTER_ASSETS = (100, 300, 1_000)

_ACTOR = Actor(user="u", host="h")
_HALF = 0.5


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a world is."""

    handlers: int
    artifacts: int
    rounds: int
    """Of ten events each."""


FULL = Size(handlers=10_000, artifacts=1_000_000, rounds=30)
QUICK = Size(handlers=1_000, artifacts=50_000, rounds=5)
IDLE = Size(handlers=1_000, artifacts=0, rounds=0)


def name(text: str) -> Digest:
    """A digest for a made-up thing."""
    return blake3(text.encode()).hexdigest()


ENVIRONMENT = name("environment")
SITE = Site(
    environment=ENVIRONMENT, versions={tool: "1" for spec in CATALOG for tool in spec.tools}
)


# -- a world in memory --------------------------------------------------------------------------


@dataclass
class World:
    """A state, the agenda over it, and events that were never in a ledger."""

    policy: Policy
    recipe: dict[str, Any]
    """The tiny recipe's document; every plan is a variant of it."""
    chance: Random
    state: State = field(default_factory=State)
    plans: list[Digest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.agenda = Agenda(self.state, CATALOG, SITE)
        facts = {"metrics": [m.to_json() for m in passing(self.policy, "environment")]}
        self.take(_published(ENVIRONMENT, Kind.ENVIRONMENT, origin="probe", facts=facts))
        document = self.policy.to_json()
        self.recipe["policy"] = name(str(document))
        self.take(_published(self.recipe["policy"], Kind.POLICY, facts={"policy": document}))

    def events(self, payloads: Sequence[Payload]) -> list[bytes]:
        """The next batch, as the ledger would hold it."""
        found = []
        for place, payload in enumerate(payloads, start=1):
            event = Event(
                seq=self.state.seq + place,
                prev=GENESIS,
                ts=NOW,
                type=payload.TYPE,
                v=1,
                actor=_ACTOR,
                batch=f"{place}/{len(payloads)}",
                data=payload.to_json(),
            )
            found.append(canonical.encode(event.to_json()))
        return found

    def take(self, *payloads: Payload) -> None:
        """Let one batch arrive."""
        for line in self.events(payloads):
            self.hear(line)

    def hear(self, line: bytes) -> None:
        """Fold one event, and note what it can change."""
        event = Event.model_validate_json(line)
        self.state.apply(event)
        self.agenda.note(event)

    def decide(self) -> tuple[Payload, ...] | Start | None:
        """What is to be done next: facts to record, else a run to start, else nothing."""
        facts = self.agenda.facts(NOW)
        if facts:
            return facts
        for admitted in admissions(self.agenda.starts(), (), Limits()):
            return admitted.start
        return None

    def publish_recipe(self) -> Digest:
        """A plan that nobody asked for before; it is published, and not asked for yet."""
        document = self.recipe | {"dataset": dict(self.recipe["dataset"])}
        document["dataset"]["seed"] = len(self.plans)
        recipe = Recipe.model_validate(document)
        plan = name(str(recipe.to_json()))
        self.plans.append(plan)
        self.take(_published(plan, Kind.RECIPE, facts={"recipe": recipe.to_json()}))
        return plan

    def ready(self, plan: Digest) -> Start | None:
        """The first run of a plan that may start, once every fact is recorded."""
        while facts := self.agenda.facts(NOW):
            self.take(*facts)
        return next((start for start in self.agenda.starts() if start.plan == plan), None)

    def advance(self, plan: Digest, runs: int) -> None:
        """Ask for a plan and carry out so many of its runs; the next one, if any, is left going."""
        self.take(PlanRequested(plan=plan))
        for _ in range(runs):
            start = self.ready(plan)
            if start is None:
                return
            self.take(self.started(start))
            self.take(*self.succeeded(start))
        start = self.ready(plan)
        if start is not None:
            self.take(self.started(start))

    def started(self, start: Start) -> RunStarted:
        """That a run begins."""
        view = start.view
        around = Parent(role="environment", digest=ENVIRONMENT, circumstance=True)
        return RunStarted(
            **_run(start),
            phase_version=view.spec.version,
            inputs=(*view.inputs, around),
            params=dict(view.params),
            tools=dict(view.tools),
        )

    def succeeded(self, start: Start) -> tuple[Payload, ...]:
        """That it ended well: what it made, and the end."""
        view = start.view
        made = [self._made(view, role) for role in (made.role for made in view.spec.makes)]
        outputs = tuple(Parent(role=fact.role or "", digest=fact.digest) for fact in made)
        return (*made, RunSucceeded(**_run(start), outputs=outputs, seconds=1))

    def _made(self, view: SlotView, role: str) -> ArtifactPublished:
        assert view.key is not None  # noqa: S101  # what starts has a key
        facts: dict[str, Any] = {}
        if role == "report":
            measured = passing(self.policy, view.spec.name)
            subject = name(f"{view.key} {view.spec.makes[0].role}")
            facts = {"subject": subject, "metrics": [m.to_json() for m in measured]}
        elif view.spec.seals:
            facts = {"depends_on": self.state.seq}
        kind = next(made.kind for made in view.spec.makes if made.role == role)
        digest = name(f"{view.key} {role}")
        return _published(digest, kind, origin="run", run=view.key, role=role, facts=facts)


def _run(start: Start) -> dict[str, Any]:
    view = start.view
    return {
        "run": view.key,
        "phase": view.spec.name,
        "plan": start.plan,
        "slot": view.slot.id,
        "attempt": view.attempt,
    }


def _published(digest: Digest, kind: Kind, **more: Any) -> ArtifactPublished:  # noqa: ANN401
    return ArtifactPublished.model_validate(
        {"digest": digest, "kind": kind, "form": "blob", "size": 1, "origin": "imported"} | more
    )


def passing(policy: Policy, phase: str) -> tuple[Metric, ...]:
    """Metrics with which every gate of a phase passes."""
    rules = [rule for gate, rule in policy.gates.items() if phase_of(gate) == phase]
    checks: dict[str, Check] = {check.metric: check for rule in rules for check in rule.checks}
    return tuple(
        Metric(name=check.metric, value=check.value, n=check.min_n or None)
        for check in checks.values()
    )


def build(size: Size) -> World:
    """A world with so many handlers: every second plan finished, the others anywhere."""
    sys.path.insert(0, str(ROOT))
    from tests.pipeline.tiny import POLICY, RECIPE

    recipe = tomllib.loads(RECIPE)
    recipe["teacher"]["model"] = name("teacher")
    recipe["dataset"]["sources"][0]["questions"] = name("questions")
    world = World(
        policy=Policy.model_validate(tomllib.loads(POLICY)), recipe=recipe, chance=Random(7)
    )
    handlers = 0
    while handlers < size.handlers:
        plan = world.publish_recipe()
        slots = sum(len(spec.slots(world.state.recipe(plan))) for spec in CATALOG)
        finished = world.chance.random() < _HALF
        world.advance(plan, slots if finished else world.chance.randrange(slots))
        handlers += slots
    while len(world.state.artifacts) < size.artifacts:
        world.take(_published(name(f"source {world.state.seq}"), Kind.SOURCE))
    return world


# -- measuring ----------------------------------------------------------------------------------


def history(world: World, rounds: int) -> Iterator[tuple[str, tuple[Payload, ...]]]:
    """Events of every sort, each told what it is; they follow from what was decided before."""
    for place in range(rounds):
        source = name(f"late source {place}")
        yield "an artifact that nobody needs", (_published(source, Kind.SOURCE),)
        yield "a tag", (TagMoved(name=f"t{place}", digest=source),)
        plan = world.publish_recipe()
        yield "a plan is asked for", (PlanRequested(plan=plan),)
        yield from _runs(world, plan)
        yield "a waiver", (_waiver(world),)
        yield "a plan is cancelled", (PlanCancelled(plan=plan),)


def _runs(world: World, plan: Digest) -> Iterator[tuple[str, tuple[Payload, ...]]]:
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
    failed = RunFailed(**_run(start), code="x", message="broke", remedy="mend", seconds=1)
    yield "a run fails", (failed,)
    assert start.view.key is not None  # noqa: S101
    yield "a retry is asked for", (RunRetried(run=start.view.key),)


def _waiver(world: World) -> GateWaived:
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


def time_events(world: World, rounds: int) -> list[Timed]:
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


def time_idle(world: World) -> tuple[list[float], float]:
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


def tell_idle(world: World) -> float:
    """Print what a pass costs; the median in seconds."""
    passes, anew = time_idle(world)
    median = statistics.median(passes)
    print(
        f"idle pass over {count(world)}: p50 {1e3 * median:.3f} ms, "
        f"p99 {1e3 * quantile(passes, 0.99):.3f} ms; all assessed anew: {1e3 * anew:.1f} ms"
    )
    return median


def tell_events(world: World, rounds: int) -> None:
    """Print what an event costs, sort by sort."""
    times = time_events(world, rounds)
    print(f"one event over {count(world)} and {len(world.state.artifacts):,} artifacts:")
    for what in dict.fromkeys(t.what for t in times):
        _row(what, [t for t in times if t.what == what])
    _row(f"all {len(times)}", times)


def _row(what: str, times: Sequence[Timed]) -> None:
    seconds = [t.seconds for t in times]
    p50, p99 = statistics.median(seconds), quantile(seconds, 0.99)
    most = max(t.assessed for t in times)
    print(f"  {what:30} p50 {1e3 * p50:7.3f} ms   p99 {1e3 * p99:7.3f} ms   ≤ {most} slots")


def count(world: World) -> str:
    """How many handlers there are, in words."""
    plans = world.state.wanted()
    slots = sum(len(spec.slots(world.state.recipe(p))) for p in plans for spec in CATALOG)
    return f"{slots:,} handlers ({len(plans):,} plans)"


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest value that is not below `part` of them."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def main(arguments: argparse.Namespace) -> None:
    """Idle passes beside Dagster's, then events."""
    median = tell_idle(build(IDLE))
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
    world = build(size)
    gc.collect()
    tell_events(world, size.rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, metavar="DIR", help="keep installed peers here")
    parser.add_argument("--no-peer", action="store_true", help="leave Dagster out")
    parser.add_argument("--quick", action="store_true", help="smaller worlds")
    main(parser.parse_args())
