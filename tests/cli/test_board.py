"""The board as a person sees it: the very lines, over plans of a real registry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from stillhouse.cli.screen import Screen
from stillhouse.cli.views.board import Board
from stillhouse.cli.views.follow import Drawn
from stillhouse.phases.reactor.oversight import Progress
from stillhouse.phases.reactor.recording import started
from stillhouse.registry.planning.decide import Start
from stillhouse.registry.planning.views import PlanView
from stillhouse.schemas.digest import Digest
from stillhouse.session import Session

from .recorded import Recorder

WIDTH = 96
SCREEN = Screen(out=StringIO(), err=StringIO(), tty=True, notes_tty=True)
KEY = "ab" * 32
OTHER = {"export": {"prefill": [32], "primary": 32, "decode_capacity": 32}}

GOING_ON = """
moves  <digest>  0/7 filled · 1 running · 1 ready · 5 waiting  gates: 1 pass
  ▶ export/prefill-32        running  ━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌  20/40 steps  2/s  10.0 s left  loss…
  · export/decode-32         ready    no run with this key has succeeded
  · conversion/prefill-32    waiting  an input is still being made: export from export/prefill-…
  · conversion/decode-32     waiting  an input is still being made: export from export/decode-32
  · verification/prefill-32  waiting  an input is still being made: mlpackage from conversion/p…
  · verification/decode-32   waiting  an input is still being made: mlpackage from conversion/d…
  · deployment               waiting  other slots of the plan are not settled: export/prefill-32
"""


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def recorder(session: Session, tmp_path: Path) -> Recorder:
    return Recorder(session=session, scratch=tmp_path / "scratch")


def _shown(lines: Sequence[Text]) -> list[str]:
    """The lines as they appear, with digests replaced."""
    console = Console(record=True, width=WIDTH, file=StringIO())
    console.print(Group(*lines))
    text = re.sub(r"\b[0-9a-f]{12}\b", "<digest>", console.export_text())
    return [line.rstrip() for line in text.splitlines()]


def _start(session: Session, plan: Digest, slot: str) -> tuple[PlanView, Digest]:
    """Record that this slot's run was started; the plan as it then stands, and the run key."""
    reactor = session.reactor()
    start = Start(plan=plan, view=reactor.view(plan).slot(slot))
    session.ledger.append([started(start, reactor.site().environment)])
    reactor.refresh()
    assert start.view.key is not None
    return reactor.view(plan), start.view.key


def _progress(run: Digest, done: int, label: str = "steps") -> Progress:
    return Progress(
        run=run,
        slot="export/prefill-8",
        attempt=1,
        label=label,
        done=done,
        total=40,
        figures={"loss": 0.51234567},
    )


def _view(session: Session, plan: Digest) -> PlanView:
    return session.reactor().view(plan)


def test_a_plan_that_is_going_on(session: Session, recorder: Recorder, policy: Path) -> None:
    recorder.run(recorder.plan(policy))  # so that the environment is judged
    plan, clock = recorder.plan(policy, name="moves", **OTHER), Clock()
    board = Board(screen=SCREEN, clock=clock)
    view, key = _start(session, plan, "export/prefill-32")
    for done in (10, 20):
        board.note(_progress(key, done))
        clock.now += 5
    assert _shown(board.lines([view], 20)) == GOING_ON.splitlines()[1:]


def test_a_plan_that_a_gate_holds(session: Session, recorder: Recorder, policy: Path) -> None:
    recorder.measured = {"export/prefill-8": {"parity.max_abs": 0.5}}
    plan = recorder.plan(policy)
    recorder.run(plan)
    lines = _shown(Board(screen=SCREEN, clock=Clock()).lines([_view(session, plan)], 20))
    assert lines[0] == "small  <digest>  4/7 filled · 3 blocked  gates: 2 pass, 1 fail"
    assert lines[1] == "  ✓ export/prefill-8         filled   1.0 s"
    assert lines[3].startswith(
        "  ✗ conversion/prefill-8     blocked  a gate it needs did not pass: export.parity"
    )
    assert lines[-1] == (
        "  ✗ export.parity            fail     export/prefill-8: parity.max_abs 0.5 <= 0.1"
    )


def test_a_plan_that_is_done_is_one_line(
    session: Session, recorder: Recorder, policy: Path
) -> None:
    plan = recorder.plan(policy)
    recorder.run(plan)
    lines = _shown(Board(screen=SCREEN, clock=Clock()).lines([_view(session, plan)], 20))
    assert lines == ["small  <digest>  7/7 filled  gates: 3 pass  done"]


def test_of_many_plans_those_are_shown_that_move_and_the_others_are_counted(
    session: Session, recorder: Recorder, policy: Path
) -> None:
    finished = recorder.plan(policy)
    recorder.run(finished)
    export = {"prefill": [16], "primary": 16}
    waiting = [
        recorder.plan(policy, name=f"wait-{place:02}", export={**export, "decode_capacity": place})
        for place in range(32, 52)
    ]
    moving = recorder.plan(policy, name="moves", **OTHER)
    view, key = _start(session, moving, "export/prefill-32")
    reactor = session.reactor()
    board = Board(screen=SCREEN, clock=Clock())
    board.note(_progress(key, 1))
    lines = _shown(board.lines([*(reactor.view(p) for p in (finished, *waiting)), view], 9))
    assert [line[:27].rstrip() for line in lines] == [
        "moves  <digest>  0/7 filled",
        "  ▶ export/prefill-32",
        "  · export/decode-32",
        "wait-32  <digest>  3/7 fill",
        "  · export/decode-32",
        "wait-33  <digest>  3/7 fill",
        "  · export/decode-33",
        "wait-34  <digest>  3/7 fill",
        "  plans: 17 more · 1 done",
    ]


def test_never_more_lines_than_fit(session: Session, recorder: Recorder, policy: Path) -> None:
    views = [_view(session, recorder.plan(policy, name=f"p{place}")) for place in range(3)]
    board = Board(screen=SCREEN, clock=Clock())
    assert all(0 < len(board.lines(views, height)) <= height for height in range(2, 30))


def test_a_new_label_begins_a_new_rate() -> None:
    clock = Clock()
    board = Board(screen=SCREEN, clock=clock)
    for place, (label, done) in enumerate([("a", 10), ("a", 20), ("b", 0)]):
        clock.now = place
        board.note(_progress(KEY, done, label))
    pace = board.paces[KEY]
    assert (pace.rate, pace.left) == (None, None)
    clock.now = 10
    board.note(_progress(KEY, 16, "b"))
    assert (pace.rate, pace.left) == (2, 12)


def test_events_scroll_by_above_and_the_board_follows_them(
    session: Session, recorder: Recorder, policy: Path
) -> None:
    finished = recorder.plan(policy)
    recorder.run(finished)
    old = session.ledger.head().seq
    screen = StringIO()
    console = Console(file=screen, width=WIDTH, height=30, force_terminal=True, color_system=None)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        drawn = Drawn(SCREEN, old, live, Clock())
        reactor = session.reactor(drawn.hear)
        drawn.follow(reactor)
        drawn.draw()
        assert "small" in screen.getvalue()
        assert "run.succeeded" not in screen.getvalue(), "that is old news"
        recorder.measured = {"export/prefill-32": {"parity.max_abs": 0.5}}
        recorder.run(recorder.plan(policy, name="moves", **OTHER))
        reactor.refresh()
        drawn.draw()
        shown = screen.getvalue()
        drawn.draw()
        assert screen.getvalue() == shown, "nothing new is not drawn again"
    assert "run.succeeded      export/prefill-32 in 1.0 s" in shown
    assert "gate.evaluated     export.parity over" in shown
    assert "4/7 filled · 3 blocked" in shown
