"""How a plan stands, as plain values that can be printed and sent: slots, gates, waivers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stillhouse.registry.planning.missing import Missing, following, missing
from stillhouse.registry.planning.views import GateView, PlanView, SlotView, Status, with_detail
from stillhouse.registry.state.state import Waived
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import GateWaived
from stillhouse.schemas.policy import CheckResult, Verdict


@dataclass(frozen=True, kw_only=True)
class SlotSummary:
    """One slot."""

    slot: str
    status: Status
    optional: bool
    reason: str
    """The reason's code …"""
    text: str
    """… and its words."""
    detail: str
    until: str | None
    """When it goes on by itself (RFC 3339 UTC), where that is known."""
    run: Digest | None
    """The run key, when all inputs are known."""
    seconds: float | None
    """What its run took."""
    outputs: Mapping[str, Digest]

    @property
    def why(self) -> str:
        """The reason in words, with its detail."""
        return with_detail(self.text, self.detail)


@dataclass(frozen=True, kw_only=True)
class WaiverSummary:
    """One waiver."""

    state: Literal["active", "expired"]
    author: str
    reason: str
    until: str
    """RFC 3339 UTC."""
    seq: int


@dataclass(frozen=True, kw_only=True)
class GateSummary:
    """One gate over one slot."""

    gate: str
    slot: str
    verdict: Verdict
    required: bool
    blocking: bool
    subject: Digest | None
    evidence: Digest | None
    policy: Digest
    checks: tuple[CheckResult, ...]
    waiver: GateWaived | None
    """The one in force."""
    waivers: tuple[WaiverSummary, ...]
    """All of them, oldest first."""


@dataclass(frozen=True, kw_only=True)
class PlanSummary:
    """A whole plan."""

    plan: Digest
    name: str
    done: bool
    slots: tuple[SlotSummary, ...]
    gates: tuple[GateSummary, ...]
    release: Digest | None
    missing: tuple[Missing, ...]
    following: str
    """How many gates and slots wait for what is missing first, in words."""


def summary_of_plan(view: PlanView) -> PlanSummary:
    """A plan as it stands."""
    return PlanSummary(
        plan=view.plan,
        name=view.recipe.name,
        done=view.done,
        slots=tuple(map(summary_of_slot, view.slots)),
        gates=tuple(map(summary_of_gate, view.gates)),
        release=release_of(view),
        missing=missing(view),
        following=following(view),
    )


def summary_of_slot(slot: SlotView) -> SlotSummary:
    """A slot as it stands."""
    return SlotSummary(
        slot=slot.slot.id,
        status=slot.status,
        optional=slot.slot.optional,
        reason=slot.reason.code,
        text=str(slot.reason),
        detail=slot.detail,
        until=slot.until,
        run=slot.key,
        seconds=slot.run.seconds if slot.run else None,
        outputs=dict(slot.outputs),
    )


def summary_of_gate(gate: GateView) -> GateSummary:
    """A gate as it stands."""
    waivers = [summary_of_waiver(one, active=False) for one in gate.lapsed]
    if gate.waiver:
        waivers.append(summary_of_waiver(gate.waiver, active=True))
    return GateSummary(
        gate=gate.gate,
        slot=gate.slot,
        verdict=gate.verdict,
        required=gate.required,
        blocking=gate.blocking,
        subject=gate.subject,
        evidence=gate.evidence,
        policy=gate.policy,
        checks=gate.checks,
        waiver=gate.waiver.fact if gate.waiver else None,
        waivers=tuple(waivers),
    )


def summary_of_waiver(waiver: Waived, *, active: bool) -> WaiverSummary:
    """A waiver as it stands."""
    fact = waiver.fact
    return WaiverSummary(
        state="active" if active else "expired",
        author=fact.author,
        reason=fact.reason,
        until=fact.until,
        seq=waiver.seq,
    )


def release_of(view: PlanView) -> Digest | None:
    """The release that the plan came to, if it did."""
    for slot in view.slots:
        if slot.spec.seals and slot.status is Status.FILLED:
            return slot.outputs.get("release")
    return None
