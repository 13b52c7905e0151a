from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from stillhouse.cli.screen import here
from stillhouse.cli.views.board import ENDS, Board
from stillhouse.cli.views.events import describe
from stillhouse.cli.views.follow import Plain, watcher
from stillhouse.phases.reactor.oversight import Progress
from stillhouse.schemas.event import GENESIS, Actor, Event
from stillhouse.schemas.events import EVENTS

KEY = "ab" * 32

DATA: dict[str, dict[str, Any]] = {
    "artifact.published": {"kind": "dataset", "digest": KEY, "origin": "imported", "name": "n"},
    "plan.requested": {"plan": KEY, "priority": 3},
    "plan.cancelled": {"plan": KEY, "reason": "another one"},
    "run.started": {"slot": "training", "attempt": 2, "run": KEY},
    "run.succeeded": {"slot": "training", "seconds": 1.25, "run": KEY},
    "run.failed": {"slot": "training", "message": "It broke.", "remedy": "Mend it.", "run": KEY},
    "run.abandoned": {"slot": "training", "attempt": 1, "reason": "killed by SIGKILL"},
    "run.cancelled": {"attempt": 1, "run": KEY, "reason": ""},
    "run.reused": {"slot": "training", "run": KEY},
    "run.retried": {"run": KEY},
    "gate.evaluated": {
        "gate": "export.parity",
        "subject": KEY,
        "verdict": "fail",
        "checks": [
            {"verdict": "fail", "metric": "m", "value": 0.25, "op": "<=", "threshold": 0.125}
        ],
    },
    "gate.waived": {
        "gate": "export.parity",
        "subject": KEY,
        "until": "2999",
        "author": "ann",
        "reason": "known",
    },
    "tag.moved": {"name": "mine", "digest": KEY},
    "release.cut": {"release": KEY, "tier": "tier_2", "plan": KEY},
    "bytes.condemned": {"artifacts": [KEY], "objects": 2, "size": 9, "until": "2999"},
    "bytes.reprieved": {"artifacts": [KEY], "objects": 2},
    "bytes.swept": {"artifacts": [KEY], "objects": 2, "size": 9},
    "artifact.evicted": {"digest": KEY, "run": KEY, "size": 9},
    "artifact.restored": {"digest": KEY, "how": "run"},
    "run.differed": {"run": KEY, "role": "checkpoint", "expected": KEY, "made": "cd" * 32},
}
"""What of each fact is told."""


def _event(kind: str, seq: int = 1, **data: Any) -> Event:
    return Event(
        seq=seq,
        prev=GENESIS,
        ts="2026-11-22T10:00:00.000000Z",
        type=kind,
        v=1,
        actor=Actor(user="u", host="h"),
        batch="1/1",
        data=DATA.get(kind, {}) | data,
    )


def _progress(done: int) -> Progress:
    return Progress(
        run=KEY,
        slot="training",
        attempt=1,
        label="steps",
        done=done,
        total=44,
        figures={"loss": 0.5},
    )


@pytest.mark.parametrize("kind", EVENTS)
def test_every_fact_has_words(kind: str) -> None:
    assert describe(here(), _event(kind))


def test_a_fact_of_a_later_program_has_none_and_is_no_error() -> None:
    assert describe(here(), _event("moon.landed", where="here")) == ""


def test_a_verdict_is_told_with_its_numbers() -> None:
    assert "export.parity" in describe(here(), _event("gate.evaluated"))
    assert "m 0.25 <= 0.125" in describe(here(), _event("gate.evaluated"))


def test_a_pipe_gets_new_events_and_a_progress_line_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with watcher(here(), as_json=False, after=1) as screen:
        screen.hear(_event("run.started", seq=1))
        screen.hear(_event("run.started", seq=2))
        screen.hear(_progress(1))
        screen.hear(_progress(2))  # within five seconds of the one before
        screen.hear(dataclasses.replace(_progress(1), label="held out"))
        screen.hear(_event("artifact.published", seq=3, origin="run"))
        screen.hear(_event("run.succeeded", seq=4))
        screen.draw()
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["run.started", "progress", "progress", "run.succeeded"]
    assert rows[1][1:] == ["training", "steps 1/44, loss 0.5"]
    assert rows[2][1:] == ["training", "held out 1/44, loss 0.5"]


def test_of_runs_that_ended_nothing_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    plain, board = Plain(here(), 0, lambda: 0.0), Board(screen=here(), clock=lambda: 0.0)
    for end in sorted(ENDS):
        for notice in (_progress(1), _event(end, run=KEY)):
            plain.hear(notice)
            board.note(notice)
    # Told each time, although no time has passed: nothing was known of it.
    assert capsys.readouterr().out.count("steps 1/44") == len(ENDS)
    assert board.paces == {}


def test_json_gets_everything_new_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with watcher(here(), as_json=True, after=1) as screen:
        screen.hear(_event("run.started", seq=1))
        screen.hear(_progress(3))
        screen.hear(_event("run.succeeded", seq=2))
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0]["progress"] == {
        "run": KEY,
        "slot": "training",
        "attempt": 1,
        "label": "steps",
        "done": 3,
        "total": 44,
        "figures": {"loss": 0.5},
        "at": 0.0,
    }
    assert told[1]["event"]["type"] == "run.succeeded"
