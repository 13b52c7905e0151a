"""How DuckDB files are opened: attached to a kept `:memory:` instance for milliseconds, never held.

Building an instance costs tens of milliseconds, attaching a file to one costs one. While a file is
attached for writing, nobody else can even read it. So one instance is kept, and files come and go.

A file may have been made by somebody else, and a view in it runs when it is asked for anything. So
an instance is sealed when it is made, before it attaches: it reaches the files that it was made for
and those that DuckDB writes beside them, and its configuration is locked.

Rules: one borrower at a time per instance. A lock conflict is retried until a deadline. The file is
let go, also after an error. Nothing but answers is written to stdout. Ctrl-C is Ctrl-C.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_HOLDER = re.compile(r"held in (?P<program>.+?) \(PID (?P<pid>\d+)\)")
_RETRY_SECONDS = 0.02
_BESIDE = ("", ".wal", ".checkpoint.wal", ".wal.checkpoint", ".recovery.wal")
"""Ends of the names of a database and of what DuckDB writes beside it."""
_SIGNALLED = "Query interrupted"
"""The RuntimeError into which DuckDB's binding turns a KeyboardInterrupt amid a statement."""


class HeldError(Exception):
    """Another program has the file open and did not let go in time."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        found = _HOLDER.search(message)
        self.program = Path(found["program"]).name if found else "another program"
        self.pid = int(found["pid"]) if found else None


class Instance:
    """A DuckDB instance that outlives the files it attaches."""

    def __init__(self, *others: Path) -> None:
        """others: what may be attached besides the file that is borrowed first."""
        self._others = others
        self._connection: DuckDBPyConnection | None = None
        self._mutex = threading.RLock()

    @contextmanager
    def borrowed(
        self, path: Path, *, read_only: bool, deadline: float, discard: bool = False
    ) -> Iterator[DuckDBPyConnection]:
        """The file at `path` as the current database, until the block ends.

        deadline: of `time.monotonic`. discard: throw the instance away afterwards, because the
        block changes it for good. Raises HeldError after the deadline, duckdb.Error for damage.
        """
        with self._mutex:
            connection = self._connection = self._connection or _connect(path, self._others)
            try:
                _attach(connection, path, read_only=read_only, deadline=deadline)
                yield connection
                if not discard:
                    connection.execute("USE memory; DETACH borrowed")
                    return
            except BaseException as error:
                # Perhaps an open transaction, perhaps an instance that a fatal error made useless:
                # closing lets go of the file for certain. The next borrower gets a new instance.
                self._close(connection)
                if isinstance(error, RuntimeError) and str(error) == _SIGNALLED:
                    raise KeyboardInterrupt from error
                raise
            self._close(connection)

    def _close(self, connection: DuckDBPyConnection) -> None:
        self._connection = None
        connection.close()


def _connect(path: Path, others: Iterable[Path]) -> DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect(":memory:")
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET autoload_known_extensions = false")
    # The bar would be drawn on stdout, among the answer's rows, after two seconds.
    connection.execute("SET enable_progress_bar = false")
    # Without this, a large query spills into the folder that the command was started in.
    connection.execute("SET temp_directory = ?", [f"{path.absolute()}.tmp"])
    reached = [str(each.absolute()) + end for each in (path, *others) for end in _BESIDE]
    connection.execute("SET allowed_paths = ?", [reached])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _attach(
    connection: DuckDBPyConnection, path: Path, *, read_only: bool, deadline: float
) -> None:
    import duckdb

    quoted = str(path.absolute()).replace("'", "''")
    mode = "READ_ONLY" if read_only else "READ_WRITE"
    while True:
        try:
            connection.execute(f"ATTACH '{quoted}' AS borrowed ({mode}); USE borrowed")
        except duckdb.IOException as error:
            if "lock on file" not in str(error):
                raise
            if time.monotonic() > deadline:
                raise HeldError(str(error)) from error
            time.sleep(_RETRY_SECONDS)
        else:
            return
