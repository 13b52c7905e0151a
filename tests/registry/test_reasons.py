"""Every reason for which a slot stands as it stands, each in a small world that comes to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import pytest

from stillhouse.registry.planning.admission import Admission, admissions
from stillhouse.registry.planning.agenda import Agenda
from stillhouse.registry.planning.causes import Cause, find_cause, trace
from stillhouse.registry.planning.views import PlanView, Reason, Status
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.events import (
    ArtifactEvicted,
    GateWaived,
    PlanCancelled,
    PlanRequested,
    RunAbandoned,
    RunCancelled,
    RunRetried,
)
from stillhouse.schemas.limits import Limits, PhaseLimits
from stillhouse.schemas.policy import Verdict

from .plan_world import CATALOG, NOW, POLICY, Record, World, decide

LATER = "2026-11-22T10:01:00.000000Z"
"""One minute after NOW."""

CODES = {
    Reason.SUCCEEDED: "succeeded",
    Reason.REUSED: "reused",
    Reason.RUNS: "runs",
    Reason.NEW: "new",
    Reason.RETRY: "retry",
    Reason.INPUT_PENDING: "input_pending",
    Reason.INPUT_FAILED: "input_failed",
    Reason.INPUT_SKIPPED: "input_skipped",
    Reason.INPUT_ABSENT: "input_absent",
    Reason.GATE_PENDING: "gate_pending",
    Reason.GATE_CLOSED: "gate_closed",
    Reason.RUN_FAILED: "run_failed",
    Reason.RUN_DIED: "run_died",
    Reason.RUN_CANCELLED: "run_cancelled",
    Reason.BACKING_OFF: "backing_off",
    Reason.OTHERS_UNSETTLED: "others_unsettled",
    Reason.NOT_ASKED_FOR: "not_asked_for",
    Reason.WORKERS_BUSY: "workers_busy",
    Reason.PHASE_BUSY: "phase_busy",
    Reason.MEMORY_TAKEN: "memory_taken",
    Reason.NOT_ADVANCED: "not_advanced",
}
"""For ever: scripts know them by these."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A slot, and what is said of it."""

    reason: Reason
    detail: str
    names: str
    """What the detail has to name."""


def _admissions(world: World) -> Iterator[Admission]:
    agenda = Agenda(world.state, CATALOG, world.site)
    agenda.facts(world.now)
    return admissions(agenda.starts(), world.state.running(), world.limits)


def _cause(world: World, plan: Digest, slot: str, *, advanced: bool = True) -> Cause:
    view = world.view(plan)
    return find_cause(world.state, view, slot, admissions=_admissions(world), advanced=advanced)


def _standing(view: PlanView, slot: str, names: str) -> Case:
    """How a slot itself stands."""
    found = view.slot(slot)
    return Case(reason=found.reason, detail=found.detail, names=names)


def _held(world: World, plan: Digest, slot: str, names: str, *, advanced: bool = True) -> Case:
    """What a slot comes to in the end."""
    cause = _cause(world, plan, slot, advanced=advanced)
    return Case(reason=cause.reason, detail=cause.detail, names=names)


def _judged(world: World, plan: Digest) -> None:
    """Record facts, and start nothing."""
    while (actions := decide(world.state, (plan,), CATALOG, world.site, world.now)) and isinstance(
        actions[0], Record
    ):
        world.record(*actions[0].payloads)


def _started(world: World, plan: Digest, slot: str) -> None:
    """Go on until a run of this slot has been started, and is not heard of again."""
    world.dying.add(slot)
    while not any(run.started.slot == slot for run in world.state.running()):
        world.perform(decide(world.state, (plan,), CATALOG, world.site, world.now)[:1])


def _short(view: PlanView, slot: str) -> str:
    key = view.slot(slot).key
    assert key is not None
    return key[:SHORT]


def _succeeded() -> Case:
    world = World()
    view = world.run(world.plan())
    return _standing(view, "training", _short(view, "training"))


def _reused() -> Case:
    world = World()
    first = world.run(world.plan())
    second = world.run(world.plan(prefill=(8, 16)))
    return _standing(second, "training", _short(first, "training"))


def _runs() -> Case:
    world = World()
    plan = world.plan()
    _started(world, plan, "training")
    return _standing(world.view(plan), "training", "attempt 1")


def _new() -> Case:
    world = World()
    plan = world.plan()
    _judged(world, plan)
    assert world.view(plan).slot("training").key is not None
    return _held(world, plan, "training", "")


def _retry() -> Case:
    world = World(failing={"training"})
    plan = world.plan()
    view = world.run(plan)
    world.record(RunRetried(run=view.slot("training").key or ""))
    return _held(world, plan, "training", _short(view, "training"))


def _input_pending() -> Case:
    world = World()
    plan = world.plan()
    _started(world, plan, "training")
    return _standing(world.view(plan), "export/prefill-8", "checkpoint from training")


def _input_failed() -> Case:
    world = World(failing={"export/prefill-8"})
    view = world.run(world.plan())
    return _standing(view, "conversion/prefill-8", "export from export/prefill-8")


def _input_skipped() -> Case:
    world = World(failing={"export/prefill-16"})
    view = world.run(world.plan(prefill=(8, 16)))
    return _standing(view, "conversion/prefill-16", "export from export/prefill-16")


def _input_absent() -> Case:
    world = World(dying={"export/prefill-8"}, stopping=True)
    plan = world.plan()
    _started(world, plan, "export/prefill-8")
    world.bury()
    run = world.view(plan).slot("training").run
    assert run is not None
    gone = run.outputs["checkpoint"]
    world.record(ArtifactEvicted(digest=gone, run=run.key, size=1))
    return _held(world, plan, "export/prefill-8", f"checkpoint {gone[:SHORT]}")


def _gate_pending() -> Case:
    world = World()
    return _held(world, world.plan(), "training", "environment.versions")


def _gate_closed() -> Case:
    world = World(max_abs={"export/prefill-8": 5.0})
    view = world.run(world.plan())
    return _standing(view, "conversion/prefill-8", "export.parity (export/prefill-8 over ")


def _run_failed() -> Case:
    world = World(failing={"training"})
    return _standing(world.run(world.plan()), "training", "broke")


def _run_died() -> Case:
    world = World(dying={"training"})
    return _standing(world.run(world.plan()), "training", "killed by SIGKILL")


def _cancel(world: World, plan: Digest, slot: str) -> None:
    _started(world, plan, slot)
    (run,) = world.state.running()
    world.record(RunCancelled(run=run.key, attempt=1, reason="enough"))
    world.stopping = True
    started = run.started
    world.record(
        RunAbandoned(
            run=run.key,
            phase=started.phase,
            plan=plan,
            slot=slot,
            attempt=1,
            reason="it was cancelled",
            stopped=True,
        )
    )


def _run_cancelled() -> Case:
    world = World()
    plan = world.plan()
    _cancel(world, plan, "training")
    view = world.view(plan)
    return _standing(view, "training", _short(view, "training"))


def _backing_off() -> Case:
    world = World(dying={"training"}, limits=Limits(backoff=60))
    view = world.run(world.plan())
    assert view.slot("training").until == LATER
    return _standing(view, "training", LATER)


def _others_unsettled() -> Case:
    world = World()
    plan = world.plan()
    _started(world, plan, "training")
    return _standing(world.view(plan), "deployment", "training")


def _not_asked_for() -> Case:
    world = World()
    plan = world.plan()
    _judged(world, plan)
    world.record(PlanCancelled(plan=plan))
    return _held(world, plan, "deployment", f"was cancelled by event {world.state.seq}")


def _two_exports(limits: Limits) -> tuple[World, Digest]:
    """One export goes on, the other is ready."""
    world = World(limits=limits)
    plan = world.plan(prefill=(8, 16))
    _started(world, plan, "export/prefill-8")
    return world, plan


def _workers_busy() -> Case:
    world, plan = _two_exports(Limits(workers=1))
    return _held(world, plan, "export/prefill-16", "1 of 1")


def _phase_busy() -> Case:
    world, plan = _two_exports(Limits(workers=4, phases={"export": PhaseLimits(workers=1)}))
    return _held(world, plan, "export/prefill-16", "export")


def _memory_taken() -> Case:
    limits = Limits(workers=4, memory=10, phases={"export": PhaseLimits(memory=6)})
    world, plan = _two_exports(limits)
    return _held(world, plan, "export/prefill-16", "6 of 10 bytes")


def _not_advanced() -> Case:
    world = World()
    plan = world.plan()
    _judged(world, plan)
    return _held(world, plan, "deployment", "", advanced=False)


CASES: dict[Reason, Callable[[], Case]] = {
    Reason.SUCCEEDED: _succeeded,
    Reason.REUSED: _reused,
    Reason.RUNS: _runs,
    Reason.NEW: _new,
    Reason.RETRY: _retry,
    Reason.INPUT_PENDING: _input_pending,
    Reason.INPUT_FAILED: _input_failed,
    Reason.INPUT_SKIPPED: _input_skipped,
    Reason.INPUT_ABSENT: _input_absent,
    Reason.GATE_PENDING: _gate_pending,
    Reason.GATE_CLOSED: _gate_closed,
    Reason.RUN_FAILED: _run_failed,
    Reason.RUN_DIED: _run_died,
    Reason.RUN_CANCELLED: _run_cancelled,
    Reason.BACKING_OFF: _backing_off,
    Reason.OTHERS_UNSETTLED: _others_unsettled,
    Reason.NOT_ASKED_FOR: _not_asked_for,
    Reason.WORKERS_BUSY: _workers_busy,
    Reason.PHASE_BUSY: _phase_busy,
    Reason.MEMORY_TAKEN: _memory_taken,
    Reason.NOT_ADVANCED: _not_advanced,
}


def test_every_reason_has_a_case_and_a_code_that_stays() -> None:
    assert set(CASES) == set(Reason)
    assert {reason: reason.code for reason in Reason} == CODES


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.code)
def test_each_reason_is_come_to_and_names_what_it_is_about(reason: Reason) -> None:
    case = CASES[reason]()
    assert case.reason is reason
    assert case.names in case.detail
    assert bool(case.detail) == bool(case.names)


# -- down to the cause --------------------------------------------------------------------------


def test_a_chain_leads_from_what_waits_to_what_is_waited_for() -> None:
    world = World()
    plan = world.plan()
    _started(world, plan, "training")
    cause = _cause(world, plan, "conversion/prefill-8")
    assert [s.slot.id for s in cause.chain] == [
        "conversion/prefill-8",
        "export/prefill-8",
        "training",
    ]
    assert cause.reason is Reason.RUNS


def test_a_failure_far_up_is_the_cause_of_a_release_that_does_not_come() -> None:
    world = World(failing={"training"})
    plan = world.plan()
    world.run(plan)
    cause = _cause(world, plan, "deployment")
    # Not the gates that have nothing to judge for it: what failed itself.
    assert [s.slot.id for s in cause.chain] == ["deployment", "training"]
    assert cause.reason is Reason.RUN_FAILED
    assert "broke" in cause.detail


def test_a_closed_gate_is_the_cause_with_its_numbers() -> None:
    world = World(max_abs={"export/prefill-8": 5.0})
    plan = world.plan()
    world.run(plan)
    for slot in ("conversion/prefill-8", "deployment"):
        gate = _cause(world, plan, slot).gate
        assert gate is not None
        assert (gate.gate, gate.slot, gate.verdict) == (
            "export.parity",
            "export/prefill-8",
            Verdict.FAIL,
        )
        assert (gate.checks[0].value, gate.checks[0].threshold) == (5.0, 0.1)


def test_a_gate_over_the_sealing_slot_itself_ends_the_chain() -> None:
    policy = copy.deepcopy(POLICY)
    policy["gates"]["deployment.x"] = {"checks": [{"metric": "m", "op": "<=", "value": 1}]}
    policy["tiers"]["tier_2"].append("deployment.x")
    world = World()
    plan = world.plan(policy=world.policy(policy))
    world.run(plan)
    cause = _cause(world, plan, "deployment")
    assert [s.slot.id for s in cause.chain] == ["deployment"]
    assert cause.gate is not None
    assert cause.gate.gate == "deployment.x"


def test_a_plan_that_was_never_asked_for_says_so() -> None:
    world = World()
    plan = world.plan()
    _judged(world, plan)
    del world.state.requested[plan]
    cause = _cause(world, plan, "training")
    assert cause.reason is Reason.NOT_ASKED_FOR
    assert "never was" in cause.detail


def test_a_run_that_another_plan_is_to_start_is_not_held_by_its_own_being_cancelled() -> None:
    world = World()
    first, second = world.plan(), world.plan(name="other")
    _judged(world, first)
    _judged(world, second)
    world.record(PlanCancelled(plan=first))
    assert _cause(world, first, "training").reason is Reason.NEW
    world.record(PlanCancelled(plan=second))
    assert _cause(world, first, "training").reason is Reason.NOT_ASKED_FOR


def test_what_is_over_is_told_as_such_even_where_nobody_advances() -> None:
    world = World(failing={"training"})
    plan = world.plan()
    world.run(plan)
    assert _cause(world, plan, "training", advanced=False).reason is Reason.RUN_FAILED


SLOTS = ("training", "export/prefill-8", "export/prefill-16", "conversion/prefill-8")


@pytest.mark.parametrize("failing", [c for n in range(4) for c in combinations(SLOTS, n)])
@pytest.mark.parametrize("closed", [(), ("export/prefill-8",), ("export/prefill-16",)])
def test_a_chain_never_ends_at_a_slot_that_only_waits_for_another(
    failing: tuple[str, ...], closed: tuple[str, ...]
) -> None:
    world = World(failing=set(failing), max_abs=dict.fromkeys(closed, 5.0))
    view = world.run(world.plan(prefill=(8, 16)))
    for slot in view.slots:
        chain = trace(view, slot.slot.id)
        last = chain[-1]
        assert len({s.slot.id for s in chain}) == len(chain)
        assert last.source is None
        if slot.status is not Status.FILLED:
            assert last.reason in (Reason.RUN_FAILED, Reason.GATE_CLOSED)
            # What holds it is one of the faults that were put in, and nothing else.
            fault = last.gate.slot if last.gate and last.gate.slot in closed else last.slot.id
            assert fault in (*failing, *closed)


# -- what opens and closes again ----------------------------------------------------------------


def test_a_gate_whose_waiver_expired_blocks_again_and_says_whose_it_was() -> None:
    world = World(max_abs={"export/prefill-8": 5.0})
    plan = world.plan()
    gate = world.run(plan).closed_gates[0]
    assert gate.subject is not None
    world.record(
        GateWaived(gate=gate.gate, subject=gate.subject, author="ada", reason="so", until=LATER)
    )
    _judged(world, plan)
    assert not world.view(plan).closed_gates
    assert world.view(plan).slot("conversion/prefill-8").status is Status.READY
    world.now = LATER
    held = world.view(plan).slot("conversion/prefill-8")
    assert held.reason is Reason.GATE_CLOSED
    assert held.gate is not None
    assert held.gate.waiver is None
    assert [w.fact.author for w in held.gate.lapsed] == ["ada"]
    assert _cause(world, plan, "conversion/prefill-8").reason is Reason.GATE_CLOSED


def test_a_pause_ends_by_itself_and_a_retry_ends_it_at_once() -> None:
    world = World(dying={"training"}, limits=Limits(backoff=60))
    plan = world.plan()
    key = world.run(plan).slot("training").key
    assert key is not None
    world.now = LATER
    assert _cause(world, plan, "training").reason is Reason.RETRY
    world.now = NOW
    assert _cause(world, plan, "training").reason is Reason.BACKING_OFF
    world.record(RunRetried(run=key))
    assert _cause(world, plan, "training").reason is Reason.RETRY


def test_a_cancelled_run_stays_so_until_it_is_asked_for() -> None:
    world = World()
    plan = world.plan()
    _cancel(world, plan, "training")
    world.dying.clear()
    assert world.run(plan).slot("training").reason is Reason.RUN_CANCELLED
    assert world.executed == ["training"]
    world.record(PlanRequested(plan=plan))
    assert world.run(plan).done
