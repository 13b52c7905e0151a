"""Whether the projection's tables equal those that a second projection makes from the same ledger.

The rows of `event` may all be right although a verdict in `gate` was changed by hand, or a view by
which manifests are made. So an audit builds a second projection from the same stretch of the log,
in a temporary folder. It compares every table row by row, and the text of every view.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stillhouse.registry.projection.borrow import HeldError, Instance
from stillhouse.registry.projection.projection import PATIENCE, Projection
from stillhouse.registry.projection.queries import named

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One table or view that is not what the ledger gives."""

    name: str
    seq: int | None
    """The first event whose rows differ; None where that says nothing."""


@dataclass(frozen=True, kw_only=True)
class Retold:
    """What the comparison came to."""

    state: Literal["compared", "older", "held", "unreadable"]
    """older: made by another version of this program, and so rebuilt when it is next used."""
    differences: tuple[Difference, ...] = ()


def retell(projection: Path, log: Path, end: int) -> Retold:
    """Compare `projection` with what the first `end` bytes of the log give.

    Raises what `Projection.rebuild` raises.
    """
    import duckdb

    with tempfile.TemporaryDirectory(prefix="still-audit-") as folder:
        fresh = Path(folder) / projection.name
        stretch = Path(folder) / log.name
        _copy(log, stretch, end)
        Projection(fresh, stretch).rebuild()
        deadline = time.monotonic() + PATIENCE
        try:
            with Instance(fresh).borrowed(
                projection, read_only=True, deadline=deadline, discard=True
            ) as connection:
                quoted = str(fresh.absolute()).replace("'", "''")
                connection.execute(f"ATTACH '{quoted}' AS fresh (READ_ONLY)")
                return _compared(connection)
        except HeldError:
            return Retold(state="held")
        except duckdb.Error:
            return Retold(state="unreadable")


def _copy(log: Path, to: Path, end: int) -> None:
    with log.open("rb") as source, to.open("wb") as target:
        shutil.copyfileobj(source, target)
        target.truncate(end)


def _compared(connection: DuckDBPyConnection) -> Retold:
    if connection.execute(named("audit_layouts")).fetchall():
        return Retold(state="older")
    views = connection.execute(named("audit_views")).fetchall()
    found = [Difference(name=name, seq=None) for (name,) in views]
    for name, numbered in connection.execute(named("audit_tables")).fetchall():
        table = '"' + name.replace('"', '""') + '"'
        ours, theirs = f"borrowed.main.{table}", f"fresh.main.{table}"
        # What one has and the other has not; a row that stands twice counts twice.
        ((count, seq),) = connection.execute(
            f"SELECT count(*), {'min(seq)' if numbered else 'NULL'} FROM ("  # noqa: S608  # a table's name, quoted
            f"(FROM {ours} EXCEPT ALL FROM {theirs}) UNION ALL "
            f"(FROM {theirs} EXCEPT ALL FROM {ours}))"
        ).fetchall()
        if count:
            found.append(Difference(name=name, seq=seq))
    return Retold(state="compared", differences=tuple(found))
