"""How a plan stands, as values: every slot with its status and the first reason for it, every gate.

A slot is, in the order in which it is found out:

    skipped   optional, and something it needs settled empty
    blocked   a required input can not come, or a gate it needs did not pass
    waiting   an input is still being made, or a gate is not judged yet
    filled    a run with this very key succeeded
    running · failed · ready
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import Waived
from stillhouse.schemas.artifact import Parent
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.limits import Limits
from stillhouse.schemas.plan import PhaseSpec, Slot
from stillhouse.schemas.policy import CheckResult, Verdict
from stillhouse.schemas.recipe import Recipe

ENVIRONMENT = "environment"
"""The phase that has no slot: it is probed, and judged by gates like any other."""


class Status(StrEnum):
    """Where a slot stands."""

    FILLED = "filled"
    RUNNING = "running"
    READY = "ready"
    WAITING = "waiting"
    BLOCKED = "blocked"
    FAILED = "failed"
    SKIPPED = "skipped"


class Reason(StrEnum):
    """Why a slot stands where it stands: a closed set."""

    SUCCEEDED = "its run succeeded"
    REUSED = "an earlier run with the same key succeeded"
    RUNS = "its run is going on"
    NEW = "no run with this key has succeeded"
    RETRY = "it is to be tried again"
    INPUT_PENDING = "an input is still being made"
    INPUT_FAILED = "a required input can not come"
    INPUT_SKIPPED = "an optional input settled empty"
    INPUT_ABSENT = "the bytes of an input were swept or evicted"
    GATE_PENDING = "a gate is not judged yet"
    GATE_CLOSED = "a gate it needs did not pass"
    RUN_FAILED = "its run failed"
    RUN_DIED = "its process died too often"
    RUN_CANCELLED = "its run was cancelled"
    BACKING_OFF = "it waits before it is tried again"
    OTHERS_UNSETTLED = "other slots of the plan are not settled"
    NOT_ASKED_FOR = "its plan is not asked for"
    WORKERS_BUSY = "no worker is free"
    PHASE_BUSY = "as many runs of its phase go on as may"
    MEMORY_TAKEN = "the memory it is to have is set aside for others"
    NOT_ADVANCED = "no process advances this registry"

    @property
    def code(self) -> str:
        """Its name for scripts: `input_pending`. Texts may be worded anew, codes may not."""
        return self.name.lower()


def with_detail(reason: str, detail: str) -> str:
    """A reason in words, and the first thing that it is about where that is known."""
    return f"{reason}: {detail}" if detail else str(reason)


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where runs would execute now: the environment that was probed."""

    environment: Digest
    versions: Mapping[str, str]
    """Distribution -> version; an absent one is left out."""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, kw_only=True)
class SlotView:
    """One slot of a plan, as it stands."""

    slot: Slot
    spec: PhaseSpec
    status: Status
    reason: Reason
    detail: str = ""
    """The first thing the reason is about, with digests: for people."""
    source: str | None = None
    """The slot whose standing is the reason, where one is …"""
    gate: GateView | None = None
    """… or the gate that is."""
    until: str | None = None
    """When it goes on by itself (RFC 3339 UTC), where that is known."""
    key: Digest | None = None
    """The run key, when all inputs are known."""
    inputs: tuple[Parent, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    run: Run | None = None
    attempt: int = 1
    """The attempt that a start would be."""

    @property
    def why(self) -> str:
        """The reason in words, with its detail."""
        return with_detail(self.reason, self.detail)

    @property
    def outputs(self) -> Mapping[str, Digest]:
        """What fills the slot; empty unless it is filled."""
        return self.run.outputs if self.status is Status.FILLED and self.run else {}


@dataclass(frozen=True, kw_only=True)
class GateView:
    """One gate over one slot of a plan."""

    gate: str
    slot: str
    required: bool
    blocking: bool
    """False on an optional slot: it is left out of the release instead."""
    verdict: Verdict
    subject: Digest | None = None
    evidence: Digest | None = None
    policy: Digest
    checks: tuple[CheckResult, ...] = ()
    seq: int | None = None
    waiver: Waived | None = None
    """The one in force."""
    lapsed: tuple[Waived, ...] = ()
    """Those that have expired, oldest first; they open nothing."""
    judged: bool = False
    """False: the verdict is `not_run` because nothing was judged yet."""

    @property
    def open(self) -> bool:
        """Whether it lets things through."""
        return self.verdict is Verdict.PASS or self.waiver is not None


@dataclass(frozen=True, kw_only=True)
class PlanView:
    """A whole plan, as it stands."""

    plan: Digest
    recipe: Recipe
    slots: tuple[SlotView, ...]
    gates: tuple[GateView, ...]

    def slot(self, slot_id: str) -> SlotView:
        """One slot. Raises KeyError."""
        for view in self.slots:
            if view.slot.id == slot_id:
                return view
        raise KeyError(slot_id)

    @property
    def settled(self) -> bool:
        """Whether nothing more will happen by itself."""
        moving = (Status.READY, Status.RUNNING, Status.WAITING)
        return not any(v.status in moving for v in self.slots)

    @property
    def closed_gates(self) -> tuple[GateView, ...]:
        """Required gates that do not let the plan through."""
        return tuple(g for g in self.gates if g.required and g.blocking and not g.open)

    @property
    def done(self) -> bool:
        """Every required slot is filled and every required gate is open."""
        filled = all(v.status is Status.FILLED for v in self.slots if not v.slot.optional)
        return filled and not self.closed_gates
