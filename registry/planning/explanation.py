"""Why slots and gates stand as they stand, as plain values that can be printed and sent. Pure.

Rules: every explanation follows the first reason, down to the slot or gate that is the cause. The
cause is said with its own reason, in numbers, and with what can be done about it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stillhouse.registry.planning.causes import Cause
from stillhouse.registry.planning.missing import gate_remedy
from stillhouse.registry.planning.remedies import remedy_for
from stillhouse.registry.planning.summary import GateSummary, summary_of_gate
from stillhouse.registry.planning.views import GateView, PlanView, SlotView, Status, with_detail
from stillhouse.registry.planning.words import gate_reason, unfed_reason
from stillhouse.registry.state.state import State
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.policy import Policy, Verdict

RELEASE = "release"
"""What people call the slot that seals."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One slot on the way to a cause."""

    slot: str
    status: Status
    why: str
    """Its first reason, with the detail."""
    gate: str | None
    """The gate that holds it, if one does …"""
    gate_why: str
    """… and why that is open or closed; empty without one."""


@dataclass(frozen=True, kw_only=True)
class CauseSummary:
    """What has to change first."""

    slot: str
    """The slot that is the cause."""
    status: Status
    reason: str
    """The reason's code …"""
    text: str
    """… and its words."""
    detail: str
    until: str | None
    """When it goes on by itself (RFC 3339 UTC), where that is known."""
    run: Digest | None
    """The run key, when all inputs are known."""
    gate: GateExplanation | None
    """The gate that holds it, if one does."""
    through: tuple[str, ...]
    """The slots before it, from the one that was asked about."""
    remedy: str
    """Empty when there is nothing to do."""
    steps: tuple[Step, ...]
    """The whole way, from the slot that was asked about to the cause."""

    @property
    def why(self) -> str:
        """The reason in words, with its detail."""
        return with_detail(self.text, self.detail)


@dataclass(frozen=True, kw_only=True)
class GateExplanation(GateSummary):
    """One gate over one slot, and why it is open or closed."""

    open: bool
    why: str
    cause: CauseSummary | None
    """What its slot waits for, where nothing was measured yet."""
    remedy: str
    """Empty when there is nothing to do."""


@dataclass(frozen=True, kw_only=True)
class UnfedGate:
    """A gate of the policy that judges nothing in this plan."""

    gate: str
    slot: str = ""
    verdict: Verdict = Verdict.NOT_RUN
    open: bool = False
    why: str
    cause: None = None
    remedy: str = ""


ExplainedGate = GateExplanation | UnfedGate


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a tier or a capability of a policy needs, and the first of it that is not there."""

    asked: str
    """The tier or capability."""
    needs: tuple[str, ...]
    """Gates."""
    lacks: ExplainedGate | None
    """None: nothing is in its way."""


@dataclass(frozen=True, kw_only=True)
class Explainer:
    """Explains one plan."""

    state: State
    view: PlanView
    find: Callable[[str], Cause]
    """What has to change first for a slot, by its id."""

    @property
    def policy(self) -> Policy:
        """The policy that judges the plan."""
        return self.state.policy(self.view.recipe.policy)

    def slots(self, target: str) -> tuple[SlotView, ...]:
        """The slots that TARGET means: one by its id, those of a phase, or the one that seals."""
        return tuple(
            slot
            for slot in self.view.slots
            if target in (slot.slot.id, slot.spec.name) or (target == RELEASE and slot.spec.seals)
        )

    def cause(self, slot: str) -> CauseSummary:
        """What has to change first for a slot."""
        return self._summary(self.find(slot))

    def gates(self, target: str) -> tuple[ExplainedGate, ...]:
        """The gates of that name, or those that judge what is named so: environment."""
        found = tuple(self._gate(g) for g in self.view.gates if target in (g.gate, g.slot))
        return found or ((self._unfed(target),) if target in self.policy.gates else ())

    def needs(self, target: str) -> Needs | None:
        """The first gate that keeps a tier or capability away; None when TARGET is neither."""
        tiers = {str(tier): gates for tier, gates in self.policy.tiers.items()}
        needed = tiers.get(target, self.policy.capabilities.get(target))
        if needed is None:
            return None
        waivable = target in tiers  # a waiver does not grant a capability
        found = (self._first_closed(name, waivable=waivable) for name in needed)
        return Needs(asked=target, needs=needed, lacks=next((one for one in found if one), None))

    def _summary(self, cause: Cause) -> CauseSummary:
        slot, plan = cause.slot, self.view.plan
        return CauseSummary(
            slot=slot.slot.id,
            status=slot.status,
            reason=cause.reason.code,
            text=str(cause.reason),
            detail=cause.detail,
            until=slot.until,
            run=slot.key,
            gate=self._gate(cause.gate) if cause.gate else None,
            through=tuple(passed.slot.id for passed in cause.chain[:-1]),
            remedy=remedy_for(cause.reason, slot, plan=plan, wanted=self.state.wants(plan)),
            steps=tuple(map(self._step, cause.chain)),
        )

    def _step(self, slot: SlotView) -> Step:
        return Step(
            slot=slot.slot.id,
            status=slot.status,
            why=slot.why,
            gate=slot.gate.gate if slot.gate else None,
            gate_why=gate_reason(self.view, slot.gate) if slot.gate else "",
        )

    def _gate(self, gate: GateView) -> GateExplanation:
        empty = not gate.judged and gate.subject is None
        fed = any(slot.slot.id == gate.slot for slot in self.view.slots)
        cause = self.cause(gate.slot) if empty and fed else None
        unfed = empty and not fed and gate.gate in self.policy.gates
        return GateExplanation(
            **vars(summary_of_gate(gate)),
            open=gate.open,
            why=self._unfed(gate.gate).why if unfed else gate_reason(self.view, gate),
            cause=cause,
            remedy=cause.remedy if cause else gate_remedy(gate),
        )

    def _unfed(self, name: str) -> UnfedGate:
        return UnfedGate(gate=name, why=unfed_reason(self.policy, self.view, name))

    def _first_closed(self, name: str, *, waivable: bool) -> ExplainedGate | None:
        """The first closed gate of a name, or that nothing feeds it; None when all are open."""
        gates = [gate for gate in self.view.gates if gate.gate == name]
        for gate in gates:
            holds = gate.open if waivable else gate.verdict is Verdict.PASS
            if gate.blocking and not holds:
                return self._gate(gate)
        return None if gates else self._unfed(name)
