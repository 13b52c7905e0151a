"""Logs of runs, read by a program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillhouse.logs import find_log
from stillhouse.registry.home import Home
from stillhouse.schemas.events import RunFailed, RunStarted
from stillhouse.session import Session, make_registry, open_registry

RUN: dict[str, Any] = {
    "run": "a" * 64,
    "phase": "training",
    "plan": "d" * 64,
    "slot": "training",
    "attempt": 1,
}


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A registry of which one run goes on, as far as is recorded."""
    home = Home(tmp_path / ".still")
    make_registry(home)
    found = open_registry(home)
    found.ledger.append([RunStarted(**RUN, phase_version=1, inputs=(), params={}, tools={})])
    return found


def _failed(session: Session, **changes: Any) -> RunFailed:
    log = session.store.put_bytes(b"one\ntwo\n").digest
    how: dict[str, Any] = {"code": "x", "message": "It broke.", "remedy": "r", "seconds": 1}
    return RunFailed(**RUN, **how, log=log, **changes)


def test_a_stored_log_is_read_and_why_its_run_failed_is_said(session: Session) -> None:
    session.ledger.append([_failed(session)])
    log = find_log(session, "aaaa")
    assert b"".join(log.read()) == b"one\ntwo\n"
    assert b"".join(log.read(tail=1)) == b"two\n"
    assert log.why_unsuccessful() == "Attempt 1 is over: it failed: It broke."


def test_an_attempt_that_another_one_followed_did_not_succeed(session: Session) -> None:
    session.ledger.append([_failed(session, transient=True)])
    again = RUN | {"attempt": 2, "phase_version": 1, "inputs": (), "params": {}, "tools": {}}
    session.ledger.append([RunStarted(**again)])
    log = find_log(session, "aaaa", attempt=1)
    assert b"".join(log.read(follow=True)) == b"one\ntwo\n"
    assert log.why_unsuccessful() == "Attempt 1 did not succeed; the latest is 2."


def test_whoever_follows_may_stop_at_any_piece(session: Session) -> None:
    folder = session.home.run(RUN["run"])
    folder.mkdir(parents=True)
    (folder / "log.1").write_bytes(b"so far\nhalf")
    with session.reactor().advancing() as mine:
        assert mine  # or nobody would be there to record how it ends
        pieces = find_log(session, "aaaa").read(follow=True)
        assert next(pieces) == b"so far\n"
        with (folder / "log.1").open("ab") as file:
            file.write(b" a line\n")
        assert next(pieces) == b"half a line\n"
        del pieces  # a file that stays open is a ResourceWarning, which fails the test
