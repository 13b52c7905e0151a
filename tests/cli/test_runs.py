"""Seeing and steering runs: `runs`, `cancel`, `logs`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stillhouse import cancel as cancelling
from stillhouse.cli.main import main
from stillhouse.phases.workers import processes
from stillhouse.phases.workers.job import Outcome, WorkerFile
from stillhouse.registry.home import Home
from stillhouse.registry.state.runs import Run
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.events import (
    BytesSwept,
    PlanCancelled,
    RunAbandoned,
    RunCancelled,
    RunFailed,
    RunSucceeded,
    TagMoved,
)
from stillhouse.session import Session
from stillhouse.store.disk.durable import replace_durably

from .conftest import Still
from .recorded import Recorder
from .test_terminal import _at_terminal

FIRST = "export/prefill-8"


@pytest.fixture
def recorder(session: Session, tmp_path: Path) -> Recorder:
    return Recorder(session=session, scratch=tmp_path / "scratch")


@pytest.fixture
def done(recorder: Recorder, policy: Path) -> Digest:
    """A plan that came to a release."""
    plan = recorder.plan(policy)
    assert recorder.run(plan).done
    return plan


@pytest.fixture
def plan(recorder: Recorder, policy: Path) -> Digest:
    """A plan of which one run goes on, as far as is recorded."""
    recorder.going_on = {FIRST}
    plan = recorder.plan(policy, export={"prefill": [8], "primary": 8})
    recorder.run(plan)
    return plan


def _only_run(session: Session) -> Run:
    (run,) = session.state().runs.values()
    return run


def _common(run: Run) -> dict[str, Any]:
    return {
        "run": run.key,
        "phase": run.started.phase,
        "plan": run.started.plan,
        "slot": run.started.slot,
        "attempt": run.attempts,
    }


def _log(session: Session, run: Run) -> Path:
    path = session.home.run(run.key) / f"log.{run.attempts}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def _worker(home: Home, run: Run) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the run's lock, as a worker does, and would go on for long."""
    folder = home.run(run.key)
    folder.mkdir(parents=True, exist_ok=True)
    code = (
        "import fcntl, sys, time\n"
        f"lock = open({str(folder / 'lock')!r}, 'w')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('at work', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"at work\n"
        who = processes.identify(process.pid)
        assert who is not None
        note = WorkerFile(attempt=run.attempts, process=who)
        replace_durably(folder / "worker.json", canonical.encode(note.to_json()))
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def _meanwhile(*steps: Callable[[], object]) -> Iterator[None]:
    """Take steps in another thread, a moment apart."""

    def take() -> None:
        for step in steps:
            time.sleep(0.3)
            step()

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield
    finally:
        thread.join()


# -- runs ---------------------------------------------------------------------------------------


def test_runs_are_told_the_newest_last_with_why_they_failed(
    still: Still, recorder: Recorder, policy: Path
) -> None:
    recorder.failing = {FIRST}
    recorder.run(recorder.plan(policy))
    rows = still("runs").rows
    assert [row[:3] for row in rows][:2] == [
        [FIRST, "failed", "1"],
        ["export/prefill-16", "succeeded", "1"],
    ]
    assert rows[0][7:] == ["small", "x.broke: It broke."]
    assert rows[1][7:] == ["small", ""]


def test_runs_are_chosen_by_status_phase_and_plan(
    still: Still, recorder: Recorder, policy: Path, done: Digest
) -> None:
    recorder.failing = {FIRST}
    other = recorder.plan(policy, export={"prefill": [8], "primary": 8, "threads": 1}, name="other")
    recorder.run(other)
    assert [r["name"] for r in still("runs", "--status", "failed", "--json").json] == ["other"]
    phases = {r["phase"] for r in still("runs", "--phase", "export", "--json").json}
    assert phases == {"export"}
    told = still("runs", "--plan", other[:8], "--json").json
    assert [(r["slot"], r["status"], r["code"]) for r in told] == [(FIRST, "failed", "x.broke")]
    assert {r["plan"] for r in still("runs", "--plan", done[:8], "--json").json} == {done}


def test_runs_of_a_plan_are_also_those_that_it_reuses(
    still: Still, recorder: Recorder, policy: Path, done: Digest
) -> None:
    other = recorder.plan(policy, name="other")
    recorder.run(other)
    told = still("runs", "--plan", other, "--json").json
    assert {(r["slot"], r["plan"]) for r in told} >= {(FIRST, done), ("deployment", other)}


def test_only_the_newest_are_shown_and_the_others_counted(still: Still, done: Digest) -> None:
    assert done
    everything = still("runs", "--json").json
    answer = still("runs", "--limit", "2")
    assert [row[6] for row in answer.rows] == [r["run"] for r in everything[-2:]]
    assert f"{len(everything) - 2} older" in answer.err


@pytest.mark.parametrize(
    "arguments",
    [("--status", "gone"), ("--phase", "trainig"), ("--limit", "0"), ("--plan", "abcd")],
)
@pytest.mark.usefixtures("home")
def test_a_filter_that_means_nothing_is_bad_usage(still: Still, arguments: tuple[str, str]) -> None:
    assert still("runs", *arguments).code == 2


def test_a_live_run_is_told_with_how_far_it_is(
    still: Still, session: Session, plan: Digest
) -> None:
    run = _only_run(session)
    with _worker(session.home, run):
        note = {"label": "tracing", "done": 3, "total": 8, "figures": {"loss": 0.25}}
        (session.home.run(run.key) / "progress.json").write_bytes(canonical.encode(note))
        (told,) = still("runs", "--status", "running", "--json").json
        (row,) = still("runs").rows
    assert (told["progress"], told["plan"], told["ended"]) == (note, plan, None)
    assert told["seconds"] >= 0
    assert row[5] == "tracing 3/8, loss 0.25"
    assert row[8] == ""


def test_a_run_whose_worker_is_gone_is_told_as_such(still: Still, plan: Digest) -> None:
    assert plan
    assert "its worker is gone" in still("runs").rows[0][8]


def test_who_cancelled_a_run_and_why_is_told(still: Still, session: Session, plan: Digest) -> None:
    assert plan
    run = _only_run(session)
    session.ledger.append([RunCancelled(run=run.key, attempt=1, reason="wrong data")])
    session.ledger.append([RunAbandoned(**_common(run), reason="ended", stopped=True)])
    (told,) = still("runs", "--status", "cancelled", "--json").json
    assert told["reason"].startswith("cancelled by ")
    assert told["reason"].endswith(": wrong data")


# -- cancel -------------------------------------------------------------------------------------


def test_where_nobody_advances_the_worker_is_ended_and_nothing_is_started(
    still: Still, session: Session, plan: Digest
) -> None:
    run = _only_run(session)
    with _worker(session.home, run) as worker:
        answer = still("cancel", run.key[:8], "--reason", "wrong data")
        assert (answer.code, answer.rows) == (0, [["cancelled", FIRST, run.key]])
        assert worker.wait(timeout=10) != 0
    types = [event.type for event in session.ledger.read()]
    assert types.count("run.started") == 1
    assert session.state().wants(plan)
    assert session.reactor().view(plan).slot(FIRST).reason.code == "run_cancelled"


def test_the_run_of_a_slot_is_cancelled_and_can_be_retried(
    still: Still, session: Session, plan: Digest
) -> None:
    run = _only_run(session)
    with _worker(session.home, run):
        told = still("cancel", FIRST, "--json").json
    assert told == {
        "plan": None,
        "runs": [{"run": run.key, "slot": FIRST, "status": "cancelled"}],
        "spared": [],
    }
    assert [row[2] for row in still("retry").rows] == [run.key]
    assert session.reactor().view(plan).slot(FIRST).status == "ready"


def test_where_somebody_advances_they_end_it(still: Still, session: Session, plan: Digest) -> None:
    assert plan
    run = _only_run(session)
    other = session.reactor()
    with _worker(session.home, run), other.advancing() as mine:
        assert mine

        def advance() -> None:
            while other.state.runs[run.key].going_on:
                other.tick(start=False)
                time.sleep(0.05)

        with _meanwhile(advance):
            assert still("cancel", run.key).code == 0
    (wish,) = [e for e in session.ledger.read() if e.type == RunCancelled.TYPE]
    assert wish.data["attempt"] == 1


def test_a_worker_that_is_still_there_in_the_end_is_told_with_1(
    still: Still, session: Session, plan: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plan
    monkeypatch.setattr(cancelling, "PATIENCE", 0.2)
    run = _only_run(session)
    with _worker(session.home, run), session.reactor().advancing() as mine:
        assert mine  # and does nothing
        first, second = still("cancel", run.key), still("cancel", run.key)
    assert (first.code, first.rows) == (1, [["running", FIRST, run.key]])
    assert "still there" in first.err
    assert second.code == 1
    assert [e.type for e in session.ledger.read()].count(RunCancelled.TYPE) == 1


def test_a_run_that_waits_to_be_tried_again_is_not(
    still: Still, session: Session, plan: Digest
) -> None:
    run = _only_run(session)
    session.ledger.append([RunAbandoned(**_common(run), reason="killed")])
    assert session.reactor().view(plan).slot(FIRST).reason.code in ("backing_off", "retry")
    assert still("cancel", FIRST).rows == [["cancelled", FIRST, run.key]]
    assert session.reactor().view(plan).slot(FIRST).reason.code == "run_cancelled"
    assert "it was cancelled" in still("cancel", FIRST).err


def test_what_has_ended_can_not_be_cancelled_and_how_it_ended_is_told(
    still: Still, session: Session, recorder: Recorder, policy: Path, done: Digest
) -> None:
    before = session.ledger.head().seq
    answer = still("cancel", FIRST)
    assert answer.code == 2
    assert "it succeeded" in answer.err
    assert "still manifest" in still("cancel", done[:8]).err
    assert session.ledger.head().seq == before
    recorder.failing = {FIRST}
    recorder.run(recorder.plan(policy, export={"prefill": [8], "primary": 8, "threads": 1}))
    assert "it failed: It broke." in still("cancel", FIRST).err
    waiting = still("cancel", "conversion/prefill-8")
    assert waiting.code == 2
    assert "blocked" in waiting.err
    assert still("cancel", "nobody").code == 2


def test_a_target_that_is_told_well_already_is_not_told_as_unknown(
    still: Still, session: Session, plan: Digest
) -> None:
    short = still("cancel", plan[:3], "--json")
    assert (short.code, json.loads(short.err)["error"]["code"]) == (2, "ref.too_short")
    session.ledger.append([TagMoved(name="weights", digest=session.state().latest[Kind.POLICY])])
    other = still("cancel", "weights", "--json")
    assert (other.code, json.loads(other.err)["error"]["code"]) == (2, "ref.wrong_kind")
    nobody = still("cancel", "nobody", "--json")
    assert (nobody.code, json.loads(nobody.err)["error"]["code"]) == (2, "cancel.unknown")


def test_a_plan_is_cancelled_with_its_runs_and_not_advanced_until_it_is_asked_for(
    still: Still, session: Session, plan: Digest
) -> None:
    run = _only_run(session)
    with _worker(session.home, run):
        answer = still("cancel", plan[:8], "--reason", "no longer")
    assert answer.rows == [["cancelled", "plan", plan], ["cancelled", FIRST, run.key]]
    (event,) = [e for e in session.ledger.read() if e.type == PlanCancelled.TYPE]
    assert event.data["reason"] == "no longer"
    assert not session.state().wants(plan)
    again = still("cancel", plan[:8])
    assert again.code == 2
    assert "it was cancelled before" in again.err


def test_a_run_that_another_plan_needs_is_spared(
    still: Still, session: Session, recorder: Recorder, policy: Path, plan: Digest
) -> None:
    run = _only_run(session)
    other = recorder.plan(policy, export={"prefill": [8], "primary": 8}, name="other")
    recorder.run(other)
    with _worker(session.home, run) as worker:
        told = still("cancel", plan, "--json").json
        assert worker.poll() is None
    assert told == {"plan": plan, "runs": [], "spared": [{"run": run.key, "slot": FIRST}]}
    assert not session.state().runs[run.key].cancelled_seq
    assert session.state().wanted() == (other,)


# -- logs ---------------------------------------------------------------------------------------


def test_the_log_of_a_run_that_ended_is_the_stored_one_byte_for_byte(
    session: Session, plan: Digest, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert plan
    run = _only_run(session)
    junk = b"one\n\xff\x00\x1b[31mtwo\r\nlast"
    stored = session.store.put_bytes(junk).digest
    failed = RunFailed(
        **_common(run),
        code="x",
        message="m",
        remedy="r",
        seconds=1,
        log=stored,
    )
    session.ledger.append([failed])
    assert main(["logs", FIRST]) == 0
    assert capfdbinary.readouterr().out == junk
    assert main(["logs", run.key[:8], "--tail", "1"]) == 0
    assert capfdbinary.readouterr().out == b"last"
    assert main(["logs", run.key[:8], "--follow"]) == 1


def test_secrets_never_leave_a_log(
    still: Still, session: Session, plan: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plan
    session.home.config.write_text('secrets = ["MY_TOKEN"]\n', encoding="utf-8")
    monkeypatch.setenv("MY_TOKEN", "tell-nobody")
    _log(session, _only_run(session)).write_bytes(b"using tell-nobody at http://me:pw@host/\n")
    assert still("logs", FIRST).out == "using *** at http://***@host/\n"


def test_a_live_log_is_told_so_far_and_its_last_lines(
    still: Still, session: Session, plan: Digest
) -> None:
    assert plan
    run = _only_run(session)
    _log(session, run).write_bytes(b"".join(b"line %d\n" % n for n in range(5)))
    with _worker(session.home, run):
        assert still("logs", FIRST, "--tail", "2").out == "line 3\nline 4\n"
        assert len(still("logs", run.key).out.splitlines()) == 5
        assert still("logs", FIRST, "--tail", "0").out == ""


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_a_log_is_followed_until_the_run_ends(
    still: Still, session: Session, plan: Digest, status: str
) -> None:
    assert plan
    run = _only_run(session)
    log = _log(session, run)
    log.write_bytes(b"before\n")

    def say(text: bytes) -> None:
        with log.open("ab") as file:
            file.write(text)

    def end() -> None:
        say(b"after\n")
        ended = (
            RunSucceeded(**_common(run), outputs=(), seconds=1)
            if status == "succeeded"
            else RunFailed(**_common(run), code="x", message="It broke.", remedy="r", seconds=1)
        )
        session.ledger.append([ended])
        log.unlink()

    with _worker(session.home, run), _meanwhile(lambda: say(b"betw"), lambda: say(b"een\n"), end):
        answer = still("logs", FIRST, "--follow")
    assert answer.out == "before\nbetween\nafter\n"
    assert answer.code == (0 if status == "succeeded" else 1)
    assert ("It broke." in answer.err) == (status == "failed")


@pytest.mark.parametrize(("left", "code"), [(True, 0), (False, 1)])
def test_following_ends_when_the_worker_is_gone_and_nobody_would_record_it(
    still: Still, session: Session, plan: Digest, left: bool, code: int
) -> None:
    assert plan
    run = _only_run(session)
    _log(session, run).write_bytes(b"all\n")
    if left:
        outcome = Outcome(run=run.key, attempt=1, status="succeeded", seconds=1)
        path = session.home.run(run.key) / "outcome.json"
        path.write_bytes(canonical.encode(outcome.to_json()))
    answer = still("logs", FIRST, "--follow")
    assert (answer.code, answer.out) == (code, "all\n")
    assert ("worker is gone" in answer.err) == (not left)


def test_an_attempt_that_never_was_or_left_nothing_is_bad_input(
    still: Still, session: Session, plan: Digest
) -> None:
    assert plan
    run = _only_run(session)
    assert "its latest is 1" in still("logs", FIRST, "--attempt", "2").err
    session.ledger.append([RunAbandoned(**_common(run), reason="killed")])
    answer = still("logs", FIRST)
    assert answer.code == 2
    assert run.key[:SHORT] in answer.err
    assert still("logs", "nobody").code == 2
    _log(session, run).write_bytes(b"left\n")
    assert still("logs", FIRST, "--attempt", "1").out == "left\n"


def test_what_could_steer_a_terminal_is_escaped_there(
    session: Session, home: Home, plan: Digest
) -> None:
    assert plan
    _log(session, _only_run(session)).write_bytes(b"a\tb\x1b[2Jc\x07\xff\n")
    code, seen = _at_terminal("logs", FIRST, cwd=home.root.parent)
    assert code == 0
    assert "\x1b" not in seen
    assert "\x07" not in seen
    assert "a       b\\x1b[2Jc\\x07" in seen


def test_a_log_whose_older_part_a_power_cut_emptied_is_told(
    still: Still, session: Session, plan: Digest
) -> None:
    assert plan
    log = _log(session, _only_run(session))
    log.write_bytes(b"newest\n")
    log.with_name(f"{log.name}.1").touch()
    assert still("logs", FIRST).out == "newest\n"


def test_the_stored_log_of_an_earlier_attempt_is_found_until_it_is_swept(
    still: Still, session: Session, plan: Digest
) -> None:
    assert plan
    run = _only_run(session)
    stored = session.store.put_bytes(b"first\n").digest
    failed = RunFailed(
        **_common(run), code="x", message="m", remedy="r", transient=True, seconds=1, log=stored
    )
    again = run.started.model_copy(update={"attempt": 2})
    session.ledger.append([failed])
    session.ledger.append([again])
    assert still("logs", FIRST, "--attempt", "1").out == "first\n"
    session.ledger.append([BytesSwept(artifacts=(), orphans=(stored,), objects=1, size=6)])
    assert still("logs", FIRST, "--attempt", "1").code == 2
