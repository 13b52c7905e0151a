"""The writer's side of the ledger's file, kept open between appends.

Rules: before each write, the writer makes sure of two things under the lock. The path still names
the file that is open, and the line that was written here last is still in its place. While that
line is the end of the log, nothing else is read; else the tail is. One description's flock excludes
other processes but no other thread, so a mutex does that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from stillhouse.registry.ledger import file as logfile
from stillhouse.registry.ledger.file import Tail
from stillhouse.registry.ledger.format import Position
from stillhouse.schemas.errors import InputError, IntegrityError, StorageError
from stillhouse.store.disk import locks


class Mark(NamedTuple):
    """The last line that was written here."""

    line: bytes
    after: Position
    """The place after it."""
    ts: str
    """Its timestamp."""


class _File:
    """An open descriptor, closed when nobody uses it any more: another thread may be syncing it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        opened = os.fstat(fd)
        self._identity = opened.st_dev, opened.st_ino

    def size_as(self, path: str) -> int | None:
        """Bytes of this file; None when `path` is not its name any more."""
        try:
            named = os.stat(path)  # noqa: PTH116  # Path.stat costs twice as much
        except FileNotFoundError:
            return None
        return named.st_size if (named.st_dev, named.st_ino) == self._identity else None

    def __del__(self) -> None:
        os.close(self.fd)


class Turn(NamedTuple):
    """One writer's turn: nobody else writes until it ends."""

    file: _File
    tail: Tail
    """The verified end of the log."""


class Writer:
    """The log at `path` for those who append to it, from any number of threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = str(path)
        self._mark: Mark | None = None
        self._failed = False
        self._let_go()

    @contextmanager
    def turn(self, since: int | None = None) -> Iterator[Turn]:
        """Exclude every other writer; the turn's tail reaches back to event `since` if given.

        Makes the log, and its name durable, if need be. Raises InputError when the folder is
        missing, IntegrityError `ledger.broken` when the tail does not verify and `ledger.cut` when
        it lost what was written here, StorageError when the disk refuses, or refused a sync before.
        """
        if self._failed:
            raise _poisoned()
        if self._process != os.getpid():
            # A forked child shares its parent's description, and with it the parent's lock.
            self._let_go()
        with self._mutex:
            try:
                file, size = self._locked()
                yield Turn(file, self._tail(file.fd, size, since))
            finally:
                self._unlock()

    def write(self, turn: Turn, data: bytes, mark: Mark) -> None:
        """Put whole lines after the tail; `mark` tells the last of them. Raises StorageError.

        They are not durable before `sync`.
        """
        logfile.write_at(turn.file.fd, turn.tail.end.offset, data)
        self._mark = mark

    def sync(self, turn: Turn) -> None:
        """Make durable what was written; the turn may be over. Raises StorageError.

        The kernel reports a failure once per description, and may then have forgotten what it did
        not write. So threads sync one at a time, and after a failure no sync succeeds.
        """
        with self._syncing:
            if self._failed:
                raise _poisoned()
            try:
                logfile.sync(turn.file.fd)
            except StorageError:
                self._failed = True
                raise

    def _let_go(self) -> None:
        self._process = os.getpid()
        self._file: _File | None = None
        self._mutex = threading.Lock()
        self._syncing = threading.Lock()

    def _locked(self) -> tuple[_File, int]:
        """Lock the file that the path names now, which may be another than last time; its size."""
        while True:
            self._file = self._file or _open(self._path)
            locks.acquire(self._file.fd)
            size = self._file.size_as(self._name)
            if size is not None:
                return self._file, size
            self._unlock()
            self._file = None

    def _unlock(self) -> None:
        if self._file is not None:
            locks.release(self._file.fd)

    def _tail(self, fd: int, size: int, since: int | None) -> Tail:
        if self._mark is None:
            if size == 0:
                logfile.sync_folder(self._path.parent)
            return logfile.tail(fd, since=since)
        line, after, ts = self._mark
        if os.pread(fd, len(line), after.offset - len(line)) != line:
            logfile.tail(fd, known=True)  # tells of damage there, if there is any
            raise _lost(after)
        if size == after.offset and (since is None or since >= after.seq):
            return Tail(end=after, ts=ts, lines=[])
        return logfile.tail(fd, since=since, known=True)


def _open(path: Path) -> _File:
    try:
        return _File(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
    except FileNotFoundError as error:
        raise InputError(
            f"There is no registry at {path.parent}.",
            remedy="Create one with `still init`, or name another with --registry.",
            code="registry.missing",
        ) from error
    except OSError as error:
        raise logfile.refused("opened", error) from error


def _lost(after: Position) -> IntegrityError:
    return IntegrityError(
        f"events.log no longer holds event {after.seq}, which this program recorded: "
        "it was cut, or replaced by another.",
        remedy="Restore events.log from a copy. If it was replaced on purpose, start this program "
        "again.",
        code="ledger.cut",
    )


def _poisoned() -> StorageError:
    return StorageError(
        "An earlier write of the ledger could not be made durable, so nothing more is recorded.",
        remedy="Check the disk, then start the command again.",
        code="ledger.poisoned",
    )
