"""Cancelling a plan while others record: no run that starts meanwhile goes on unseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.schemas.events import RunStarted
from stillhouse.session import Session

from .conftest import Still
from .recorded import Recorder

FIRST = "export/prefill-8"


@pytest.fixture
def recorder(session: Session, tmp_path: Path) -> Recorder:
    return Recorder(session=session, scratch=tmp_path / "scratch", going_on={FIRST})


def test_a_run_that_starts_while_its_plan_is_cancelled_is_cancelled_too(
    still: Still,
    session: Session,
    recorder: Recorder,
    policy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = recorder.plan(policy, export={"prefill": [8], "primary": 8})
    append = Ledger.append
    went_on: list[str] = []

    def after_a_start(ledger: Ledger, payloads: Any, **how: Any) -> Any:
        if not went_on:
            went_on.append(plan)
            recorder.run(plan)
        return append(ledger, payloads, **how)

    monkeypatch.setattr(Ledger, "append", after_a_start)
    told = still("cancel", plan, "--json").json
    (run,) = session.state().runs.values()
    assert [r["run"] for r in told["runs"]] == [run.key]
    assert run.cancelled_seq
    assert not session.state().wants(plan)


def test_a_plan_that_never_stands_still_is_not_cancelled_for_ever(
    still: Still,
    session: Session,
    recorder: Recorder,
    policy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = recorder.plan(policy, export={"prefill": [8], "primary": 8})
    recorder.run(plan)
    append = Ledger.append
    (started,) = [e for e in session.ledger.read() if e.type == RunStarted.TYPE]

    def after_a_start(ledger: Ledger, payloads: Any, **how: Any) -> Any:
        append(session.ledger, [RunStarted.model_validate(started.data)])
        return append(ledger, payloads, **how)

    monkeypatch.setattr(Ledger, "append", after_a_start)
    answer = still("cancel", plan)
    assert answer.code == 1
    assert "still cancel" in answer.err
