"""How far the ledger was projected, noted in the projection's lock file: the witness of a cut.

    seq SP hash SP offset SP crc32 LF        fixed widths, so one small write replaces it

A log that is cut between two batches still verifies; only who read it further can tell. The note is
read without DuckDB, so that every command can look before it extends such a log. It counts while
the projection is there; a note that is absent or garbled says nothing.
"""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path

from stillhouse.registry.ledger import file as logfile
from stillhouse.registry.ledger.format import Position
from stillhouse.schemas.errors import IntegrityError

_NOTE = re.compile(rb"((\d{20}) ([0-9a-f]{64}) (\d{20})) ([0-9a-f]{8})\n")
_LONGEST = 128
"""Bytes that hold a note."""


def lock_of(projection: Path) -> Path:
    """The lock file beside a projection."""
    return projection.with_name(projection.name + ".lock")


def note(lock: int, at: Position) -> None:
    """Leave in the lock file, which the caller holds alone, that the ledger was projected so far.

    Raises OSError.
    """
    text = b"%020d %s %020d" % (at.seq, at.hash.encode(), at.offset)
    os.pwrite(lock, b"%s %08x\n" % (text, zlib.crc32(text)), 0)


def noted(projection: Path) -> Position | None:
    """What the lock file says; None when it says nothing."""
    try:
        with lock_of(projection).open("rb") as file:
            found = _NOTE.match(file.read(_LONGEST))
    except OSError:
        return None
    if found is None or zlib.crc32(found[1]) != int(found[5], 16):
        return None
    return Position(seq=int(found[2]), hash=found[3].decode(), offset=int(found[4]))


def check_noted(projection: Path, log: Path) -> None:
    """Raise IntegrityError `ledger.cut` when the log lost what was projected. Reads one line."""
    at = noted(projection)
    if at is not None and projection.exists():
        check(log, at)


def check(log: Path, at: Position) -> None:
    """Raise IntegrityError `ledger.cut` when the log no longer holds the event before `at`."""
    if not at.seq:
        return
    try:
        fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise _cut(at) from error
    try:
        if logfile.hash_before(fd, at.offset) != at.hash:
            raise _cut(at)
    finally:
        os.close(fd)


def _cut(at: Position) -> IntegrityError:
    return IntegrityError(
        f"events.log no longer holds event {at.seq}, which was projected from it: "
        "it was cut, or replaced by another.",
        remedy="Restore events.log from a copy. If it was replaced on purpose, delete "
        "registry.duckdb, and it will be rebuilt from the ledger that is there.",
        code="ledger.cut",
    )
