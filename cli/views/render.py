"""How answers look: tables at a terminal, tab-separated text in a pipe, JSON for scripts.

Rules: a pipe gets no header, no colour and complete digests; control characters that came in with
somebody's names never reach a terminal; rich is imported only where something is drawn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from stillhouse.schemas.digest import SHORT
from stillhouse.schemas.errors import StillError

if TYPE_CHECKING:
    from rich.console import Console

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024
_WORD = 12
"""Columns of a row's first word at a terminal."""

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


def at_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def short(digest: str | None) -> str:
    """A digest as it is shown: short at a terminal, complete in a pipe."""
    return (digest[:SHORT] if at_terminal() else digest) if digest else ""


def size(count: int) -> str:
    """Bytes as they are shown: in binary units at a terminal, plainly in a pipe."""
    if not at_terminal():
        return str(count)
    value, unit = float(count), 0
    while value >= _STEP and unit < len(_UNITS) - 1:
        value, unit = value / _STEP, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def number(value: float | None) -> str:
    """A measured number as it is shown; empty when there is none."""
    return "" if value is None else f"{value:.6g}"


def moment(ts: str) -> str:
    """An event's time, to the second at a terminal."""
    return ts[:19].replace("T", " ") if at_terminal() else ts


def clean(text: object) -> str:
    """`text` on one line, with control characters escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def line(text: str = "") -> None:
    """Write one line of the answer."""
    sys.stdout.write(f"{text}\n")


def flush() -> None:
    """Let whoever reads stdout see what was written so far."""
    sys.stdout.flush()


def note(text: str) -> None:
    """Tell a person something that is not part of the answer."""
    sys.stderr.write(f"{text}\n")


def json_document(value: object) -> None:
    """Write one JSON document: indented at a terminal, on one line in a pipe."""
    indent = 2 if at_terminal() else None
    line(json.dumps(value, ensure_ascii=False, indent=indent))


def json_line(value: object) -> None:
    """Write one line of a JSON stream, at once."""
    line(json.dumps(value, ensure_ascii=False))
    flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows: drawn with a header at a terminal, else tab-separated without one."""
    texts = [[clean(cell) for cell in row] for row in rows]
    if not at_terminal():
        for text in texts:
            line("\t".join(text))
        return
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for text in texts:
        drawn.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in text))
    console().print(drawn)


def row(*cells: object) -> None:
    """Write one row that stands alone: its first cell is the word that says what it is."""
    first, *rest = (clean(cell) for cell in cells)
    if at_terminal():
        line(f"{first:<{_WORD}}  " + "  ".join(text for text in rest if text))
    else:
        line("\t".join((first, *rest)))


def facts(pairs: Mapping[str, object]) -> None:
    """Write named values, one a line; empty ones are left out."""
    for name, value in pairs.items():
        if value not in (None, ""):
            row(name, value)


def console() -> Console:
    """The terminal, for things that rich draws."""
    from rich.console import Console

    return Console(highlight=False)


def tell_error(error: StillError, *, as_json: bool) -> None:
    """Write an error to stderr: what happened, and what to do next."""
    sys.stdout.flush()
    if as_json:
        told = {"error": error.as_dict(), "exit_code": error.exit_code}
        note(json.dumps(told, ensure_ascii=False))
        return
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    note(f"{red}still:{plain} {_kept_lines(error.message)}")
    note(f"  Next: {_kept_lines(error.remedy)}")


def _kept_lines(text: str) -> str:
    return "\n".join(clean(part) for part in text.split("\n"))
