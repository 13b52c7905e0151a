"""Admission: limits hold what would pass them, and never starve what is large."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.registry.planning.admission import admissions
from stillhouse.registry.planning.decide import Start
from stillhouse.registry.planning.views import Reason, SlotView, Status
from stillhouse.registry.state.runs import Run
from stillhouse.schemas.events import RunStarted
from stillhouse.schemas.limits import Limits
from stillhouse.schemas.plan import PhaseSpec, Slot

from .plan_world import digest


def _start(phase: str, place: int = 0) -> Start:
    spec = PhaseSpec(name=phase, version=1, slots=lambda _: (), makes=(), tools=())
    slot = Slot(id=f"{phase}/{place}", params={}, needs=())
    key = digest(f"{phase} {place}")
    view = SlotView(slot=slot, spec=spec, status=Status.READY, reason=Reason.NEW, key=key)
    return Start(plan=digest("plan"), view=view)


def _running(phase: str, place: int = 99) -> Run:
    key = digest(f"{phase} {place}")
    fact = RunStarted(
        run=key,
        phase=phase,
        phase_version=1,
        plan=digest("plan"),
        slot=phase,
        attempt=1,
        inputs=(),
        params={},
        tools={},
    )
    return Run(key=key, started=fact, attempts=1, seq=1, started_seq=1, ts="2026")


def _held(starts: list[Start], running: list[Run], **limits: Any) -> list[str | None]:
    found = admissions(starts, running, Limits.model_validate(limits))
    return [admission.held.name if admission.held else None for admission in found]


_ONE_A = {"workers": 3, "phases": {"a": {"workers": 1}}}
_SIZES = {"a": {"memory": 6}, "b": {"memory": 5}}


@pytest.mark.parametrize(
    ("starts", "running", "limits", "held"),
    [
        (["a"], [], {}, [None]),
        (["a", "b"], [], {}, [None, "WORKERS_BUSY"]),
        (["a"], ["b"], {"workers": 1}, ["WORKERS_BUSY"]),
        (["a", "a", "b"], [], _ONE_A, [None, "PHASE_BUSY", None]),
        (["a"], ["b"], {"workers": 2, "memory": 10, "phases": _SIZES}, ["MEMORY_TAKEN"]),
        (["a"], ["b"], {"workers": 2, "memory": 11, "phases": _SIZES}, [None]),
    ],
)
def test_what_is_held_says_why(
    starts: list[str], running: list[str], limits: dict[str, Any], held: list[str | None]
) -> None:
    wanted = [_start(phase, place) for place, phase in enumerate(starts)]
    assert _held(wanted, [_running(phase) for phase in running], **limits) == held


def test_a_run_larger_than_all_memory_runs_alone_rather_than_never() -> None:
    limits = {"workers": 4, "memory": 10, "phases": {"a": {"memory": 50}, "b": {"memory": 1}}}
    assert _held([_start("a"), _start("b")], [], **limits) == [None, "MEMORY_TAKEN"]
    assert _held([_start("a")], [_running("b")], **limits) == ["MEMORY_TAKEN"]


def test_small_runs_do_not_overtake_a_large_one_for_ever() -> None:
    limits = {"workers": 4, "memory": 10, "phases": {"a": {"memory": 8}, "b": {"memory": 3}}}
    starts = [_start("a"), _start("b", 1), _start("b", 2)]
    held = ["MEMORY_TAKEN", "MEMORY_TAKEN", "MEMORY_TAKEN"]
    assert _held(starts, [_running("b")], **limits) == held


_OWN = st.fixed_dictionaries(
    {}, optional={"workers": st.integers(1, 3), "memory": st.integers(1, 9)}
)


@given(
    phases=st.lists(st.sampled_from("abc"), max_size=12),
    running=st.lists(st.sampled_from("abc"), max_size=4),
    workers=st.integers(1, 6),
    memory=st.none() | st.integers(1, 20),
    own=st.dictionaries(st.sampled_from("abc"), _OWN),
)
def test_no_limit_is_ever_passed(
    phases: list[str], running: list[str], workers: int, memory: int | None, own: dict[str, Any]
) -> None:
    limits = Limits(workers=workers, memory=memory, phases=own)
    starts = [_start(phase, place) for place, phase in enumerate(phases)]
    live = [_running(phase, 100 + place) for place, phase in enumerate(running)]
    told = list(admissions(starts, live, limits))
    assert [admission.start for admission in told] == starts
    admitted = [a.start.view.spec.name for a in told if a.held is None]
    if admitted:
        everything = admitted + running
        assert len(everything) <= workers
        for phase in admitted:
            limit = limits.of(phase).workers
            assert limit is None or everything.count(phase) <= limit
        taken = sum(limits.of(phase).memory or 0 for phase in everything)
        holding = [phase for phase in everything if limits.of(phase).memory]
        new = any(limits.of(phase).memory for phase in admitted)
        assert memory is None or taken <= memory or len(holding) == 1 or not new
    if not running and starts:
        assert admitted, "an empty machine must always take something"
