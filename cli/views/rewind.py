"""Runs that are repeated: what is to be done, how far it is, and what each step came to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stillhouse.cli.screen import clean
from stillhouse.registry.keeping.recovery import Step
from stillhouse.rewind import Watcher
from stillhouse.schemas.digest import SHORT

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.registry.keeping.recovery import ToolChange
    from stillhouse.rewind import Repeated, Rewind


def show_rewind(screen: Screen, found: Rewind) -> None:
    """What is here already, or what is to be repeated; steps were shown as they were done."""
    if not found.steps:
        _show_present(screen, found)
        return
    planned = [step for step in found.steps if isinstance(step, Step)]
    for step in planned:
        took = f"took {step.seconds:.0f} s" if step.seconds is not None else ""
        screen.row("repeat", step.slot, f"run {screen.short(step.run)}", took)
    if planned:
        note_changes(screen, found.tools)
        screen.note("  Nothing was done.")


def note_changes(screen: Screen, tools: Iterable[ToolChange]) -> None:
    """Tell of every tool that is another than before."""
    for change in tools:
        screen.note(f"  Note: {change.sentence}")


@contextmanager
def watching(screen: Screen, *, steps: bool) -> Iterator[Watcher]:
    """Show how repeating goes; `steps`: also each step, as part of the answer."""
    watcher = _OnScreen(screen, steps=steps)
    try:
        yield watcher
    finally:
        watcher.clear()


class _OnScreen(Watcher):
    def __init__(self, screen: Screen, *, steps: bool) -> None:
        self._screen, self._steps = screen, steps
        self._drawn = False

    def changed(self, tools: Sequence[ToolChange]) -> None:
        note_changes(self._screen, tools)

    def progress(self, slot: str, note: Mapping[str, Any]) -> None:
        if self._screen.notes_tty:
            text = f"{slot}: {note.get('label')} {note.get('done')}/{note.get('total')}"
            self._write(f"\r\x1b[K{clean(text)}\r")
            self._drawn = True

    def repeated(self, step: Repeated) -> None:
        self.clear()
        if self._steps:
            _show_step(self._screen, step)

    def clear(self) -> None:
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _write(self, text: str) -> None:
        self._screen.err.write(text)
        self._screen.err.flush()


def _show_present(screen: Screen, found: Rewind) -> None:
    until = f"swept after {screen.moment(found.until)}" if found.until else ""
    screen.row("present", screen.short(found.digest), until)
    if until:
        screen.note("  Keep it: `still tag NAME REF`, then `still gc`.")
    else:
        screen.note(f"  Should it be damaged, `still repair {found.digest[:SHORT]}`.")


def _show_step(screen: Screen, step: Repeated) -> None:
    screen.row("repeated", step.slot, f"run {screen.short(step.run)}", f"{step.seconds:.1f} s")
    for digest in step.restored:
        screen.row("restored", screen.short(digest))
    for d in step.differed:
        screen.row("differed", step.slot, d.role, f"recorded {d.recorded}", f"made {d.made}")
    if step.differed:
        roles = ", ".join(d.role for d in step.differed)
        screen.note(
            f"  {step.slot} is not deterministic here: it made another {roles} than run "
            f"{step.run[:SHORT]} did."
        )
    screen.flush()
