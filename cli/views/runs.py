"""Runs as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stillhouse.session import clock

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.runs import RunList, RunRow

_COLUMNS = ("slot", "status", "#", "started", "took", "progress", "run", "plan", "why")


def show_runs(screen: Screen, found: RunList) -> None:
    """One row a run; at a terminal without the columns that are empty in every row."""
    columns: tuple[str, ...] = _COLUMNS
    rows = [_cells(screen, row) for row in found.rows]
    if screen.tty:  # room is short there
        kept = [place for place in range(len(columns)) if any(row[place] for row in rows)]
        columns = tuple(columns[place] for place in kept)
        rows = [tuple(row[place] for place in kept) for row in rows]
    screen.table(columns, rows)
    if found.older:
        screen.note(f"{found.older} older ones are not shown; see --limit.")


def progress_text(note: Mapping[str, Any] | None) -> str:
    """How far a run is, from its progress note; empty when it says nothing."""
    if not note:
        return ""
    figures = note.get("figures") or {}
    said = "".join(f", {name} {value:.4g}" for name, value in figures.items())
    return f"{note.get('label', '')} {note.get('done', '?')}/{note.get('total', '?')}{said}"


def _cells(screen: Screen, row: RunRow) -> tuple[object, ...]:
    return (
        row.slot,
        row.status,
        row.attempt,
        _when(screen, row.started),
        screen.duration(row.seconds),
        progress_text(row.progress),
        screen.short(row.run),
        row.name or screen.short(row.plan),
        f"{row.code}: {row.reason}" if row.code else row.reason,
    )


def _when(screen: Screen, ts: str) -> str:
    """A time: in a pipe as it is recorded, at a terminal the time of today, else the day."""
    if not screen.tty:
        return ts
    day, _, time = ts[:19].partition("T")
    return time if day == clock().date().isoformat() else day
