"""The projection as it stood: after some event, or at some time.

Every table only grows, and says with each row which event it came from. So an earlier state is a
view. In front of each table goes a temporary view of its first rows. Over those the documented
views are made again from the same text (queries.sql). Only `moment` differs: it is then, not now.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING

from stillhouse.registry.projection.queries import named
from stillhouse.schemas.errors import InputError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TABLE = re.compile(r"^CREATE TABLE (\w+)", re.MULTILINE)
_UNWOUND = frozenset({"cursor", "layout"})
"""Tables of one row: `cursor` has a view of its own, and `layout` has no history."""
_SEQ = re.compile(r"[1-9]\d{0,17}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, kw_only=True)
class AsOf:
    """A point in the ledger's history: one of the two."""

    seq: int | None = None
    """After this event."""
    time: datetime | None = None
    """After the last event that was recorded then or before; UTC."""


def as_of(text: str) -> AsOf:
    """Read `41` (an event), `2026-11-22T10:00:00Z` (RFC 3339) or `2026-11-22` (its end, UTC).

    Raises InputError `sql.as_of`.
    """
    if _SEQ.fullmatch(text):
        return AsOf(seq=int(text))
    try:
        found = datetime.fromisoformat(text)
        if _DATE.fullmatch(text):
            return AsOf(time=datetime.combine(found, time.max, UTC))
        if found.tzinfo is not None:
            return AsOf(time=found.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise _not_a_point(text) from error
    raise _not_a_point(text)


def rewind(connection: DuckDBPyConnection, at: AsOf) -> None:
    """Put the state of `at` in front of the attached file, for as long as the instance lives.

    Raises InputError `sql.as_of` when that event is not recorded yet, duckdb.Error for damage.
    """
    seq, moment = _resolve(connection, at)
    # Away from the file's own names: what has no view here must not be found there, as of now.
    connection.execute("USE memory")
    for table in _TABLE.findall(named("tables")):
        if table not in _UNWOUND:
            connection.execute(named("as_of_table").format(table=table, seq=seq))
    connection.execute(named("as_of_cursor"))
    connection.execute(named("as_of_moment").format(moment=moment.replace(tzinfo=None)))
    connection.execute(named("views").replace("CREATE VIEW", "CREATE TEMP VIEW"))


def _resolve(connection: DuckDBPyConnection, at: AsOf) -> tuple[int, datetime]:
    """The last event that counts, and what then counts as now."""
    if at.time is not None:
        time_of = {"time": at.time.replace(tzinfo=None)}
        ((seq,),) = connection.execute(named("seq_at"), time_of).fetchall()
        return seq, at.time
    found = connection.execute(named("time_of"), {"seq": at.seq}).fetchall()
    if not found:
        raise InputError(
            f"Event {at.seq} is not recorded yet.",
            remedy="Ask as of an event that `still log` shows, or as of a time.",
            code="sql.as_of",
        )
    ((moment,),) = found
    return at.seq or 0, moment


def _not_a_point(text: str) -> InputError:
    return InputError(
        f"{text!r} is neither an event's number nor a time.",
        remedy="Give a number, a date (2026-11-22: its end, in UTC), or a time with its zone "
        "(2026-11-22T10:00:00Z).",
        code="sql.as_of",
    )
