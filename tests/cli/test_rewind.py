"""`still rewind`: real workers make what was given up again, and it is proved to be the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stillhouse.phases.reactor.repeat import repeat_key
from stillhouse.session import Session
from stillhouse.store.disk.hashing import hash_bytes

from .conftest import Answer, Still
from .repeatable import COUNTED, SAID, Repeatable


@pytest.fixture
def runs(session: Session, place: Path, monkeypatch: pytest.MonkeyPatch) -> Repeatable:
    """Records runs that workers can repeat."""
    found = Repeatable(session, place / "phase")
    found.install(monkeypatch)
    return found


def _types(session: Session) -> list[str]:
    return [event.type for event in session.ledger.read()]


def test_an_evicted_artifact_comes_back_equal_and_no_new_run_is_recorded(
    still: Still, session: Session, runs: Repeatable
) -> None:
    digest = runs.ran("say", SAID, runs.published(b"input"))
    still("evict", digest)
    before = session.state().runs
    answer = still("rewind", digest, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["present"]
    assert session.store.read(digest) == SAID
    assert session.state().absent == {}
    assert session.state().runs.keys() == before.keys()
    assert _types(session)[-1] == "artifact.restored"
    assert list((session.home.root / "runs").iterdir()) == []


def test_inputs_that_are_gone_are_made_first(
    still: Still, session: Session, runs: Repeatable
) -> None:
    first = runs.ran("say", SAID)
    second = runs.ran("count", COUNTED, first)
    for digest in (first, second):
        assert still("evict", digest).code == 0
    plan = still("rewind", second, "--dry-run")
    assert [row[:2] for row in plan.rows] == [["repeat", "tested/say"], ["repeat", "tested/count"]]
    assert session.state().absent.keys() == {first, second}
    assert still("rewind", second).code == 0
    assert session.state().absent == {}
    assert session.store.read(second) == COUNTED


def test_a_step_that_makes_something_else_is_named_and_recorded(
    still: Still, session: Session, runs: Repeatable
) -> None:
    other = b"what is made on no machine"
    digest = runs.ran("say", other)
    after = runs.ran("count", COUNTED, digest)
    for gone in (digest, after):
        still("evict", gone)
    answer = still("rewind", after)
    assert answer.code == 1
    (row,) = [row for row in answer.rows if row[0] == "differed"]
    made = hash_bytes(SAID).digest
    assert row[1:] == ["tested/say", "seen", f"recorded {digest}", f"made {made}"]
    assert "not deterministic" in answer.err
    (event,) = [e for e in session.ledger.read() if e.type == "run.differed"]
    assert (event.data["expected"], event.data["made"]) == (digest, made)
    assert session.state().absent.keys() == {digest, after}


def test_tools_that_changed_are_told_before_anything_starts(still: Still, runs: Repeatable) -> None:
    digest = runs.ran("say", SAID)
    still("evict", digest)
    told = still("rewind", digest, "--dry-run")
    assert "phase tested, version 1" in told.err  # this program's catalog has no such phase


def test_a_run_that_fails_now_is_told_and_nothing_is_recorded(
    still: Still, session: Session, runs: Repeatable
) -> None:
    digest = runs.ran("PhaseError", SAID)
    still("evict", digest)
    before = len(_types(session))
    answer = still("rewind", digest)
    assert answer.code == 1
    assert "What happened." in answer.err
    assert len(_types(session)) == before


def test_what_is_here_is_not_made_again(still: Still, session: Session, runs: Repeatable) -> None:
    digest = runs.ran("hold", SAID)
    answer = still("rewind", digest)
    assert (answer.code, answer.rows[0][0]) == (0, "present")
    told = still("rewind", digest, "--json").json
    assert (told["present"], told["until"]) == (True, None)
    assert session.store.has(digest)
    still("gc", "--grace", "0")
    assert still("rewind", digest, "--json").json["until"] == session.state().condemned[digest]


def test_what_no_run_made_can_only_be_repaired(
    still: Still, session: Session, runs: Repeatable
) -> None:
    digest = runs.published(b"input")
    for _ in range(2):
        still("gc", "--grace", "0")
    assert digest in session.state().absent
    answer = still("rewind", digest)
    assert answer.code == 2
    assert f"still repair {digest[:12]} --from" in answer.err


@pytest.mark.parametrize("wrong", [[], ["nosuch"], ["--dry"]])
def test_wrong_usage_is_told(still: Still, session: Session, wrong: list[str]) -> None:
    assert session.home.exists
    assert still("rewind", *wrong).code == 2


def _begun(session: Session, digest: str) -> subprocess.Popen[bytes]:
    code = "import sys; from stillhouse.cli.main import main; sys.exit(main())"
    ours = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", code, "--registry", str(session.home.root), "rewind", digest],
        env=os.environ | {"PYTHONPATH": f"{ours}:{os.environ['PYTHONPATH']}"},
        stdout=subprocess.DEVNULL,
    )


def _signed(runs: Repeatable) -> int:
    """The process of the worker that holds."""
    sign = runs.folder / "sign"
    deadline = time.monotonic() + 30
    while not (sign.is_file() and sign.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(sign.read_text())


def _gone(pid: int) -> bool:
    try:
        return b") Z " in Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ctrl_c_ends_the_worker_and_asking_again_goes_on(
    session: Session, runs: Repeatable, still: Still
) -> None:
    digest = runs.ran("hold", SAID)
    still("evict", digest)
    command = _begun(session, digest)
    worker = _signed(runs)
    command.send_signal(signal.SIGINT)
    assert command.wait(30) == 130
    assert _gone(worker)
    run = session.state().artifacts[digest][0].run
    assert run is not None
    assert (session.home.run(repeat_key(run)) / "job.json").is_file()  # where it goes on
    assert session.state().absent.keys() == {digest}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_a_killed_one_left_at_work_is_followed_and_its_inputs_are_spared(
    session: Session, runs: Repeatable, still: Still
) -> None:
    source = runs.published(b"input")
    still("gc", "--grace", "0")  # condemned before the worker begins: its lease does not help
    digest = runs.ran("hold", SAID, source)
    still("evict", digest)
    command = _begun(session, digest)
    worker = _signed(runs)
    command.kill()
    command.wait()
    for _ in range(3):
        assert still("gc", "--grace", "0").code == 0
    assert session.store.read(source) == b"input"
    os.kill(worker, signal.SIGKILL)
    while not _gone(worker):
        time.sleep(0.01)


def test_killed_between_the_work_and_its_record_it_takes_what_the_worker_left(
    session: Session, runs: Repeatable, still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`count` would make something else the second time, for its scratch survives."""
    digest = runs.ran("count", COUNTED)
    still("evict", digest)

    def dying(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("stillhouse.rewind._recorded", dying)
        assert still("rewind", digest).code == 130
    for _ in range(3):
        still("gc", "--grace", "0")
    answer: Answer = still("rewind", digest)
    assert answer.code == 0, answer.out
    assert session.store.read(digest) == COUNTED
