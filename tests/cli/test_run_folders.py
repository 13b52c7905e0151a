"""`still gc` and what runs left in their folders: what goes, what stays, and what is said."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stillhouse.phases.reactor import folders as runfolders
from stillhouse.phases.reactor.folders import RunFolders
from stillhouse.phases.reactor.repeat import repeat_key
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import PlanCancelled, RunAbandoned, RunCancelled, RunRetried
from stillhouse.session import Session

from .conftest import Still
from .recorded import Recorder

FIRST = "export/prefill-8"
OLD = 15
"""Days; the grace is 14."""


@pytest.fixture
def recorder(session: Session, place: Path) -> Recorder:
    return Recorder(session, place)


def _days(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(
        "stillhouse.collect.clock", lambda: datetime.now(UTC) + timedelta(days=count)
    )


def _failed(recorder: Recorder, policy: Path, **changes: Any) -> tuple[Digest, Digest]:
    """A plan whose first run failed, and that run."""
    recorder.failing = {FIRST}
    plan = recorder.plan(policy, export={"prefill": [8], "primary": 8}, **changes)
    recorder.run(plan)
    key = recorder.session.reactor().view(plan).slot(FIRST).key
    assert key is not None
    return plan, key


def _left(session: Session, key: str) -> Path:
    """What the worker of a run left: 1000 bytes of scratch, and what else it saw."""
    folder = session.home.run(key)
    (folder / "work").mkdir(parents=True)
    (folder / "work" / "state").write_bytes(b"x" * 1000)
    (folder / "lock").touch()
    return folder


def _fates(still: Still, *more: str) -> dict[str, tuple[str, str]]:
    told = still("gc", "--json", "--all", *more)
    assert told.code == 0, told.err
    return {f["name"]: (f["fate"], f["why"]) for f in told.json["run_folders"]}


def test_what_a_failed_run_of_a_cancelled_plan_left_goes_after_the_grace(
    still: Still,
    session: Session,
    recorder: Recorder,
    policy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan, key = _failed(recorder, policy)
    folder = _left(session, key)
    session.ledger.append([PlanCancelled(plan=plan)])
    assert _fates(still) == {key: ("keep", "it is younger than the grace period")}
    _days(monkeypatch, OLD)
    dry = still("gc", "--dry-run")
    why = "the run failed longer ago than the grace"
    assert ["remove", key, "run folder", "1000", FIRST, why] in dry.rows
    assert ["total", "run folders removed now", "1", "1000"] in dry.rows
    assert (folder / "work" / "state").exists()
    assert still("du", "--json").json["run_folders"] == 1000
    told = still("gc", "--json").json
    assert told["bytes"]["run_folders"] == 1000
    assert [f["name"] for f in told["run_folders"]] == [key]
    assert list(session.home.runs.iterdir()) == []
    assert still("du", "--json").json["run_folders"] == 0
    assert _fates(still) == {}


def test_what_is_condemned_beside_a_folder_that_goes_is_told_as_condemned_now(
    still: Still, session: Session, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger is read on before a folder goes, and then knows the decision itself."""
    (place / "a.txt").write_text("mine", encoding="utf-8")
    digest = still("publish", "a.txt", "--kind", "source").out.strip()
    _left(session, "ab" * 32)
    _days(monkeypatch, OLD)
    told = still("gc", "--json").json
    assert [f["fate"] for f in told["run_folders"]] == ["remove"]
    assert [(a["digest"], a["fate"]) for a in told["artifacts"]] == [(digest, "condemn")]
    assert {"reason": "condemned now", "artifacts": 1, "bytes": 4} in told["totals"]


def test_what_a_plan_that_is_asked_for_would_take_up_stays_however_old(
    still: Still,
    session: Session,
    recorder: Recorder,
    policy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when it is another plan than the one that the run was started for."""
    first, key = _failed(recorder, policy)
    second, same = _failed(recorder, policy, name="other")
    assert (first, key) != (second, same)
    assert key == same
    folder = _left(session, key)
    _days(monkeypatch, 365)
    for plan in (first, second):
        fate, why = _fates(still)[key]
        assert fate == "keep"
        assert "would take it up" in why
        assert (folder / "work" / "state").exists()
        session.ledger.append([PlanCancelled(plan=plan)])
    assert _fates(still)[key][0] == "remove"
    assert not folder.exists()


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_a_run_left_that_was_cancelled_or_abandoned_goes_too(
    still: Still,
    session: Session,
    recorder: Recorder,
    policy: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    cancelled: bool,
) -> None:
    recorder.going_on = {FIRST}
    plan = recorder.plan(policy, export={"prefill": [8], "primary": 8})
    recorder.run(plan)
    (run,) = session.state().running()
    folder = _left(session, run.key)
    session.ledger.append([PlanCancelled(plan=plan)])
    _days(monkeypatch, OLD)
    assert _fates(still)[run.key] == ("keep", "the run goes on, or its end is not recorded yet")
    ended = RunAbandoned(
        run=run.key, phase="export", plan=plan, slot=FIRST, attempt=1, reason="killed"
    )
    wish = [RunCancelled(run=run.key, attempt=1)] if cancelled else []
    session.ledger.append([*wish, ended])
    how = "was cancelled" if cancelled else "was abandoned"
    assert _fates(still)[run.key] == ("remove", f"the run {how} longer ago than the grace")
    assert not folder.exists()


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / "lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def test_what_is_nobodys_goes_unless_a_live_process_holds_its_lock(
    still: Still,
    session: Session,
    recorder: Recorder,
    policy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The folder of a rewind that was given up, and one of a start that was never recorded."""
    _, key = _failed(recorder, policy)
    repeated, unknown = repeat_key(key), "ab" * 32
    for name in (repeated, unknown):
        _left(session, name)
    assert {fate for fate, _ in _fates(still).values()} == {"keep"}
    _days(monkeypatch, OLD)
    with _held(session.home.run(repeated)):
        assert _fates(still) == {
            unknown: ("remove", "no run of it was recorded"),
            repeated: ("keep", "a live worker has it"),
        }
    assert _fates(still) == {repeated: ("remove", "a rewind was given up")}
    assert list(session.home.runs.iterdir()) == []


def test_what_is_no_folder_of_a_run_is_left_alone(
    still: Still, session: Session, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "file").touch()
    (session.home.runs / ("ab" * 32)).symlink_to(place / "mine")
    (session.home.runs / "notes").mkdir()
    _days(monkeypatch, OLD)
    assert _fates(still) == {}
    assert (place / "mine" / "file").exists()
    assert (session.home.runs / "notes").exists()


def test_nobody_goes_on_from_a_folder_whose_removal_was_interrupted(
    still: Still, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _left(session, "ab" * 32)
    _days(monkeypatch, OLD)

    def killed(path: Path) -> None:
        if path.exists():
            (path / "work" / "state").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runfolders, "_remove", killed)
        assert still("gc").code == 130
    assert not folder.exists()
    ((name, (fate, why)),) = _fates(still).items()
    assert (name, fate, why) == (f"removed-{'ab' * 32}", "remove", "its removal was interrupted")
    assert list(session.home.runs.iterdir()) == []


@pytest.mark.parametrize("retried", [False, True])
def test_a_folder_that_is_taken_up_after_the_look_stays(
    session: Session, recorder: Recorder, policy: Path, *, retried: bool
) -> None:
    """Without this a run that died again meanwhile would lose the outcome that it left."""
    plan, key = _failed(recorder, policy)
    folder = _left(session, key)
    session.ledger.append([PlanCancelled(plan=plan)])
    state = session.state()
    folders = RunFolders(session.home, state, session.config.limits())
    late = "2999-01-01T00:00:00.000000Z"
    (found,) = folders.look(late, late)
    assert found.over
    started = state.runs[key].started
    if retried:
        from stillhouse.recipes import request

        session.ledger.append([RunRetried(run=key)])
        request(session, plan)
    else:
        session.ledger.append([started.model_copy(update={"attempt": 2})])
    assert not folders.remove(found, late, late, refresh=session.state)
    assert (folder / "work" / "state").exists()
