"""How far a plan is: the pure assessment of its slots and gates.

`assess(state, plan, catalog, site, now)` reads the folded state and answers with the values of
`registry/planning/views.py`; the same view feeds decisions, `still why`, `still gates` and the
release. An `Assessment` is the same, kept: what no event touched is not assessed again.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stillhouse.registry.planning.attempts import standing
from stillhouse.registry.planning.runkey import run_key
from stillhouse.registry.planning.views import (
    ENVIRONMENT,
    GateView,
    PlanView,
    Reason,
    Site,
    SlotView,
    Status,
)
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import State
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.facts import ReportFacts
from stillhouse.schemas.plan import Need, PhaseSpec, Slot
from stillhouse.schemas.policy import Policy, Verdict, phase_of
from stillhouse.schemas.recipe import Recipe
from stillhouse.schemas.slot import SlotId


def enumerate_slots(
    recipe: Recipe, catalog: Sequence[PhaseSpec]
) -> tuple[tuple[PhaseSpec, Slot], ...]:
    """The slots of a resolved recipe, in catalog order (which is a topological order)."""
    return tuple((spec, slot) for spec in catalog for slot in spec.slots(recipe))


def assess(  # the state, what it is asked about, and where and when
    state: State,
    plan: Digest,
    catalog: Sequence[PhaseSpec],
    site: Site,
    now: str,
    *,
    fresh: bool = False,
) -> PlanView:
    """The plan as it stands at `now` (RFC 3339 UTC). Raises KeyError for an unknown plan.

    fresh: as if it were asked for now: filled slots are keyed again with today's versions.
    """
    assessment = Assessment(state, plan, catalog, site, fresh=fresh)
    assessment.again(now)
    return assessment.view(now)


class Assessment:
    """How one plan stands, kept up to date: only what an event can have changed is assessed again.

    Slots are walked in their topological order. One is assessed again when it was touched, when
    something that it rests on came out differently, and, if it seals, when anything did.
    """

    def __init__(
        self,
        state: State,
        plan: Digest,
        catalog: Sequence[PhaseSpec],
        site: Site,
        *,
        fresh: bool = False,
    ) -> None:
        """Raises KeyError for an unknown plan."""
        self.state, self.plan, self.site = state, plan, site
        self.recipe: Recipe = state.recipe(plan)
        self.policy: Policy = state.policy(self.recipe.policy)
        self.fresh = fresh
        self.slots = enumerate_slots(self.recipe, catalog)
        self.required = self.policy.tiers.get(self.recipe.tier, ())
        self.views: dict[str, SlotView] = {}
        self.gates: dict[tuple[str, str], GateView] = {}
        self.left_out: set[tuple[str, str]] = set()
        """Gates over slots that were skipped: they have nothing to judge, and block nothing."""
        self.now = ""
        self._wakes: dict[str, str] = {}
        """Slot -> when it changes by itself: a waiver expires, a pause ends."""
        self._came_to: dict[str, object] = {}
        self._places = {slot.id: place for place, (_, slot) in enumerate(self.slots)}
        self._fed_gates = {
            slot.id: self.policy.gates_over(SlotId.parse(slot.id)) for _, slot in self.slots
        }

    def again(self, now: str, touched: Container[str] | None = None) -> tuple[str, ...]:
        """Assess what was touched (None: all), and what follows; the slots that were assessed."""
        self.now = now
        if touched is None:
            self._wakes.clear()
        done: list[str] = []
        changed: set[str] = set()
        for spec, slot in self.slots:
            moved = any(need.slot in changed for need in slot.needs)
            sealing = spec.seals and (changed or moved)
            if touched is None or slot.id in touched or moved or sealing:
                done.append(slot.id)
                if self._assess(spec, slot):
                    changed.add(slot.id)
        return tuple(done)

    def view(self, now: str) -> PlanView:
        """The whole plan at `now`, which is not before the last assessment or the next `wake`."""
        self.now = now
        return PlanView(
            plan=self.plan,
            recipe=self.recipe,
            slots=tuple(self.views[slot.id] for _, slot in self.slots),
            gates=self.all_gates(),
        )

    def place(self, slot: str) -> int:
        """Where a slot stands in the topological order, from 0."""
        return self._places[slot]

    @property
    def wake(self) -> str | None:
        """When something changes by itself (RFC 3339 UTC); None: never."""
        return min(self._wakes.values(), default=None)

    def interests(self, slot: str) -> Iterator[Digest]:
        """Runs and artifacts whose events can change this slot or the gates over it."""
        view = self.views[slot]
        if view.key:
            yield view.key
        yield from (view.outputs[role] for role in ("report", "release") if role in view.outputs)
        if view.status is Status.READY or view.reason is Reason.INPUT_ABSENT:
            yield from (parent.digest for parent in view.inputs)
        for gate in self._fed_gates[slot]:
            found = self.gates.get((gate, slot))
            if found and found.subject:
                yield found.subject

    def environments(self) -> set[Digest]:
        """The environments that this plan's gates judge: those used, and the one here."""
        used = {v.run.environment for v in self.views.values() if v.run}
        return {d for d in used if d} | {self.site.environment}

    def _assess(self, spec: PhaseSpec, slot: Slot) -> bool:
        """One slot and the gates over it; whether others may see a difference."""
        self._wakes.pop(slot.id, None)
        self.views.pop(slot.id, None)  # no slot rests on how it stood itself
        view = self._view(spec, slot)
        self.views[slot.id] = view
        if view.until:
            self._wake(slot.id, view.until)
        for name in self._fed_gates[slot.id]:
            if view.status is Status.SKIPPED:
                self.gates.pop((name, slot.id), None)
                self.left_out.add((name, slot.id))
            else:
                self.left_out.discard((name, slot.id))
                self.gates[name, slot.id] = self._gate(name, view)
        before, now = self._came_to.get(slot.id), self._come_to(slot.id)
        self._came_to[slot.id] = now
        return bool(before != now)

    def _come_to(self, slot: str) -> object:
        """What others see of a slot, as a value: a run changes in place, and would hide it."""
        view = self.views[slot]
        gates = [self.gates.get((name, slot)) for name in self._fed_gates[slot]]
        return (
            view.status,
            dict(view.outputs),
            view.run and view.run.environment,
            [g and (g.seq, g.open, g.subject, g.waiver and g.waiver.seq, g.lapsed) for g in gates],
        )

    def _wake(self, slot: str, when: str) -> None:
        self._wakes[slot] = min(when, self._wakes.get(slot, when))

    # -- slots ---------------------------------------------------------------------------------

    def _view(self, spec: PhaseSpec, slot: Slot) -> SlotView:
        if spec.seals and (view := self._before_sealing(spec, slot)):
            return view
        inputs: list[Parent] = []
        for need in slot.needs:
            if spec.seals and need.optional and need.slot and self._left_out(need.slot):
                continue
            found, trouble = self._input(spec, slot, need)
            if trouble:
                return trouble
            if found:
                inputs.append(Parent(role=need.role, digest=found))
        if view := self._closed_start_gate(spec, slot):
            return view
        view = self._keyed(spec, slot, tuple(inputs))
        if view.status is Status.READY:
            return self._refused_here(view) or self._without(view) or view
        return view

    def _without(self, view: SlotView) -> SlotView | None:
        """Nothing starts on an input whose bytes are gone; they can be made again."""
        for parent in view.inputs:
            if parent.digest in self.state.absent:
                detail = f"{parent.role} {parent.digest[:SHORT]}"
                return replace(
                    view, status=Status.BLOCKED, reason=Reason.INPUT_ABSENT, detail=detail
                )
        return None

    def _refused_here(self, view: SlotView) -> SlotView | None:
        """Nothing starts in an environment whose gate is closed."""
        here = self.site.environment
        for name in self.policy.gates:
            if phase_of(name) != ENVIRONMENT:
                continue
            gate = self._judged(name, ENVIRONMENT, here, here, blocking=True)
            if not gate.judged:
                status, reason = Status.WAITING, Reason.GATE_PENDING
            elif not gate.open:
                status, reason = Status.BLOCKED, Reason.GATE_CLOSED
            else:
                continue
            return replace(view, status=status, reason=reason, detail=_gate_text(gate), gate=gate)
        return None

    def _before_sealing(self, spec: PhaseSpec, slot: Slot) -> SlotView | None:
        """A sealing slot waits until all else has settled and every required gate is open."""
        moving = (Status.READY, Status.RUNNING, Status.WAITING)
        for view in self.views.values():
            if view.status in moving:
                other = view.slot.id
                return _plain(spec, slot, Status.WAITING, Reason.OTHERS_UNSETTLED, other, other)
        for view in self.views.values():
            if view.status is Status.FAILED and not view.slot.optional:
                other = view.slot.id
                return _plain(spec, slot, Status.BLOCKED, Reason.INPUT_FAILED, other, other)
        for gate in self.all_gates():
            if gate.required and gate.blocking and not gate.open:
                status = Status.BLOCKED if gate.judged or not gate.subject else Status.WAITING
                reason = Reason.GATE_CLOSED if status is Status.BLOCKED else Reason.GATE_PENDING
                return _held(spec, slot, status, reason, gate)
        return None

    def _left_out(self, source: str) -> bool:
        """Whether a slot's shape stays out of the release: a required gate over it is closed."""
        shape = SlotId.parse(source).shape
        return any(
            gate.required and not gate.open and SlotId.parse(slot).shape == shape
            for (_, slot), gate in self.gates.items()
        )

    def _input(
        self, spec: PhaseSpec, slot: Slot, need: Need
    ) -> tuple[Digest | None, SlotView | None]:
        """The digest that meets a need, or the view that the slot gets because it is not met."""
        if need.digest is not None:
            return need.digest, None
        assert need.slot is not None  # noqa: S101  # a need names a digest or a slot
        assert need.output is not None  # noqa: S101
        source = self.views[need.slot]
        detail = f"{need.role} from {need.slot}"
        if source.status is Status.FILLED:
            return source.outputs[need.output], None
        if source.status in (Status.FAILED, Status.SKIPPED, Status.BLOCKED):
            if need.optional:
                return None, None
            if slot.optional:
                status, reason = Status.SKIPPED, Reason.INPUT_SKIPPED
            else:
                status, reason = Status.BLOCKED, Reason.INPUT_FAILED
            return None, _plain(spec, slot, status, reason, detail, need.slot)
        return None, _plain(spec, slot, Status.WAITING, Reason.INPUT_PENDING, detail, need.slot)

    def _closed_start_gate(self, spec: PhaseSpec, slot: Slot) -> SlotView | None:
        sources = {need.slot for need in slot.needs if need.slot}
        fed = {SlotId.parse(source).phase for source in sources}
        for name in spec.start_gates:
            if phase_of(name) in fed and name not in self.policy.gates:
                detail = f"{name}: the policy {self.policy.name} has no rule for it"
                return _plain(spec, slot, Status.BLOCKED, Reason.GATE_CLOSED, detail)
            for (gate_name, slot_id), gate in self.gates.items():
                if gate_name != name or slot_id not in sources or gate.open:
                    continue
                if not gate.judged:
                    reason, status = Reason.GATE_PENDING, Status.WAITING
                elif slot.optional:
                    reason, status = Reason.GATE_CLOSED, Status.SKIPPED
                else:
                    reason, status = Reason.GATE_CLOSED, Status.BLOCKED
                return _held(spec, slot, status, reason, gate)
        return None

    def _keyed(self, spec: PhaseSpec, slot: Slot, inputs: tuple[Parent, ...]) -> SlotView:
        params = dict(slot.params)
        if spec.seals:
            params |= {"plan": self.plan, "verdicts": [_row(g) for g in self.all_gates()]}
        known = self._pinned(spec, slot, params, inputs)
        if known:
            return self._found(spec, slot, params, inputs, known, dict(known.started.tools))
        tools = {t: self.site.versions[t] for t in spec.tools if t in self.site.versions}
        key = run_key(
            phase=spec.name, version=spec.version, params=params, inputs=inputs, tools=tools
        )
        return self._found(spec, slot, params, inputs, self.state.runs.get(key), tools, key)

    def _pinned(
        self, spec: PhaseSpec, slot: Slot, params: Mapping[str, Any], inputs: tuple[Parent, ...]
    ) -> Run | None:
        """The run that already fills the slot, while only tool or phase versions have changed.

        A finished plan stays finished when a package is upgraded; asking for it again re-keys it.
        """
        run = self.state.runs.get(self.state.filled.get((self.plan, slot.id), ""))
        if run is None or self.fresh or self._asked_for_here():
            return None
        same = run_key(
            phase=spec.name,
            version=run.started.phase_version,
            params=params,
            inputs=inputs,
            tools=run.started.tools,
        )
        makes = {made.role for made in spec.makes}
        return run if same == run.key and makes <= set(run.outputs) else None

    def _asked_for_here(self) -> bool:
        """Whether the plan was asked for since the present environment was first seen."""
        return (
            self.state.latest.get(Kind.ENVIRONMENT) == self.site.environment
            and self.state.requested.get(self.plan, 0) > self.state.environment_seq
        )

    def _found(  # noqa: PLR0917  # private, and called in one way
        self,
        spec: PhaseSpec,
        slot: Slot,
        params: Mapping[str, Any],
        inputs: tuple[Parent, ...],
        run: Run | None,
        tools: Mapping[str, str],
        key: Digest | None = None,
    ) -> SlotView:
        own = (self.plan, slot.id)
        status, reason, detail, until = standing(self.state, run, own, self.site.limits, self.now)
        return SlotView(
            slot=slot,
            spec=spec,
            status=status,
            reason=reason,
            detail=detail,
            until=until,
            key=run.key if run else key,
            inputs=inputs,
            params=params,
            tools=tools,
            run=run,
            attempt=run.attempts + 1 if run else 1,
        )

    # -- gates ---------------------------------------------------------------------------------

    def _gate(self, name: str, view: SlotView) -> GateView:
        report = view.outputs.get("report")
        published = self.state.from_run(report) if report else None
        subject = published.facts(ReportFacts).subject if published else None
        return self._judged(name, view.slot.id, subject, report, blocking=not view.slot.optional)

    def _judged(
        self,
        name: str,
        slot: str,
        subject: Digest | None,
        evidence: Digest | None,
        *,
        blocking: bool,
    ) -> GateView:
        policy = self.recipe.policy
        key = (name, subject or "", evidence or "", policy)
        found = self.state.verdicts.get(key)
        waiver = self.state.waiver(name, subject, self.now) if subject else None
        waivers = self.state.waivers.get((name, subject), ()) if subject else ()
        for one in waivers:
            if one.fact.until > self.now:
                self._wake(slot, one.fact.until)
        return GateView(
            gate=name,
            slot=slot,
            required=name in self.required,
            blocking=blocking,
            verdict=found.fact.verdict if found else Verdict.NOT_RUN,
            subject=subject,
            evidence=evidence,
            policy=policy,
            checks=found.fact.checks if found else (),
            seq=found.seq if found else None,
            waiver=waiver,
            lapsed=tuple(w for w in waivers if w.fact.until <= self.now),
            judged=found is not None,
        )

    def _environment_gates(self) -> list[GateView]:
        views = sorted(self.views.values(), key=lambda view: self._places[view.slot.id])
        used = [v.run.environment for v in views if v.run and v.outputs]
        subjects = dict.fromkeys(d for d in used if d) or {self.site.environment: None}
        names = [n for n in self.policy.gates if phase_of(n) == ENVIRONMENT]
        return [
            self._judged(name, ENVIRONMENT, subject, subject, blocking=True)
            for name in names
            for subject in subjects
        ]

    def all_gates(self) -> tuple[GateView, ...]:
        """Every gate of the plan; a required one that no slot feeds is `not_run`."""
        over_slots = sorted(self.gates.values(), key=lambda gate: self._places[gate.slot])
        found = [*self._environment_gates(), *over_slots]
        fed = {g.gate for g in found} | {gate for gate, _ in self.left_out}
        unfed = [
            self._judged(name, "(no slot)", None, None, blocking=True)
            for name in self.required
            if name not in fed
        ]
        return tuple(found + unfed)


def _plain(  # noqa: PLR0917  # private, and called in one way
    spec: PhaseSpec,
    slot: Slot,
    status: Status,
    reason: Reason,
    detail: str,
    source: str | None = None,
) -> SlotView:
    return SlotView(
        slot=slot, spec=spec, status=status, reason=reason, detail=detail, source=source
    )


def _held(spec: PhaseSpec, slot: Slot, status: Status, reason: Reason, gate: GateView) -> SlotView:
    return SlotView(
        slot=slot, spec=spec, status=status, reason=reason, detail=_gate_text(gate), gate=gate
    )


def _gate_text(gate: GateView) -> str:
    over = f" over {gate.subject[:SHORT]}" if gate.subject else ""
    return f"{gate.gate} ({gate.slot}{over}): {gate.verdict}"


def _row(gate: GateView) -> dict[str, Any]:
    """A gate as the release's key holds it. `seq` and `waiver_seq` name events of the ledger.

    Waivers that have expired are told where they would have mattered: the gate is closed now.
    """
    lapsed = [] if gate.open else [waived.seq for waived in gate.lapsed]
    return ({"lapsed_seqs": lapsed} if lapsed else {}) | {
        "gate": gate.gate,
        "slot": gate.slot,
        "subject": gate.subject,
        "evidence": gate.evidence,
        "verdict": str(gate.verdict),
        "required": gate.required,
        "seq": gate.seq,
        "waiver_seq": gate.waiver.seq if gate.waiver else None,
    }
