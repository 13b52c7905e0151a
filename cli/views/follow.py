"""What a person or a script sees while plans advance.

Three watchers: JSON lines, plain lines for a pipe, and a live board at a terminal. Rules: events
that were recorded before the command began are not shown. Nothing is kept of a run that has ended.
Between two notices nothing is drawn unless somebody asks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from stillhouse.cli.screen import COLOURS, clean
from stillhouse.cli.views.board import ENDS, Board
from stillhouse.cli.views.events import describe
from stillhouse.cli.views.runs import progress_text
from stillhouse.notices import EventLine, ProgressLine, Watcher
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.event import Event

if TYPE_CHECKING:
    from rich.live import Live

    from stillhouse.cli.screen import Screen
    from stillhouse.notices import Refusal
    from stillhouse.phases.reactor.reactor import Notice, Reactor
    from stillhouse.registry.planning.views import PlanView

_PLAIN_SECONDS = 5.0
"""Between two progress lines of one run in a pipe."""

_SPARE_LINES = 4
"""Lines of the terminal that the board leaves for what scrolls by."""


@contextmanager
def watcher(screen: Screen, *, as_json: bool, after: int) -> Iterator[Watcher]:
    """The watcher that fits where answers go. `after`: the last event that is old news."""
    if as_json:
        yield Lines(screen, after)
    elif screen.tty:
        with _live(screen) as live:
            inside = replace(screen, out=sys.stdout, err=sys.stderr)  # live stands before both
            yield Drawn(inside, after, live, time.monotonic)
    else:
        yield Plain(screen, after, time.monotonic)


class _OnScreen(Watcher):
    """Tells what is not an event or progress in the same way to a pipe and a terminal."""

    def __init__(self, screen: Screen, after: int) -> None:
        self._screen, self._after = screen, after

    def note(self, text: str) -> None:
        """Tell it."""
        self._screen.note(text)

    def refused(self, refusal: Refusal) -> None:
        """Tell which file, what is wrong with it, and what to do."""
        self._screen.note(f"Refused {clean(refusal.path)}:")
        self._screen.error(refusal.error)

    def _is_news(self, event: Event) -> bool:
        """Whether it is new, and nothing of what runs publish: their outcome says that."""
        made = event.type == "artifact.published" and event.data["origin"] == "run"
        return event.seq > self._after and not made


class Lines(_OnScreen):
    """Every new event and note of progress, one JSON object a line."""

    def hear(self, notice: Notice) -> None:
        """Tell it if it is news."""
        if not isinstance(notice, Event):
            self._screen.json_line(ProgressLine(progress=notice))
        elif notice.seq > self._after:
            self._screen.json_line(EventLine(event=notice))

    def refused(self, refusal: Refusal) -> None:
        """Tell it."""
        self._screen.json_line(refusal)


class Plain(_OnScreen):
    """One line for each event, and for each live run now and then one of its progress."""

    def __init__(self, screen: Screen, after: int, clock: Callable[[], float]) -> None:
        super().__init__(screen, after)
        self._clock = clock
        self._told: dict[Digest, tuple[str, float]] = {}
        """Live run -> label and time of the last line."""

    def hear(self, notice: Notice) -> None:
        """Show it if it is news, unless this run's progress was shown a moment ago."""
        if isinstance(notice, Event):
            if notice.type in ENDS:
                self._told.pop(notice.data["run"], None)
            if self._is_news(notice):
                self._row(notice.type, describe(self._screen, notice))
            return
        label, then = self._told.get(notice.run, ("", float("-inf")))
        if notice.label != label or self._clock() - then >= _PLAIN_SECONDS:
            self._told[notice.run] = (notice.label, self._clock())
            self._row("progress", notice.slot, progress_text(vars(notice)))

    def _row(self, *cells: str) -> None:
        self._screen.row(*cells)
        self._screen.flush()


class Drawn(_OnScreen):
    """Events scroll by; below them a board shows how the plans stand."""

    def __init__(self, screen: Screen, after: int, live: Live, clock: Callable[[], float]) -> None:
        super().__init__(screen, after)
        self._live = live
        self._board = Board(screen=screen, clock=clock)
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
            if self._is_news(notice):
                self._scroll(notice)

    def follow(self, reactor: Reactor) -> None:
        """Show the plans of this reactor."""
        self._reactor = reactor

    def draw(self) -> None:
        """Draw the board again if anything changed."""
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
        head = Text(f"{event.type:<18} ", style=COLOURS.get(verdict, "bold"))
        self._live.console.print(head + Text(describe(self._screen, event)))


@contextmanager
def _live(screen: Screen) -> Iterator[Live]:
    """Drawn only when asked: a thread that redraws would keep an idle daemon busy."""
    from rich.live import Live

    with Live(console=screen.console(), auto_refresh=False, transient=True) as live:
        yield live
