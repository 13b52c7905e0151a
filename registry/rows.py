"""What a verified line is as a row of `event`. Pure; the other tables come from there, in SQL."""

from __future__ import annotations

from collections.abc import Sequence

from registry.chain import Line
from schemas.errors import InputError
from schemas.events import EVENTS

LAYOUT = 1
"""Version of the tables in queries.sql. Every change of them raises it, and files are rebuilt."""

Columns = dict[str, list[object]]


def event_columns(lines: Sequence[Line]) -> Columns:
    """The lines as the columns that `add_events` takes.

    Raises InputError `event.too_new` when this program would misread one of them.
    """
    for line in lines:
        _refuse_newer(line)
    return {
        "seq": [line.seq for line in lines],
        "hash": [line.hash for line in lines],
        "prev": [line.prev for line in lines],
        "ts": [line.ts for line in lines],
        "type": [line.type for line in lines],
        "body": [line.body.decode() for line in lines],
    }


def _refuse_newer(line: Line) -> None:
    model = EVENTS.get(line.type)
    if model is not None and line.v > model.VERSION:
        raise InputError(
            f"Event {line.seq} is {line.type} version {line.v}; "
            f"this program knows versions up to {model.VERSION}.",
            remedy="Upgrade stillhouse to at least the version that wrote this registry.",
            code="event.too_new",
        )
