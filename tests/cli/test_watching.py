from __future__ import annotations

import dataclasses
import json
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress as Bars

from cli.narration import describe
from cli.watching import Drawn, watcher
from phases.reactor import Progress
from schemas.event import GENESIS, Actor, Event
from schemas.events import EVENTS

KEY = "ab" * 32

DATA: dict[str, dict[str, Any]] = {
    "artifact.published": {"kind": "dataset", "digest": KEY, "origin": "imported", "name": "n"},
    "plan.requested": {"plan": KEY},
    "run.started": {"slot": "training", "attempt": 2, "run": KEY},
    "run.succeeded": {"slot": "training", "seconds": 1.25, "run": KEY},
    "run.failed": {"slot": "training", "message": "It broke.", "remedy": "Mend it.", "run": KEY},
    "run.abandoned": {"slot": "training", "attempt": 1, "reason": "killed by SIGKILL"},
    "run.reused": {"slot": "training", "run": KEY},
    "run.retried": {"run": KEY},
    "gate.evaluated": {
        "gate": "export.parity",
        "subject": KEY,
        "verdict": "fail",
        "checks": [{"metric": "m", "value": 0.25, "op": "<=", "threshold": 0.125}],
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
    assert describe(_event(kind))


def test_a_fact_of_a_later_program_has_none_and_is_no_error() -> None:
    assert describe(_event("moon.landed", where="here")) == ""


def test_a_verdict_is_told_with_its_numbers() -> None:
    assert "export.parity" in describe(_event("gate.evaluated"))
    assert "m 0.25 <= 0.125" in describe(_event("gate.evaluated"))


def test_a_pipe_gets_new_events_and_a_progress_line_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with watcher(as_json=False, after=1) as listen:
        listen(_event("run.started", seq=1))
        listen(_event("run.started", seq=2))
        listen(_progress(1))
        listen(_progress(2))  # within five seconds of the one before
        listen(_event("artifact.published", seq=3, origin="run"))
        listen(_event("run.succeeded", seq=4))
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["run.started", "progress", "run.succeeded"]
    assert rows[1][1:] == ["training", "steps 1/44, loss 0.5"]


def test_json_gets_everything_new_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with watcher(as_json=True, after=1) as listen:
        listen(_event("run.started", seq=1))
        listen(_progress(3))
        listen(_event("run.succeeded", seq=2))
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0]["progress"] == {
        "run": KEY,
        "slot": "training",
        "attempt": 1,
        "label": "steps",
        "done": 3,
        "total": 44,
        "figures": {"loss": 0.5},
    }
    assert told[1]["event"]["type"] == "run.succeeded"


def test_a_bar_lives_as_long_as_its_run_and_restarts_with_each_label() -> None:
    screen = StringIO()
    bars = Bars(console=Console(file=screen, width=160), auto_refresh=False)
    listen = Drawn(bars)
    listen(_event("run.started", seq=1))
    listen(_progress(22))
    (bar,) = bars.tasks
    assert (bar.completed, bar.total) == (22, 44)
    assert bar.description == "training · steps"
    assert bar.fields["figures"] == "loss 0.5"
    listen(dataclasses.replace(_progress(1), label="held out", total=8))
    assert (bar.completed, bar.total, bar.description) == (1, 8, "training · held out")
    listen(_event("run.succeeded", seq=2))
    assert bars.tasks == []
    assert "training in 1.2 s" in screen.getvalue()


def test_a_run_that_was_live_before_we_looked_gets_a_bar_too() -> None:
    bars = Bars(console=Console(file=StringIO()), auto_refresh=False)
    Drawn(bars)(_progress(3))
    assert [bar.completed for bar in bars.tasks] == [3]


def test_at_a_terminal_the_bars_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.render.at_terminal", lambda: True)
    monkeypatch.setattr("cli.render.console", lambda: Console(file=StringIO()))
    with watcher(as_json=False, after=0) as listen:
        listen(_event("run.started", seq=1))
        listen(_progress(3))
