"""How far long work over many bytes is, for a person who waits at a terminal; nothing in a pipe.

Owns the bar. It appears only once the work has taken a while: loading what draws it takes longer
than most work does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from stillhouse.cli.screen import Screen

_PATIENCE = 0.5
"""Seconds before it appears."""


class Bar:
    """One piece of work; `of` is how many bytes it is about, once that is known."""

    def __init__(self, screen: Screen, what: str) -> None:
        self.of: int | None = None
        self._screen, self._what = screen, what
        self._done = 0
        self._begun = time.monotonic()
        self._drawn: tuple[Progress, TaskID] | None = None

    def add(self, count: int) -> None:
        """So many more bytes are done."""
        self.move(self._done + count)

    def move(self, done: int) -> None:
        """So many bytes are done in all."""
        self._done = done
        late = time.monotonic() - self._begun > _PATIENCE
        if self._drawn is None and self._screen.notes_tty and late:
            self._drawn = _drawn(self._screen, self._what)
        if self._drawn is not None:
            progress, task = self._drawn
            progress.update(task, completed=done, total=self.of)

    def remove(self) -> None:
        """Leave nothing of it on the screen."""
        if self._drawn is not None:
            self._drawn[0].stop()


@contextmanager
def bar(screen: Screen, what: str) -> Iterator[Bar]:
    """A bar for as long as the work goes on; `what` is said before it: "reading"."""
    drawn = Bar(screen, what)
    try:
        yield drawn
    finally:
        drawn.remove()


def _drawn(screen: Screen, what: str) -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn(what), BarColumn(), DownloadColumn(binary_units=True))
    speed = (TransferSpeedColumn(), TimeRemainingColumn())
    progress = Progress(*columns, *speed, console=Console(file=screen.err), transient=True)
    task = progress.add_task(what, total=None)
    progress.start()
    return progress, task
