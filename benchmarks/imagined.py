"""A registry with many plans, imagined: its events are made up in memory and never in a ledger.

Plans are those of the tests' tiny recipe over the real catalog, some finished and some at any point
in between. Events are encoded, parsed and folded as a daemon folds them, and one agenda over them
is kept up to date.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from blake3 import blake3
from finished import ROOT

from stillhouse.phases.catalog import CATALOG
from stillhouse.registry.planning.admission import admissions
from stillhouse.registry.planning.agenda import Agenda
from stillhouse.registry.planning.decide import Start
from stillhouse.registry.planning.views import Site, SlotView
from stillhouse.registry.state.state import State
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.event import GENESIS, Actor, Event
from stillhouse.schemas.events import (
    ArtifactPublished,
    Payload,
    PlanRequested,
    RunStarted,
    RunSucceeded,
)
from stillhouse.schemas.facts import ReleaseFacts, ReportFacts
from stillhouse.schemas.limits import Limits
from stillhouse.schemas.policy import Check, Policy, phase_of
from stillhouse.schemas.recipe import Recipe
from stillhouse.schemas.report import Metric

NOW = "2026-11-22T10:00:00.000000Z"

_ACTOR = Actor(user="u", host="h")
_HALF = 0.5


def name(text: str) -> Digest:
    """A digest for a made-up thing."""
    return blake3(text.encode()).hexdigest()


ENVIRONMENT = name("environment")
SITE = Site(
    environment=ENVIRONMENT, versions={tool: "1" for spec in CATALOG for tool in spec.tools}
)


@dataclass
class Imagined:
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
        self.take(published(ENVIRONMENT, Kind.ENVIRONMENT, origin="probe", facts=facts))
        document = self.policy.to_json()
        self.recipe["policy"] = name(str(document))
        self.take(published(self.recipe["policy"], Kind.POLICY, facts={"policy": document}))

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
        self.take(published(plan, Kind.RECIPE, facts={"recipe": recipe.to_json()}))
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
            **about(start),
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
        return (*made, RunSucceeded(**about(start), outputs=outputs, seconds=1))

    def _made(self, view: SlotView, role: str) -> ArtifactPublished:
        assert view.key is not None  # noqa: S101  # what starts has a key
        facts: dict[str, Any] = {}
        if role == "report":
            measured = passing(self.policy, view.spec.name)
            subject = name(f"{view.key} {view.spec.makes[0].role}")
            report = ReportFacts(phase=view.spec.name, subject=subject, metrics=measured)
            facts = report.to_json()
        elif view.spec.seals:
            facts = self._sealed(view)
        kind = next(made.kind for made in view.spec.makes if made.role == role)
        digest = name(f"{view.key} {role}")
        return published(digest, kind, origin="run", run=view.key, role=role, facts=facts)

    def _sealed(self, view: SlotView) -> dict[str, Any]:
        asked = {what: view.params[what] for what in ("name", "tier", "plan", "policy")}
        manifest = name(f"{view.key} manifest")
        return ReleaseFacts(
            **asked,
            depends_on=self.state.seq,
            manifest=manifest,
            manifest_sha256=manifest,
            shapes={},
            capabilities=(),
            not_run=(),
        ).to_json()


def about(start: Start) -> dict[str, Any]:
    """What every event about a run says of it."""
    view = start.view
    return {
        "run": view.key,
        "phase": view.spec.name,
        "plan": start.plan,
        "slot": view.slot.id,
        "attempt": view.attempt,
    }


def published(digest: Digest, kind: Kind, **more: Any) -> ArtifactPublished:  # noqa: ANN401
    """A publication by hand, unless `more` says otherwise."""
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


def imagine(*, handlers: int, artifacts: int) -> Imagined:
    """A registry with so many handlers: every second plan finished, the others anywhere."""
    sys.path.insert(0, str(ROOT))
    from tests.pipeline.tiny import POLICY, RECIPE

    recipe = tomllib.loads(RECIPE)
    recipe["teacher"]["model"] = name("teacher")
    recipe["dataset"]["sources"][0]["questions"] = name("questions")
    world = Imagined(
        policy=Policy.model_validate(tomllib.loads(POLICY)), recipe=recipe, chance=Random(7)
    )
    there = 0
    while there < handlers:
        plan = world.publish_recipe()
        slots = sum(len(spec.slots(world.state.recipe(plan))) for spec in CATALOG)
        finished = world.chance.random() < _HALF
        world.advance(plan, slots if finished else world.chance.randrange(slots))
        there += slots
    while len(world.state.artifacts) < artifacts:
        world.take(published(name(f"source {world.state.seq}"), Kind.SOURCE))
    return world
