"""What a person or a script sees while plans advance.

Three listeners for the reactor's notices: JSON lines, plain lines for a pipe, and live bars at a
terminal. Rules: events that were recorded before the command began are not told again; a bar never
outlives its run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli import render
from cli.narration import describe
from schemas.digest import Digest
from schemas.event import Event

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from phases.reactor import Notice, Progress

Listener = Callable[["Notice"], None]

_PLAIN_SECONDS = 5.0
"""Between two progress lines of one run in a pipe."""

_ENDS = frozenset({"run.succeeded", "run.failed", "run.abandoned"})


@contextmanager
def watcher(*, as_json: bool, after: int) -> Iterator[Listener]:
    """The listener that fits where stdout goes. `after`: the last event that is old news."""
    if as_json:
        yield _fresh(after, _tell_json)
    elif render.at_terminal():
        with _bars() as bars:
            yield _fresh(after, Drawn(bars))
    else:
        yield _fresh(after, Plain(time.monotonic))


def _fresh(after: int, listener: Listener) -> Listener:
    def listen(notice: Notice) -> None:
        if not isinstance(notice, Event) or notice.seq > after:
            listener(notice)

    return listen


def _tell_json(notice: Notice) -> None:
    if isinstance(notice, Event):
        render.json_line({"event": notice.to_json()})
    else:
        render.json_line({"progress": {**vars(notice), "figures": dict(notice.figures)}})


class Plain:
    """One line for each event, and for each live run now and then one of its progress."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._told: dict[tuple[Digest, str], float] = {}

    def __call__(self, notice: Notice) -> None:
        """Tell it, unless this run's progress was told a moment ago."""
        if isinstance(notice, Event):
            if not _is_noise(notice):
                render.row(notice.type, describe(notice))
                render.flush()
            return
        key, now = (notice.run, notice.label), self._clock()
        if now - self._told.get(key, float("-inf")) >= _PLAIN_SECONDS:
            self._told[key] = now
            render.row("progress", notice.slot, _progress_text(notice))
            render.flush()


class Drawn:
    """Events scroll by; each live run has a bar with its rate and the time that is left."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[Digest, tuple[TaskID, str]] = {}

    def __call__(self, notice: Notice) -> None:
        """Draw it."""
        if not isinstance(notice, Event):
            self._draw(notice)
            return
        run = notice.data.get("run")
        if notice.type in _ENDS and run in self._tasks:
            self._bars.remove_task(self._tasks.pop(run)[0])
        if notice.type == "run.started" and run is not None:
            task = self._bars.add_task(notice.data["slot"], total=None, figures="starting")
            self._tasks[run] = (task, "")
        elif not _is_noise(notice):
            self._scroll(notice)

    def _scroll(self, event: Event) -> None:
        from rich.text import Text

        verdict = str(event.data.get("verdict", event.type.rpartition(".")[2]))
        head = Text(f"{event.type:<18} ", style=render.COLOURS.get(verdict, "bold"))
        self._bars.console.print(head + Text(describe(event)))

    def _draw(self, note: Progress) -> None:
        """Move a run's bar; a new label starts a new rate."""
        task, label = self._tasks.get(note.run, (None, ""))
        if task is None:
            task = self._bars.add_task(note.slot, total=None, figures="")
        if label != note.label:
            self._bars.reset(task, description=f"{note.slot} · {note.label}", total=note.total)
        self._tasks[note.run] = (task, note.label)
        figures = " ".join(f"{name} {value:.4g}" for name, value in note.figures.items())
        self._bars.update(task, completed=note.done, total=note.total, figures=figures)


@contextmanager
def _bars() -> Iterator[Bars]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.3g}/s" if task.speed else "", style="cyan")

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
        TextColumn("[dim]{task.fields[figures]}"),
        console=render.console(),
        transient=True,
    ) as bars:
        yield bars


def _is_noise(event: Event) -> bool:
    """What runs publish is told by their own outcome."""
    return event.type == "artifact.published" and event.data["origin"] == "run"


def _progress_text(note: Progress) -> str:
    figures = "".join(f", {name} {value:.4g}" for name, value in note.figures.items())
    return f"{note.label} {note.done}/{note.total}{figures}"
