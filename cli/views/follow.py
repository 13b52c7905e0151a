"""What a person or a script sees while plans advance.

Three watchers for the reactor's notices: JSON lines, plain lines for a pipe, and a live board at a
terminal. Rules: events that were recorded before the command began are not told again; nothing is
kept of a run that has ended; between two notices nothing is drawn unless somebody asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from stillhouse.cli.screen import here
from stillhouse.cli.views import render
from stillhouse.cli.views.board import ENDS, Board
from stillhouse.cli.views.events import describe
from stillhouse.registry.planning.views import PlanView
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.event import Event

if TYPE_CHECKING:
    from rich.live import Live

    from stillhouse.phases.reactor.oversight import Progress
    from stillhouse.phases.reactor.reactor import Notice, Reactor

_PLAIN_SECONDS = 5.0
"""Between two progress lines of one run in a pipe."""

_SPARE_LINES = 4
"""Lines of the terminal that the board leaves for what scrolls by."""


class Watcher(Protocol):
    """Tells what happens."""

    def hear(self, notice: Notice) -> None:
        """A new event, or progress of a live run."""
        ...

    def follow(self, reactor: Reactor) -> None:
        """Whom to ask how plans stand."""
        ...

    def draw(self) -> None:
        """Bring what is shown up to date; asked before every wait."""
        ...


@contextmanager
def watcher(*, as_json: bool, after: int) -> Iterator[Watcher]:
    """The watcher that fits where stdout goes. `after`: the last event that is old news."""
    if as_json:
        yield Told(after, _tell_json)
    elif render.at_terminal():
        with _live() as live:
            yield Drawn(after, live, time.monotonic)
    else:
        yield Told(after, Plain(time.monotonic))


class Told:
    """What happens, one line after the other."""

    def __init__(self, after: int, tell: Callable[[Notice], None]) -> None:
        self._after, self._tell = after, tell

    def hear(self, notice: Notice) -> None:
        """Tell it if it is news."""
        if not isinstance(notice, Event) or notice.seq > self._after:
            self._tell(notice)

    def follow(self, reactor: Reactor) -> None:
        """Nothing is asked."""

    def draw(self) -> None:
        """Everything was told when it happened."""


def _tell_json(notice: Notice) -> None:
    if isinstance(notice, Event):
        render.json_line({"event": notice.to_json()})
    else:
        render.json_line({"progress": {**vars(notice), "figures": dict(notice.figures)}})


class Plain:
    """One line for each event, and for each live run now and then one of its progress."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._told: dict[Digest, tuple[str, float]] = {}
        """Live run -> label and time of the last line."""

    def __call__(self, notice: Notice) -> None:
        """Tell it, unless this run's progress was told a moment ago."""
        if isinstance(notice, Event):
            if notice.type in ENDS:
                self._told.pop(notice.data["run"], None)
            if not _is_noise(notice):
                render.row(notice.type, describe(here(), notice))
                render.flush()
            return
        label, then = self._told.get(notice.run, ("", float("-inf")))
        if notice.label != label or self._clock() - then >= _PLAIN_SECONDS:
            self._told[notice.run] = (notice.label, self._clock())
            render.row("progress", notice.slot, _progress_text(notice))
            render.flush()


class Drawn:
    """Events scroll by; below them a board shows how the plans stand."""

    def __init__(self, after: int, live: Live, clock: Callable[[], float]) -> None:
        self._after, self._live = after, live
        self._board = Board(clock=clock)
        self._reactor: Reactor | None = None
        self._views: dict[Digest, PlanView] = {}
        self._stale: set[Digest] = set()
        self._changed = True

    def hear(self, notice: Notice) -> None:
        """Let it scroll by if it is news, and note what it changes."""
        self._board.note(notice)
        self._changed = True
        if isinstance(notice, Event):
            plan = notice.data.get("plan")
            self._stale |= {plan} if plan else {p for p, v in self._views.items() if not v.done}
            if notice.type == "gate.waived":  # it may expire, or re-open a release
                self._stale |= set(self._views)
            if notice.seq > self._after and not _is_noise(notice):
                self._scroll(notice)

    def follow(self, reactor: Reactor) -> None:
        """Show the plans of this reactor."""
        self._reactor = reactor

    def draw(self) -> None:
        """Draw the board anew if anything changed."""
        if self._reactor is None or not self._changed:
            return
        from rich.console import Group

        self._changed = False
        self._look(self._reactor)
        height = max(2, self._live.console.height - _SPARE_LINES)
        lines = self._board.lines(tuple(self._views.values()), height)
        self._live.update(Group(*lines), refresh=True)

    def _look(self, reactor: Reactor) -> None:
        """See how those plans stand that may stand otherwise."""
        wanted = reactor.state.wanted()
        self._views = {
            plan: reactor.view(plan)
            if plan in self._stale or plan not in self._views
            else self._views[plan]
            for plan in wanted
        }
        self._stale.clear()

    def _scroll(self, event: Event) -> None:
        from rich.text import Text

        verdict = str(event.data.get("verdict", event.type.rpartition(".")[2]))
        head = Text(f"{event.type:<18} ", style=render.COLOURS.get(verdict, "bold"))
        self._live.console.print(head + Text(describe(here(), event)))


@contextmanager
def _live() -> Iterator[Live]:
    """Drawn only when asked: a thread that redraws would keep an idle daemon busy."""
    from rich.live import Live

    with Live(console=render.console(), auto_refresh=False, transient=True) as live:
        yield live


def _is_noise(event: Event) -> bool:
    """What runs publish is told by their own outcome."""
    return event.type == "artifact.published" and event.data["origin"] == "run"


def _progress_text(note: Progress) -> str:
    figures = "".join(f", {name} {value:.4g}" for name, value in note.figures.items())
    return f"{note.label} {note.done}/{note.total}{figures}"
