"""Where an answer is printed: tables at a terminal, tab-separated text in a pipe, JSON for scripts.

Rules: whether a person reads is asked once, here, and handed on; a pipe gets no header, no colour
and complete digests; control characters in somebody's names never reach a terminal; rich is
imported only where something is drawn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO, TypeVar

from stillhouse.schemas.digest import SHORT
from stillhouse.schemas.errors import StillError
from stillhouse.schemas.plain import plain

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024
_WORD = 12
"""Columns of a row's first word at a terminal."""
_MINUTE, _HOUR = 60, 3600

COLOURS = {
    "pass": "green",
    "filled": "green",
    "succeeded": "green",
    "ok": "green",
    "fail": "red",
    "failed": "red",
    "blocked": "red",
    "refused": "red",
    "missing": "red",
    "inconclusive": "yellow",
    "not_run": "yellow",
    "waived": "yellow",
    "warn": "yellow",
    "abandoned": "yellow",
    "cancelled": "yellow",
    "running": "cyan",
    "started": "cyan",
    "ready": "cyan",
    "waiting": "cyan",
}
"""The colour of a word that says how something stands."""


@dataclass(frozen=True, kw_only=True)
class Screen:
    """Two streams, and what is known of who reads them."""

    out: TextIO
    """Answers, and nothing else."""
    err: TextIO
    """Notes, progress and errors."""
    tty: bool
    """Whether a person reads `out`."""
    notes_tty: bool
    """Whether a person reads `err`."""

    # -- words and numbers ----------------------------------------------------------------------

    def short(self, digest: str | None) -> str:
        """A digest: short at a terminal, complete in a pipe."""
        return (digest[:SHORT] if self.tty else digest) if digest else ""

    def size(self, count: int) -> str:
        """Bytes: in binary units at a terminal, plainly in a pipe."""
        if not self.tty:
            return str(count)
        value, unit = float(count), 0
        while value >= _STEP and unit < len(_UNITS) - 1:
            value, unit = value / _STEP, unit + 1
        return f"{count} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"

    def moment(self, ts: str) -> str:
        """An event's time, to the second at a terminal."""
        return ts[:19].replace("T", " ") if self.tty else ts

    def duration(self, seconds: float) -> str:
        """A length of time: for people at a terminal, else plain seconds."""
        if not self.tty:
            return f"{seconds:.1f}"
        if seconds < _MINUTE:
            return f"{seconds:.1f} s"
        minutes, rest = divmod(round(seconds), _MINUTE)
        if seconds < _HOUR:
            return f"{minutes} min {rest:02} s"
        return f"{minutes // _MINUTE} h {minutes % _MINUTE:02} min"

    # -- answers --------------------------------------------------------------------------------

    def line(self, text: str = "") -> None:
        """Write one line of the answer."""
        self.out.write(f"{text}\n")

    def flush(self) -> None:
        """Let whoever reads the answer see what was written so far."""
        self.out.flush()

    def document(self, value: object) -> None:
        """Write one JSON document: indented at a terminal, on one line in a pipe."""
        self.line(json.dumps(plain(value), ensure_ascii=False, indent=2 if self.tty else None))

    def json_line(self, value: object) -> None:
        """Write one line of a JSON stream, at once."""
        self.line(json.dumps(plain(value), ensure_ascii=False))
        self.flush()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write rows: drawn with a header at a terminal, else tab-separated without one."""
        texts = [[clean(cell) for cell in row] for row in rows]
        if not self.tty:
            for text in texts:
                self.line("\t".join(text))
            return
        from rich.table import Table
        from rich.text import Text

        drawn = Table(*columns, box=None, header_style="bold", pad_edge=False)
        for text in texts:
            drawn.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in text))
        self.console().print(drawn)

    def row(self, *cells: object) -> None:
        """Write one row that stands alone: its first cell is the word that says what it is."""
        first, *rest = (clean(cell) for cell in cells)
        if self.tty:
            self.line(f"{first:<{_WORD}}  " + "  ".join(text for text in rest if text))
        else:
            self.line("\t".join((first, *rest)))

    def facts(self, pairs: Mapping[str, object]) -> None:
        """Write named values, one a line; empty ones are left out."""
        for name, value in pairs.items():
            if value not in (None, ""):
                self.row(name, value)

    def console(self) -> Console:
        """The terminal, for things that rich draws."""
        from rich.console import Console

        return Console(file=self.out, highlight=False)

    # -- notes ----------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Tell a person something that is not part of the answer."""
        self.err.write(f"{text}\n")

    def next(self, text: str) -> None:
        """Tell a person what to do next; nothing when that is empty."""
        if text:
            self.flush()  # what to do comes last, wherever the two streams go
            self.note(f"  Next: {clean(text)}")

    def error(self, error: StillError, *, as_json: bool = False) -> None:
        """Tell an error: what happened, and what to do next."""
        self.flush()
        if as_json:
            told = {"error": error.as_dict(), "exit_code": error.exit_code}
            self.note(json.dumps(told, ensure_ascii=False))
            return
        red, end = ("\x1b[31m", "\x1b[0m") if self.notes_tty else ("", "")
        self.note(f"{red}still:{end} {_kept_lines(error.message)}")
        self.note(f"  Next: {_kept_lines(error.remedy)}")


def here() -> Screen:
    """The screen of this process, as it is now."""
    return Screen(
        out=sys.stdout,
        err=sys.stderr,
        tty=sys.stdout.isatty(),
        notes_tty=sys.stderr.isatty(),
    )


def answer(value: T, show: Callable[[Screen, T], None], *, as_json: bool) -> None:
    """Print one answer: as JSON, or as text by its view."""
    screen = here()
    if as_json:
        screen.document(value)
    else:
        show(screen, value)


def number(value: float | None) -> str:
    """A measured number; empty when there is none."""
    return "" if value is None else f"{value:.6g}"


def clean(text: object) -> str:
    """`text` on one line, with control characters escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def _kept_lines(text: str) -> str:
    return "\n".join(clean(part) for part in text.split("\n"))
