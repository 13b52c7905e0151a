"""The ledger's file: lock, tail, durable write. Knows bytes and batches, no event's meaning.

Rules: every change happens under an exclusive flock of the file itself. A batch is one `write`. A
failed write is taken back before the lock is released. The next writer drops torn bytes at the end.
Bytes that were not synced are never acknowledged.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stillhouse.registry.ledger import format as chain
from stillhouse.registry.ledger.format import START, BrokenError, Line, Position
from stillhouse.schemas.errors import StorageError
from stillhouse.store.disk import durable

FIRST_WINDOW = 1024
"""Bytes of the tail that are read first: an event or two, as each that is read is verified."""

_UNSURE = 256 * 1024
"""Bytes of the tail in which a power cut may have left holes: more than is ever unsynced."""

_LAST_WRITE = 16 * 1024 * 1024
"""Bytes: no batch is longer."""

BLOCK = 4 * 1024 * 1024
"""Bytes read at a time by those who read everything."""


@dataclass(frozen=True, kw_only=True)
class Tail:
    """The end of the log."""

    end: Position
    """Where the next batch goes; bytes after it are torn."""
    ts: str
    """Timestamp of the last event; empty when there is none."""
    lines: list[Line]
    """The last complete lines: at least those asked for, perhaps more."""


def tail(fd: int, *, since: int | None = None, known: bool = False) -> Tail:
    """Read the verified end of the log, with every event after `since` if that is given.

    known: the caller has written here before, so the power was not cut since. Raises IntegrityError
    when a complete line there does not verify.
    """
    size = os.fstat(fd).st_size if known else _sound_size(fd)
    window = FIRST_WINDOW
    while True:
        start = max(0, size - window)
        found = _scan_from(os.pread(fd, size - start, start), start)
        if found.fault:
            raise found.fault
        if start == 0 or _enough(found, since):
            break
        window *= 4
    if not found.complete:
        return Tail(end=START, ts="", lines=[])
    last = found.complete[-1]
    return Tail(end=last.after, ts=last.ts, lines=found.complete)


def torn_by_power(fd: int, end: int) -> bool:
    """Whether all that follows `end` is one batch of which a power cut kept some blocks only."""
    rest = os.pread(fd, _LAST_WRITE + 1, end)
    return len(rest) <= _LAST_WRITE and chain.torn_by_power(rest, end)


def _sound_size(fd: int) -> int:
    """Bytes of the log without a last batch that a power cut tore.

    Its last line alone does not tell: it may have reached the disk, and others before it not.
    """
    size = os.fstat(fd).st_size
    window = _UNSURE
    while True:
        start = max(0, size - window)
        block = os.pread(fd, size - start, start)
        hole = block.find(b"\0")
        if hole < 0 or b"\n" not in block[hole:]:  # the latter is torn in any case
            if start == 0 or _holds_last_batch(block, start):
                return size
        else:
            found = _scan_from(block[:hole], start)
            if found.complete or start == 0:
                return _size_before(fd, found.complete[-1].after if found.complete else START)
        window *= 4


def _size_before(fd: int, at: Position) -> int:
    if not torn_by_power(fd, at.offset):
        raise BrokenError(at.seq + 1, at.offset, "some of its bytes are zeros")
    return at.offset


def _holds_last_batch(block: bytes, start: int) -> bool:
    end = block.rfind(b"\n") + 1
    begin = block.rfind(b"\n", 0, max(0, end - 1)) + 1
    found = chain.scan_middle(block[begin:end], start + begin)
    lines = found.complete + found.torn
    return begin > 0 and (not lines or block.count(b"\n") > lines[0].size)


def _scan_from(block: bytes, start: int) -> chain.Scan:
    if start == 0:
        return chain.scan(block, START)
    skip = block.find(b"\n") + 1
    return chain.scan_middle(block[skip:], start + skip) if skip else chain.Scan()


def _enough(found: chain.Scan, since: int | None) -> bool:
    return bool(found.complete) and (since is None or found.complete[0].seq <= since + 1)


def hash_before(fd: int, offset: int) -> str | None:
    """Give the hash of the verified line that ends at `offset`; None when none ends there."""
    if os.fstat(fd).st_size < offset:
        return None
    window = FIRST_WINDOW
    while True:
        start = max(0, offset - window)
        block = os.pread(fd, offset - start, start)
        begin = block.rfind(b"\n", 0, -1) + 1
        if begin or start == 0:
            found = chain.scan_middle(block[begin:], start + begin)
            lines = found.complete + found.torn
            return lines[0].hash if lines and lines[0].end == offset else None
        window *= 4


def write_at(fd: int, end: int, data: bytes) -> None:
    """Put `data` at `end`, dropping torn bytes there; on refusal nothing of it stays.

    Raises StorageError. Not durable before `sync`.
    """
    try:
        if os.fstat(fd).st_size > end:
            os.ftruncate(fd, end)
            # Else the power may go with the new lines on disk, and torn ones still after them.
            sync(fd)
        written = os.pwrite(fd, data, end)
        while written < len(data):
            written += os.pwrite(fd, data[written:], end + written)
    except OSError as error:
        with suppress(OSError):  # what stays is torn, and dropped by the next append
            os.ftruncate(fd, end)
        raise refused("written", error) from error


def sync(fd: int) -> None:
    """Make the file's content durable. Raises StorageError; then nothing may be acknowledged."""
    try:
        durable.sync_data(fd)
    except OSError as error:
        raise refused("synced", error) from error


def sync_folder(folder: Path) -> None:
    """Make the names in the log's folder durable. Raises StorageError."""
    try:
        durable.sync_folder(folder)
    except OSError as error:
        raise refused("created", error) from error


def refused(what: str, error: OSError) -> StorageError:
    """Say that the log could not be opened, written, synced or created, and why."""
    return StorageError(
        f"events.log could not be {what}: {error.strerror}.",
        remedy="Nothing was recorded. Free space or repair the disk, then run the command again.",
        code="ledger.not_durable" if what == "synced" else "ledger.not_written",
    )
