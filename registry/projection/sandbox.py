"""SQL from people: one statement that can read the projection, and do nothing else.

Three walls, each enough for most escapes. The statement must be one that reads. The file is
attached read-only. The instance is sealed (registry/projection/borrow.py): no statement reads or
writes another file, loads an extension or lifts the seal. It serves one statement of a person and
is thrown away.

A statement is answered on a thread of its own. The main one only notices Ctrl-C between two calls
of DuckDB, and a statement is one call.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillhouse.registry.projection.values import json_value
from stillhouse.schemas.errors import InputError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Params = Mapping[str, object] | Sequence[object]

_ANALYZE = re.compile(rb"analy[sz]e\b", re.IGNORECASE)
_AGAIN_SECONDS = 0.02
"""Between two attempts to stop a statement: one that came too early is forgotten by DuckDB."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The answer to a query."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def dicts(self) -> list[dict[str, Any]]:
        """Each row as name -> value. Of columns with one name, the later become `name_2` etc."""
        names: list[str] = []
        for column in self.columns:
            others = (f"{column}_{n}" for n in itertools.count(2))
            free = (name for name in others if name not in names and name not in self.columns)
            names.append(next(free) if column in names else column)
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def to_json(self) -> list[dict[str, Any]]:
        """`dicts` with what JSON holds: times and decimals are text, NaN and infinities null."""
        return [{name: json_value(each) for name, each in row.items()} for row in self.dicts()]


def ask_sealed(
    connection: DuckDBPyConnection, statement: str, params: Params = (), *, limit: float
) -> Rows:
    """Answer one reading statement over what is attached to a sealed instance.

    limit: seconds that it may take. Raises InputError `sql.refused` or `sql.too_long`, and
    duckdb.Error when the file is damaged; KeyboardInterrupt stops the statement first.
    """
    _require_reading(connection, statement)
    with _time_limit(connection, limit):
        return _stoppable(connection, statement, params)


def _stoppable(connection: DuckDBPyConnection, statement: str, params: Params) -> Rows:
    """What `fetch` does, but on a thread, so that Ctrl-C ends it."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        answer = thread.submit(fetch, connection, statement, params)
        try:
            return answer.result()
        except KeyboardInterrupt:
            while not answer.done():
                connection.interrupt()
                wait([answer], timeout=_AGAIN_SECONDS)
            raise


def fetch(connection: DuckDBPyConnection, statement: str, params: Params = ()) -> Rows:
    """Run one statement and take its whole answer.

    Raises InputError `sql.refused` when the SQL is at fault, duckdb.Error when the file is.
    """
    import duckdb

    mistakes = (
        duckdb.ProgrammingError,
        duckdb.DataError,
        duckdb.NotSupportedError,
        duckdb.ConstraintException,
        duckdb.PermissionException,
        duckdb.OutOfMemoryException,
    )
    try:
        found = connection.execute(statement, params or None)
        columns = tuple(str(column[0]) for column in found.description or ())
        return Rows(columns=columns, rows=tuple(found.fetchall()))
    except mistakes as error:
        raise _refused(f"DuckDB refused this SQL: {str(error).strip()}") from error


def _require_reading(connection: DuckDBPyConnection, statement: str) -> None:
    import duckdb

    try:
        found = connection.extract_statements(statement)
    except duckdb.Error as error:
        raise _refused(f"DuckDB refused this SQL: {str(error).strip()}") from error
    if len(found) != 1:
        raise _refused(f"Expected one SQL statement, found {len(found)}.")
    kind = found[0].type.name
    if kind == "EXPLAIN":
        kind = _explained(connection, statement)
    if kind != "SELECT":
        raise _refused(f"{kind} is not a statement that only reads.")


def _explained(connection: DuckDBPyConnection, statement: str) -> str:
    """The type of what EXPLAIN is asked about, which EXPLAIN ANALYZE executes."""
    import duckdb

    text = statement.encode()
    tokens = duckdb.tokenize(statement)
    starts = [at for at, kind in tokens if kind != duckdb.token_type.comment]
    place = 1  # behind EXPLAIN
    while place < len(starts) and _ANALYZE.match(text, starts[place]):
        place += 1
    closing = (n + 1 for n, at in enumerate(starts) if n > place and text[at : at + 1] == b")")
    # Parentheses hold its options, or the question itself.
    for first in (place, *closing):
        with suppress(duckdb.Error, IndexError, UnicodeDecodeError):
            found = connection.extract_statements(text[starts[first] :].decode())
            return found[0].type.name if len(found) == 1 else "EXPLAIN"
    return "EXPLAIN"


@contextmanager
def _time_limit(connection: DuckDBPyConnection, seconds: float) -> Iterator[None]:
    import duckdb

    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise InputError(
            f"This SQL took longer than {seconds:g} seconds and was stopped.",
            remedy="Ask for less, or open registry.duckdb with `duckdb -readonly`.",
            code="sql.too_long",
        ) from error
    finally:
        timer.cancel()


def _refused(message: str) -> InputError:
    return InputError(
        message,
        remedy="Ask with SELECT, FROM, DESCRIBE or SHOW TABLES; `SHOW TABLES` lists what there is.",
        code="sql.refused",
    )
