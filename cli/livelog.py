"""The log of an attempt that goes on, read from its beginning while someone shortens it.

When the log grew too long, its older part goes to `log.<attempt>.1` and the file begins anew
(phases/runlogs.py has the form). Rules: what was read is counted from the very beginning, over both
files, so nothing is told twice and what was left out is told as such; the file stays open, so its
end can be read after it was removed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_HEADER = 64
"""Bytes of the first line of an older part."""
_STALLS = 5
"""Looks after which a file that was cut is taken up although its older part never came."""


@dataclass(frozen=True, kw_only=True)
class _Older:
    """The part that was moved aside: its beginning and its end."""

    head: bytes = b""
    left_out: int = 0
    tail: bytes = b""

    @property
    def total(self) -> int:
        """Bytes that were printed before the file began anew."""
        return len(self.head) + self.left_out + len(self.tail)

    def after(self, seen: int) -> bytes:
        """What was printed after the first `seen` bytes, with a line for what is missing.

        Lines that the gap cuts through are left out: half a secret would not be recognised.
        """
        kept = self.total - len(self.tail)
        if seen >= kept:
            return self.tail[seen - kept :]
        missing = kept - max(seen, len(self.head))
        if not missing:
            return self.head[seen:] + self.tail
        head = self.head[seen : self.head.rfind(b"\n") + 1]
        gap = f"[... {missing} bytes and the lines cut by that were left out here ...]\n"
        return head + gap.encode() + self.tail[self.tail.find(b"\n") + 1 :]


class LiveLog:
    """Gives out what is printed, as it comes."""

    def __init__(self, path: Path) -> None:
        """`path`: `log.<attempt>`; it need not be there yet."""
        self._path = path
        self._older = path.with_name(f"{path.name}.1")
        self._file: IO[bytes] | None = None
        self._seen = 0
        self._stalls = 0
        self._known: tuple[tuple[int, int, int], _Older] = ((0, 0, 0), _Older())

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()

    @property
    def exists(self) -> bool:
        """Whether there is such a log."""
        return self._file is not None or self._path.is_file()

    def new(self) -> bytes:
        """What was printed since the last call."""
        if self._file is None:
            if not self._path.is_file():
                return b""
            self._file = self._path.open("rb")
        found = b""
        while True:
            older = self._read_older()
            if self._seen < older.total:
                found += older.after(self._seen)
                self._seen = older.total
            fresh = self._read_live(self._file, self._seen - older.total)
            if self._read_older().total == older.total:
                self._seen += len(fresh)
                return found + fresh

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

    def _read_older(self) -> _Older:
        """The older part, read again only when it is another."""
        try:
            found = self._older.stat()
            which = (found.st_ino, found.st_mtime_ns, found.st_size)
            if which != self._known[0]:
                self._known = which, _parsed(self._older.read_bytes())
        except FileNotFoundError:
            return self._known[1]
        return self._known[1]


def _parsed(data: bytes) -> _Older:
    header = json.loads(data[:_HEADER])
    body = data[_HEADER:]
    head = body[: header["head"]]
    return _Older(head=head, left_out=header["left_out"], tail=body[len(head) :])
