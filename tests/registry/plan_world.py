"""A small world for plan tests: a catalog of plain phases and a ledger kept in memory.

`World.run()` does what the reactor does, with phases that succeed or fail as told, so the pure
decision can be tested to its end without a process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

from stillhouse.registry.planning.agenda import Agenda
from stillhouse.registry.planning.assess import assess
from stillhouse.registry.planning.decide import Start
from stillhouse.registry.planning.views import PlanView, Site, SlotView
from stillhouse.registry.state.state import State
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.event import GENESIS, Actor, Event
from stillhouse.schemas.events import (
    ArtifactPublished,
    Payload,
    PlanRequested,
    RunAbandoned,
    RunFailed,
    RunStarted,
    RunSucceeded,
)
from stillhouse.schemas.facts import ReleaseFacts, ReportFacts
from stillhouse.schemas.limits import Limits
from stillhouse.schemas.plan import Made, Need, PhaseSpec, Slot
from stillhouse.schemas.policy import Policy, Tier
from stillhouse.schemas.recipe import Recipe
from stillhouse.schemas.report import Metric
from stillhouse.schemas.slot import SlotId


@dataclass(frozen=True, kw_only=True)
class Record:
    """Append these facts."""

    payloads: tuple[Payload, ...]


Action = Record | Start


def actions(agenda: Agenda, now: str) -> tuple[Action, ...]:
    """What the reactor does next: facts first; starts only once no fact is left to record."""
    facts = agenda.facts(now)
    return (Record(payloads=facts),) if facts else tuple(agenda.starts())


def decide(
    state: State, plans: Iterable[Digest], catalog: Sequence[PhaseSpec], site: Site, now: str
) -> tuple[Action, ...]:
    """The same for some plans, from nothing but the state."""
    found: dict[str, Payload] = {}
    starts: dict[Digest | None, Start] = {}
    for plan in plans:
        agenda = Agenda(state, catalog, site, only=plan)
        found |= {fact.model_dump_json(): fact for fact in agenda.facts(now)}
        for start in agenda.starts():
            starts.setdefault(start.view.key, start)
    return (Record(payloads=tuple(found.values())),) if found else tuple(starts.values())


NOW = "2026-11-22T10:00:00.000000Z"
ENVIRONMENT: Digest = blake3(b"environment").hexdigest()


def digest(text: str) -> Digest:
    """A digest for a made-up thing."""
    return blake3(text.encode()).hexdigest()


def _training(recipe: Recipe) -> tuple[Slot, ...]:
    if recipe.given.checkpoint is None:
        return ()
    need = Need(role="checkpoint", digest=recipe.given.checkpoint)
    return (Slot(id="training", params={"steps": 1}, needs=(need,)),)


def _export(recipe: Recipe) -> tuple[Slot, ...]:
    section = recipe.export
    if section is None:
        return ()
    return tuple(
        Slot(
            id=f"export/prefill-{length}",
            params={"length": length},
            needs=(Need(role="checkpoint", slot="training", output="checkpoint"),),
            optional=length != section.primary,
        )
        for length in section.prefill
    )


def _conversion(recipe: Recipe) -> tuple[Slot, ...]:
    if recipe.conversion is None:
        return ()
    return tuple(
        Slot(
            id=slot.id.replace("export", "conversion"),
            params={},
            needs=(Need(role="export", slot=slot.id, output="export"),),
            optional=slot.optional,
        )
        for slot in _export(recipe)
    )


def _deployment(recipe: Recipe) -> tuple[Slot, ...]:
    if recipe.deployment is None:
        return ()
    needs = tuple(
        Need(
            role=f"mlpackage/{SlotId.parse(slot.id).shape}",
            slot=slot.id,
            output="mlpackage",
            optional=slot.optional,
        )
        for slot in _conversion(recipe)
    )
    return (Slot(id="deployment", params={}, needs=needs),)


CATALOG = (
    PhaseSpec(
        name="training",
        version=1,
        slots=_training,
        makes=(Made(role="checkpoint", kind=Kind.CHECKPOINT),),
        tools=("torch",),
    ),
    PhaseSpec(
        name="export",
        version=1,
        slots=_export,
        makes=(Made(role="export", kind=Kind.EXPORT), Made(role="report", kind=Kind.REPORT)),
        tools=("torch",),
    ),
    PhaseSpec(
        name="conversion",
        version=1,
        slots=_conversion,
        makes=(Made(role="mlpackage", kind=Kind.MLPACKAGE),),
        tools=("coremltools",),
        start_gates=("export.parity",),
    ),
    PhaseSpec(
        name="deployment",
        version=1,
        slots=_deployment,
        makes=(Made(role="release", kind=Kind.RELEASE),),
        tools=(),
        seals=True,
    ),
)

POLICY: dict[str, Any] = {
    "name": "p",
    "tiers": {"tier_2": ["environment.versions", "export.parity"]},
    "gates": {
        "environment.versions": {"checks": [{"metric": "unsupported", "op": "==", "value": 0}]},
        "export.parity": {"checks": [{"metric": "max_abs", "op": "<=", "value": 0.1}]},
    },
}


@dataclass
class World:
    """Events in memory, and phases that behave as told."""

    state: State = field(default_factory=State)
    events: list[Event] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=lambda: {"torch": "1", "coremltools": "9"})
    environment: Digest = ENVIRONMENT
    max_abs: dict[str, float] = field(default_factory=dict)
    """Slot -> what its report measures (0.0 unless told)."""
    salt: dict[str, str] = field(default_factory=dict)
    """Slot -> text that changes the bytes it makes."""
    failing: set[str] = field(default_factory=set)
    dying: set[str] = field(default_factory=set)
    stopping: bool = False
    """Whether those that die were ended on purpose."""
    dead: list[RunAbandoned] = field(default_factory=list)
    """Deaths that nobody has noticed yet."""
    executed: list[str] = field(default_factory=list)
    """Slots in the order in which their runs were started."""
    now: str = NOW
    limits: Limits = field(default_factory=lambda: Limits(backoff=0))
    agenda: Agenda | None = None
    """One that follows, if any."""

    def record(self, *payloads: Payload) -> None:
        """Append one batch."""
        for place, payload in enumerate(payloads, start=1):
            event = Event(
                seq=len(self.events) + 1,
                prev=GENESIS,
                ts=self.now,
                type=payload.TYPE,
                v=1,
                actor=Actor(user="u", host="h"),
                batch=f"{place}/{len(payloads)}",
                data=payload.to_json(),
            )
            self.events.append(event)
            self.state.apply(event)
            if self.agenda is not None:
                self.agenda.note(event)

    def policy(self, document: dict[str, Any] | None = None) -> Digest:
        """Publish a policy."""
        policy = Policy.model_validate(document or POLICY)
        return self._publish(
            Kind.POLICY, canonical.encode(policy.to_json()), policy=policy.to_json()
        )

    def plan(
        self,
        *,
        policy: Digest | None = None,
        prefill: tuple[int, ...] = (8,),
        name: str = "r",
        priority: int = 0,
    ) -> Digest:
        """Publish a recipe over a given checkpoint and ask for its plan."""
        self.measure_environment()
        recipe = Recipe.model_validate(
            {
                "name": name,
                "tier": Tier.TIER_2,
                "policy": policy or self.policy(),
                "given": {"checkpoint": digest("weights")},
                "export": {"prefill": prefill, "primary": prefill[0]},
                "conversion": {},
                "deployment": {},
            }
        )
        plan = self._publish(
            Kind.RECIPE, canonical.encode(recipe.to_json()), recipe=recipe.to_json()
        )
        self.record(PlanRequested(plan=plan, priority=priority))
        return plan

    def measure_environment(self, unsupported: float = 0) -> None:
        """Publish the environment as the reactor does at its start."""
        metrics = [{"name": "unsupported", "value": unsupported}]
        fact = ArtifactPublished(
            digest=self.environment,
            kind=Kind.ENVIRONMENT,
            form="blob",
            size=1,
            origin="probe",
            facts={"metrics": metrics},
        )
        self.record(fact)

    def upgrade(self, package: str, version: str) -> None:
        """Install another version; the reactor notices at its next start."""
        self.versions[package] = version
        self.environment = digest(f"environment with {sorted(self.versions.items())}")
        self.measure_environment()

    @property
    def site(self) -> Site:
        """The present environment."""
        return Site(environment=self.environment, versions=self.versions, limits=self.limits)

    def view(self, plan: Digest) -> PlanView:
        """The plan as it stands."""
        return assess(self.state, plan, CATALOG, self.site, self.now)

    def run(self, plan: Digest) -> PlanView:
        """Advance until `decide` answers nothing."""
        for _ in range(100):
            actions = decide(self.state, (plan,), CATALOG, self.site, self.now)
            if not actions:
                return self.view(plan)
            for action in actions:
                if isinstance(action, Record):
                    self.record(*action.payloads)
                else:
                    self._execute(action)
        raise AssertionError("the plan never came to rest")

    def perform(self, actions: tuple[Action, ...]) -> None:
        """Do what was decided, up to and including the first start; deaths go unnoticed."""
        while actions and isinstance(actions[0], Record):
            self.record(*actions[0].payloads)
            plans = tuple(self.state.requested)
            actions = decide(self.state, plans, CATALOG, self.site, self.now)
        for action in actions:
            assert isinstance(action, Start)
            self._execute(action, notice=False)

    def bury(self) -> None:
        """Notice who died."""
        self.record(*self.dead)
        self.dead.clear()

    def _execute(self, start: Start, *, notice: bool = True) -> None:
        view = start.view
        assert view.key is not None
        slot = view.slot.id
        self.executed.append(slot)
        circumstance = Parent(role="environment", digest=self.environment, circumstance=True)
        common: dict[str, Any] = {
            "run": view.key,
            "phase": view.spec.name,
            "plan": start.plan,
            "slot": slot,
            "attempt": view.attempt,
        }
        self.record(
            RunStarted(
                **common,
                phase_version=view.spec.version,
                inputs=(*view.inputs, circumstance),
                params=dict(view.params),
                tools=dict(view.tools),
            )
        )
        if slot in self.dying:
            self.dead.append(
                RunAbandoned(**common, reason="killed by SIGKILL", stopped=self.stopping)
            )
            if notice:
                self.bury()
        elif slot in self.failing:
            self.record(RunFailed(**common, code="x", message="broke", remedy="mend", seconds=1))
        else:
            made = self._outputs(view)
            outputs = tuple(Parent(role=f.role or "", digest=f.digest) for f in made)
            self.record(*made, RunSucceeded(**common, outputs=outputs, seconds=1))

    def _outputs(self, view: SlotView) -> tuple[ArtifactPublished, ...]:
        slot = view.slot.id
        image = (
            f"{[i.digest for i in view.inputs]}{dict(view.slot.params)}{self.salt.get(slot, '')}"
        )
        main, *rest = view.spec.makes
        name = digest(f"{main.role} {image}")
        made = [self._made(view, main, name, self._sealed(name) if view.spec.seals else {})]
        for other in rest:
            value = self.max_abs.get(slot, 0.0)
            measured = (Metric(name="max_abs", value=value),)
            report = ReportFacts(phase=view.spec.name, subject=name, metrics=measured)
            named = digest(f"report {image} {value}")
            made.append(self._made(view, other, named, report.to_json()))
        return tuple(made)

    def _sealed(self, release: Digest) -> dict[str, Any]:
        facts = ReleaseFacts(
            name="r",
            tier=Tier.TIER_2,
            plan=release,
            policy=release,
            depends_on=self.state.seq,
            manifest=release,
            manifest_sha256=release,
            shapes={},
            capabilities=(),
            not_run=(),
        )
        return facts.to_json()

    def _made(
        self, view: SlotView, made: Made, name: Digest, facts: dict[str, Any]
    ) -> ArtifactPublished:
        return ArtifactPublished(
            digest=name,
            kind=made.kind,
            form="blob",
            size=1,
            origin="run",
            run=view.key,
            role=made.role,
            parents=view.inputs,
            facts=facts,
        )

    def _publish(self, kind: Kind, data: bytes, **facts: Any) -> Digest:
        name = blake3(data).hexdigest()
        self.record(
            ArtifactPublished(
                digest=name, kind=kind, form="blob", size=len(data), origin="imported", facts=facts
            )
        )
        return name
