"""The projection: the ledger as a DuckDB file that may be deleted at any time and rebuilt equal.

Catch-up, as a protocol:
 1. look, read-only, whether the cursor is at the end of the ledger: then there is nothing to do;
 2. take the projection's own lock (a file beside it), so that one process projects at a time;
 3. attach, retrying while a foreign shell holds the file, but not beyond the deadline;
 4. n = size of the ledger, *then* sync the ledger: what is not durable is never projected;
 5. verify the chain from the cursor to n, and load it, cursor included, in one transaction;
 6. detach, and note in the lock file how far it came (registry/ledger/witness.py).

A file that cannot be read, has another layout, or disagrees with its own cursor is rebuilt beside
itself and replaced. A *ledger* that is shorter than the cursor, or has another event there, is
IntegrityError `ledger.cut`. The projection is then the only witness, and is left alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.registry.ledger import file as logfile
from stillhouse.registry.ledger import witness
from stillhouse.registry.ledger.format import START, Line, Position
from stillhouse.registry.ledger.ledger import LedgerReader, head
from stillhouse.registry.projection.asof import AsOf, rewind
from stillhouse.registry.projection.borrow import HeldError, Instance
from stillhouse.registry.projection.queries import named
from stillhouse.registry.projection.rows import (
    LAYOUT,
    PRESENT,
    Vocabulary,
    columns,
    loaders,
    upcasts,
)
from stillhouse.registry.projection.sandbox import Params, Rows, ask_sealed
from stillhouse.schemas.errors import BusyError, StorageError
from stillhouse.store.disk import locks

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["LIMIT", "PATIENCE", "Projection", "Rows"]

PATIENCE = 2.0
"""Seconds to wait for the file or for another process that projects."""

LIMIT = 60.0
"""Seconds that a person's statement may take; projecting waits for it."""

_PIECE = 25_000
"""Events loaded at a time when there are many: each costs memory."""


class _UnusableError(Exception):
    """The file must be rebuilt."""


class Projection:
    """The DuckDB file at `path`, made from the ledger at `log`. Safe to use from threads."""

    def __init__(self, path: Path, log: Path, known: Vocabulary = PRESENT) -> None:
        self._path = path
        self._log = log
        self._known = known
        self._lock = witness.lock_of(path)
        self._instance = Instance(path, _fresh(path))

    def catch_up(self, timeout: float = PATIENCE) -> int:
        """Project everything that is in the ledger now; the seq that is reached.

        Raises BusyError (a foreign shell or another process holds the file for `timeout` seconds),
        IntegrityError (the ledger is broken or was cut), InputError (the ledger is newer than this
        program), StorageError (the file cannot be written).
        """
        deadline = time.monotonic() + timeout
        current = self._current(deadline)
        return self._project(deadline) if current is None else current

    def query(
        self,
        question: str,
        params: Params = (),
        *,
        at: AsOf | None = None,
        timeout: float = PATIENCE,
        limit: float = LIMIT,
    ) -> Rows:
        """Catch up, then ask one reading statement.

        at: answer as it would have been answered then (asof.py).
        limit: seconds that a statement may take. Raises what `catch_up` raises, and InputError
        `sql.refused`, `sql.too_long` (sandbox.py says what a person may ask) or `sql.as_of`.
        """

        def ask(deadline: float) -> Rows:
            with self._reading(deadline, discard=True) as connection:
                if at is not None:
                    rewind(connection, at)
                return ask_sealed(connection, question, params, limit=limit)

        return self._asked(ask, timeout)

    def rebuild(self, timeout: float = PATIENCE) -> int:
        """Rebuild the file from the ledger; the seq that is reached."""
        with self._locked(time.monotonic() + timeout) as lock:
            return self._build(lock)

    # -- steps ---------------------------------------------------------------------------------

    def _asked(self, ask: Callable[[float], Rows], timeout: float) -> Rows:
        """Catch up and ask; when that comes upon a damaged block, rebuild and ask again."""
        self.catch_up(timeout)
        try:
            return ask(time.monotonic() + timeout)
        except _UnusableError:
            self.rebuild(timeout)
        try:
            return ask(time.monotonic() + timeout)
        except _UnusableError as error:
            raise StorageError(
                f"{self._path.name} cannot be read, though it was just rebuilt: {error.__cause__}.",
                remedy="Check the disk; the ledger is whole.",
                code="projection.unreadable",
            ) from error

    def _current(self, deadline: float) -> int | None:
        """The cursor's seq when it is at the end of the ledger; None when there is work to do."""
        if not self._path.exists():
            return None
        try:
            with self._reading(deadline) as connection:
                cursor = self._cursor(connection)
        except _UnusableError:
            return None
        return cursor.seq if cursor == head(self._log) else None

    def _project(self, deadline: float) -> int:
        with self._locked(deadline) as lock:
            try:
                return self._extend(lock, deadline)
            except _UnusableError:
                return self._build(lock)

    def _extend(self, lock: int, deadline: float) -> int:
        if not self._path.exists():
            raise _UnusableError
        with self._borrowed(self._path, read_only=False, deadline=deadline) as connection:
            cursor = self._cursor(connection)
            witness.check(self._log, cursor)
            reached = self._load(connection, cursor)
        self._note(lock, reached)
        return reached.seq

    def _build(self, lock: int) -> int:
        """Build beside the old file and replace it, so that a failure leaves what was there."""
        fresh = _fresh(self._path)
        try:
            _remove(fresh)
            with self._borrowed(fresh, read_only=False, deadline=0) as connection:
                for name in ("tables", "moment", "views"):
                    connection.execute(named(name))
                layout = {"version": LAYOUT, "payloads": self._known.versions}
                connection.execute(named("set_layout"), layout)
                _set_cursor(connection, START)
                reached = self._load(connection, START)
            # Before the file is there: an older note beside it might be of another ledger.
            self._note(lock, reached)
            _wal(self._path).unlink(missing_ok=True)
            fresh.replace(self._path)
        except _UnusableError as error:
            raise self._not_written(error.__cause__) from error
        except OSError as error:
            raise self._not_written(error) from error
        return reached.seq

    def _load(self, connection: DuckDBPyConnection, cursor: Position) -> Position:
        """Project what is durable after `cursor`, in one transaction; the place that is reached.

        One, because DuckDB then compresses rows once and writes them straight to the file.
        """
        reader = LedgerReader(self._log, cursor)
        connection.begin()
        for piece in _ahead(_pieces(reader.chunks(until=_durable_size(self._log)))):
            self._load_piece(connection, piece)
        connection.execute(named("forget_cursor"))
        _set_cursor(connection, reader.position)
        connection.commit()
        return reader.position

    def _load_piece(self, connection: DuckDBPyConnection, lines: Sequence[Line]) -> None:
        """Load some whole batches."""
        earlier = upcasts(lines, self._known)
        connection.execute(named("add_events"), columns(lines))
        if earlier["seq"]:
            connection.execute(named("add_upcasts"), earlier)
        for name in loaders(lines, self._known):
            connection.execute(named(name), {"after": lines[0].seq - 1})

    def _cursor(self, connection: DuckDBPyConnection) -> Position:
        """How far the file is.

        Raises _UnusableError when it has another layout, was built with other versions of the
        events, or lost rows.
        """
        import duckdb

        try:
            layout = connection.execute(named("layout")).fetchall()
            cursor = connection.execute(named("cursor")).fetchall()
        except duckdb.Error as error:
            raise _UnusableError from error
        if layout != [(LAYOUT, self._known.versions)]:
            raise _UnusableError
        if len(cursor) != 1 or cursor[0][0] != cursor[0][3]:
            raise _UnusableError
        seq, digest, offset, _ = cursor[0]
        return Position(seq=seq, hash=digest, offset=offset)

    # -- opening and locking -------------------------------------------------------------------

    @contextmanager
    def _reading(self, deadline: float, *, discard: bool = False) -> Iterator[DuckDBPyConnection]:
        with (
            self._locked(deadline, shared=True),
            self._borrowed(
                self._path, read_only=True, deadline=deadline, discard=discard
            ) as connection,
        ):
            yield connection

    @contextmanager
    def _borrowed(
        self, path: Path, *, read_only: bool, deadline: float, discard: bool = False
    ) -> Iterator[DuckDBPyConnection]:
        """Borrow a file, and give DuckDB's complaints about it a name."""
        import duckdb

        try:
            with self._instance.borrowed(
                path, read_only=read_only, deadline=deadline, discard=discard
            ) as connection:
                yield connection
        except HeldError as error:
            raise self._held(error) from error
        except duckdb.Error as error:
            raise _UnusableError from error

    @contextmanager
    def _locked(self, deadline: float, *, shared: bool = False) -> Iterator[int]:
        """Hold the projection's lock, among the processes that know it."""
        with ExitStack() as closed:
            try:
                lock = closed.enter_context(locks.opened(self._lock, locks.CREATE))
            except OSError as error:
                raise self._not_written(error) from error
            if not locks.try_acquire(lock, shared=shared, until=deadline):
                raise self._projecting()
            yield lock

    def _note(self, lock: int, reached: Position) -> None:
        try:
            witness.note(lock, reached)
        except OSError as error:
            raise self._not_written(error) from error

    def _behind(self) -> int:
        noted = witness.noted(self._path)
        return head(self._log).seq - (noted.seq if noted else 0)

    def _not_written(self, cause: BaseException | None) -> StorageError:
        return StorageError(
            f"{self._path.name} cannot be built: {cause}.",
            remedy="Free space beside it, or check who may write there; the ledger is whole.",
            code="projection.not_built",
        )

    def _held(self, error: HeldError) -> BusyError:
        who = f"{error.program} (PID {error.pid})" if error.pid else error.program
        return BusyError(
            f"{self._path.name} is held by {who} and is {self._behind()} events behind the ledger.",
            remedy="Close that program and ask again; recording goes on meanwhile.",
            code="projection.held",
        )

    def _projecting(self) -> BusyError:
        return BusyError(
            f"Another `still` is at work on {self._path.name}, "
            f"which is {self._behind()} events behind the ledger.",
            remedy="Ask again in a moment.",
            code="projection.busy",
        )


def _pieces(chunks: Iterable[list[Line]]) -> Iterator[list[Line]]:
    """The same lines in larger parts, of whole batches still."""
    piece: list[Line] = []
    for chunk in chunks:
        piece += chunk
        if len(piece) >= _PIECE:
            yield piece
            piece = []
    if piece:
        yield piece


def _ahead(pieces: Iterator[list[Line]]) -> Iterator[list[Line]]:
    """The same; while one is loaded, the next is read and verified on another thread."""
    with ThreadPoolExecutor(max_workers=1) as verifier:
        coming = verifier.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = verifier.submit(next, pieces, None)
            yield piece


def _durable_size(log: Path) -> int:
    """Bytes of the ledger that are durable. The size first: what comes later is not waited for."""
    if not log.exists():
        return 0
    fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        logfile.sync(fd)
    finally:
        os.close(fd)
    return size


def _set_cursor(connection: DuckDBPyConnection, at: Position) -> None:
    values = {"seq": at.seq, "hash": at.hash, "pos": at.offset}
    connection.execute(named("set_cursor"), values)


def _fresh(path: Path) -> Path:
    """Where a rebuilt file is made."""
    return path.with_name(path.name + ".new")


def _wal(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _wal(path).unlink(missing_ok=True)
