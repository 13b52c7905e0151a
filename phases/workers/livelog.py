"""The log of an attempt that goes on, read from its beginning while someone shortens it.

When the log grew too long, its older part goes to `log.<attempt>.1`, and the file starts again,
empty (phases/workers/logs.py). Rules: what was read is counted from the very beginning, over both
files. So no byte comes twice, and what was left out comes as a `Gap`. The file stays open, so its
end can be read after it was removed. The bytes are as they were printed, with secrets in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from stillhouse.phases.workers.logs import Kept, older_part

_STALLS = 5
"""Looks after which a file that was cut is taken up although its older part never came."""


class Gap(NamedTuple):
    """Bytes that were printed and are not kept; lines, and secrets, may be cut by it."""

    missing: int


Piece = bytes | Gap


class LiveLog:
    """Gives out what is printed, as it comes."""

    def __init__(self, path: Path) -> None:
        """`path`: `log.<attempt>`; it need not be there yet."""
        self._path = path
        self._beside = path.with_name(f"{path.name}.1")
        self._file: IO[bytes] | None = None
        self._seen = 0
        self._stalls = 0
        self._known: tuple[tuple[int, int, int], Kept] = ((0, 0, 0), Kept())

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()

    @property
    def exists(self) -> bool:
        """Whether there is such a log."""
        return self._file is not None or self._path.is_file()

    def new(self) -> list[Piece]:
        """What was printed since the last call."""
        if self._file is None:
            if not self._path.is_file():
                return []
            self._file = self._path.open("rb")
        found: list[Piece] = []
        while True:
            older = self._read_older()
            if self._seen < older.total:
                found += _after(older, self._seen)
                self._seen = older.total
            fresh = self._read_live(self._file, self._seen - older.total)
            if self._read_older().total == older.total:
                self._seen += len(fresh)
                return [*found, fresh]

    def _read_live(self, file: IO[bytes], offset: int) -> bytes:
        size = os.fstat(file.fileno()).st_size
        if offset <= size:
            self._stalls = 0
            return os.pread(file.fileno(), size - offset, offset)
        # It was cut, and what was cut off is not beside it yet, or never will be.
        self._stalls += 1
        if self._stalls > _STALLS:
            self._seen -= offset
        return b""

    def _read_older(self) -> Kept:
        """The older part, read again only when it is another; the last one known without one."""
        try:
            found = self._beside.stat()
        except FileNotFoundError:
            return self._known[1]
        which = (found.st_ino, found.st_mtime_ns, found.st_size)
        if which != self._known[0]:
            self._known = which, older_part(self._path) or self._known[1]
        return self._known[1]


def _after(older: Kept, seen: int) -> Iterator[Piece]:
    """What was printed after the first `seen` bytes."""
    kept = older.total - len(older.tail)
    if seen < kept:
        yield older.head[seen:]
        if missing := kept - max(seen, len(older.head)):
            yield Gap(missing)
    yield older.tail[max(0, seen - kept) :]
