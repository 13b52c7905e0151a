"""How a run stands: the words, and that state and SQL never differ about them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.registry.projection.projection import Projection
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import State
from stillhouse.schemas.event import GENESIS, Actor, Event
from stillhouse.schemas.events import (
    Payload,
    RunAbandoned,
    RunCancelled,
    RunFailed,
    RunRetried,
    RunStarted,
    RunSucceeded,
)

RUNS = ("aa" * 32, "bb" * 32)
PLAN = "cc" * 32
ABOUT: dict[str, Any] = {"phase": "export", "plan": PLAN, "slot": "export/prefill-8"}
BEGUN: dict[str, Any] = {"phase_version": 1, "inputs": (), "params": {}, "tools": {}}
BROKE: dict[str, Any] = {"code": "c", "message": "m.", "remedy": "r", "seconds": 1.0}
SUCCEEDED = "succeeded"


def history(steps: list[tuple[int, str, int]]) -> list[Payload]:
    """Events that one ledger can hold: what goes on ends, what ended starts, anyone may wish."""
    attempts = dict.fromkeys(RUNS, 0)
    live: set[str] = set()
    over: set[str] = set()
    told: list[Payload] = []
    for place, what, back in steps:
        run = RUNS[place]
        attempt = max(1, attempts[run] - back)
        if what == "cancelled" and attempts[run]:
            told.append(RunCancelled(run=run, attempt=attempt))
        elif what == "retried" and attempts[run]:
            told.append(RunRetried(run=run))
        elif run not in live and run not in over and what == "started":
            attempts[run] += 1
            live.add(run)
            told.append(RunStarted(run=run, attempt=attempts[run], **ABOUT, **BEGUN))
        elif run in live and what in ("failed", "abandoned", SUCCEEDED):
            live.remove(run)
            if what == "failed":
                told.append(
                    RunFailed(
                        run=run, attempt=attempts[run], **ABOUT, **BROKE, transient=bool(back)
                    )
                )
            elif what == "abandoned":
                told.append(RunAbandoned(run=run, attempt=attempts[run], **ABOUT, reason="it died"))
            else:
                over.add(run)
                told.append(
                    RunSucceeded(run=run, attempt=attempts[run], **ABOUT, outputs=(), seconds=1.0)
                )
    return told


STEPS = st.lists(
    st.tuples(
        st.sampled_from((0, 0, 0, 1)),
        st.sampled_from(("started", "failed", "abandoned", "cancelled", "retried", SUCCEEDED)),
        st.sampled_from((0, 0, 1)),
    ),
    max_size=24,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS)
def test_state_and_sql_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("r")
    ledger = _ledger(folder)
    for payload in history(steps):
        ledger.append([payload])
    state = State().apply_all(ledger.read())
    projection = Projection(folder / "registry.duckdb", ledger.path)
    rows = projection.query("SELECT run, status, cancelled, attempt FROM runs ORDER BY run").rows
    assert rows == tuple(
        (run.key, str(run.status), bool(run.cancelled_seq), run.attempts)
        for run in sorted(state.runs.values(), key=lambda run: run.key)
    )


def _ledger(folder: Path) -> Ledger:
    return Ledger(
        folder / "events.log",
        lambda: datetime(2026, 11, 22, tzinfo=UTC),
        Actor(user="ada", host="h"),
    )


def after(*steps: str) -> Run:
    """One run after these steps."""
    state = State()
    told = history([(0, step, 0) for step in steps])
    for place, payload in enumerate(told, start=1):
        state.apply(_event(place, payload))
    return state.runs[RUNS[0]]


def standing(*steps: str) -> tuple[str, str, bool]:
    """Status, ending and whether it is tried again, after these steps of one run."""
    run = after(*steps)
    return str(run.status), run.ending, run.goes_on_by_itself


def _event(seq: int, payload: Payload) -> Event:
    return Event(
        seq=seq,
        prev=GENESIS,
        ts="2026-11-22T12:00:00.000000Z",
        type=payload.TYPE,
        v=payload.VERSION,
        actor=Actor(user="ada", host="h"),
        batch="1/1",
        data=payload.to_json(),
    )


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (("started",), ("running", "it goes on", False)),
        (("started", "cancelled"), ("running", "it goes on", False)),
        (("started", "cancelled", "abandoned"), ("cancelled", "it was cancelled", False)),
        (("started", "cancelled", SUCCEEDED), (SUCCEEDED, "it succeeded", False)),
        (("started", "failed"), ("failed", "it failed: m", False)),
        (
            ("started", "failed", "cancelled"),
            ("failed", "it failed: m, and it was cancelled since", False),
        ),
        (
            ("started", "abandoned", "cancelled"),
            ("abandoned", "it was abandoned: it died, and it was cancelled since", False),
        ),
        (("started", "abandoned"), ("abandoned", "it was abandoned: it died", True)),
        # A failure stays one until it is tried again, and so does a cancellation.
        (("started", "failed", "retried"), ("failed", "it failed: m", True)),
        (("started", "cancelled", "abandoned", "retried"), ("cancelled", "it was cancelled", True)),
        (("started", "cancelled", "failed", "started"), ("running", "it goes on", False)),
    ],
)
def test_the_one_word_for_a_run(steps: tuple[str, ...], expected: tuple[str, str, bool]) -> None:
    assert standing(*steps) == expected


def test_a_run_is_tried_again_by_itself_as_often_as_it_may() -> None:
    lost_twice = after("started", "abandoned", "started", "abandoned")
    assert [lost_twice.tried_again(attempts) for attempts in (1, 2, 3)] == [False, False, True]
    assert after("started", "abandoned", "retried").tried_again(1)
    assert not after("started", "failed").tried_again(3)
