"""The form of the ledger: bytes in, verified lines out. Pure; opens nothing.

    sha256_hex TAB canonical_json LF          hash = sha256(the JSON bytes)

Rules: lines link by `prev` and count by `seq` from 1. A batch is atomic: its lines carry their
place (`1/3`). Lines after the last complete batch are *torn*: they are never acknowledged, and to
be ignored. So is a last batch of which a power cut kept some blocks only. Any other complete line
that does not verify is damage: IntegrityError, with where and why.

Canonical JSON sorts keys, so the envelope is a fixed head and a fixed end around `data`. Verifying
reads just these. The payload in between is parsed only for those who want the event.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from pydantic import ValidationError

from stillhouse.schemas import canonical
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.schemas.event import GENESIS, MAX_EVENT_BYTES, Actor, Event

_HASH = 64
"""Characters of a line's hash; a TAB follows."""

_HEAD = re.compile(
    rb'\{"actor":\{(?:[^"{}]|"(?:[^"\\]|\\.)*")*\},"batch":"([1-9]\d*)/([1-9]\d*)","data":\{'
)
_END = re.compile(
    rb'\},"prev":"([0-9a-f]{64})","seq":([1-9]\d*),"ts":"([0-9T:.Z-]*)",'
    rb'"type":"([a-z0-9_.]*)","v":([1-9]\d*)\}'
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """A place between two batches of the log."""

    seq: int
    """The last event before it; 0 at the start."""
    hash: str
    """That event's hash; 64 zeros at the start."""
    offset: int
    """Bytes of the log before it."""


_SECTOR = 512
"""Bytes: a disk writes so many, or a multiple, or none of them."""
_HOLE = re.compile(rb"\0+")
_BATCH = re.compile(rb'\n[0-9a-f]{64}\t\{"actor":[^\n]*?,"batch":"1/')

START = Position(seq=0, hash=GENESIS, offset=0)


class Line(NamedTuple):
    """One line, verified unless said otherwise. A tuple, because a rebuild makes millions."""

    hash: str
    prev: str
    seq: int
    place: int
    """Which line of its batch this is, from 1 …"""
    size: int
    """… of so many."""
    ts: str
    type: str
    v: int
    body: bytes
    """The canonical JSON, verbatim."""
    end: int
    """Bytes of the log up to and including this line's LF."""

    @property
    def offset(self) -> int:
        """Bytes of the log before this line."""
        return self.end - _HASH - len(self.body) - 2

    @property
    def after(self) -> Position:
        """The place right after this line."""
        return Position(seq=self.seq, hash=self.hash, offset=self.end)

    def event(self) -> Event:
        """Parse the whole line. Raises IntegrityError when its JSON is not an event."""
        try:
            return Event.model_validate_json(self.body)
        except ValidationError as error:
            raise BrokenError(self.seq, self.offset, "its content is not an event") from error


class BrokenError(IntegrityError):
    """A complete line of the log that is not what the chain says."""

    def __init__(self, seq: int, offset: int, reason: str) -> None:
        """seq: of the event that should be there; 0 when only the tail was read."""
        name = f"event {seq}" if seq else "the event"
        super().__init__(
            f"The ledger is broken at {name} (byte {offset} of events.log): {reason}.",
            remedy="Restore events.log from a copy; nothing was changed or repaired.",
            code="ledger.broken",
        )
        self.seq = seq


@dataclass(kw_only=True)
class Scan:
    """What a stretch of the log holds."""

    complete: list[Line] = field(default_factory=list)
    """Lines of complete batches, in order."""
    torn: list[Line] = field(default_factory=list)
    """Verified lines of a last batch whose end is missing."""
    fault: IntegrityError | None = None
    """Why the line after these does not verify, if it is complete and does not."""


def encode_line(event: Event, data: bytes | None = None) -> tuple[bytes, str]:
    """Give the line of an event, and its hash.

    data: the canonical form of `event.data`, from who made it before taking the lock. Raises
    InputError when the event is longer than MAX_EVENT_BYTES or has no canonical form.
    """
    encoded = canonical.encode(event.data) if data is None else data
    # Sorted by key; nothing but the actor and the data can hold a character that needs escaping.
    actor = _actor(event.actor.user, event.actor.host, event.actor.run)
    head = f'{{"actor":{actor},"batch":"{event.batch}","data":'
    end = (
        f',"prev":"{event.prev}","seq":{event.seq},"ts":"{event.ts}",'
        f'"type":"{event.type}","v":{event.v}}}'
    )
    body = b"".join((head.encode(), encoded, end.encode()))
    if len(body) > MAX_EVENT_BYTES:
        raise InputError(
            f"An event of type {event.type} would be {len(body)} bytes; "
            f"the ledger takes {MAX_EVENT_BYTES}.",
            remedy="Keep large content in the store and only what is judged or queried in facts.",
            code="ledger.event_too_large",
        )
    digest = hashlib.sha256(body).hexdigest()
    return digest.encode() + b"\t" + body + b"\n", digest


@lru_cache(maxsize=64)
def _actor(user: str, host: str, run: Digest | None) -> str:
    """The same few act all the time."""
    return canonical.encode(Actor(user=user, host=host, run=run).to_json()).decode()


def scan(block: bytes, at: Position) -> Scan:
    """Every verified line of `block`, which starts at `at`; bytes after the last LF are left.

    The first complete line that does not verify ends the scan and is named in `fault`.
    """
    return _scan(block, at, (0, 0))


def scan_middle(block: bytes, offset: int) -> Scan:
    """Like `scan`, for a block that starts at some line of the log.

    That line's own `prev`, `seq` and `batch` are believed; all after is checked against it.
    """
    stop = block.find(b"\n")
    if stop < 0:
        return Scan()
    first = _parse(block, 0, stop, offset=offset)
    if first is None:
        return Scan(fault=BrokenError(0, offset, "it is not an event"))
    before = (0, 0) if first.place == 1 else (first.place - 1, first.size)
    return _scan(block, Position(seq=first.seq - 1, hash=first.prev, offset=offset), before)


def torn_by_power(rest: bytes, offset: int) -> bool:
    """Whether `rest`, all that follows the last sound batch, is one batch that a power cut tore.

    Blocks that never reached the disk read as zeros, which JSON does not hold: whole sectors, from
    the first byte or a boundary to a boundary or the end. Where another batch begins after a hole
    this is no answer: that one may have been acknowledged.
    """
    holes = [found.span() for found in _HOLE.finditer(rest)]
    return (
        bool(holes)
        and all(
            (start == 0 or (offset + start) % _SECTOR == 0)
            and (stop == len(rest) or (offset + stop) % _SECTOR == 0)
            for start, stop in holes
        )
        and _BATCH.search(rest) is None
    )


def _scan(block: bytes, at: Position, place: tuple[int, int]) -> Scan:
    """Group the lines of `block` into batches; `place` is that of the line before it."""
    found = Scan()
    last, size = place
    try:
        for line in _lines(block, at):
            follows = line.place == 1 if last == size else line[3:5] == (last + 1, size)
            if not follows:
                raise BrokenError(line.seq, line.offset, "the batch before it is incomplete")
            last, size = line.place, line.size
            found.torn.append(line)
            if last == size:
                found.complete += found.torn
                found.torn.clear()
    except IntegrityError as error:
        found.fault = error
    return found


def _lines(block: bytes, at: Position) -> Iterator[Line]:
    """Every complete line of `block`, verified against the one before it."""
    seq, prev, offset, start = at.seq, at.hash, at.offset, 0
    while (stop := block.find(b"\n", start)) >= 0:
        seq += 1
        line = _parse(block, start, stop, offset=offset)
        if line is None:
            raise BrokenError(seq, offset, "its form is not that of an event")
        if block[start : start + _HASH + 1] != line.hash.encode() + b"\t":
            raise BrokenError(seq, offset, "its hash is not that of its content")
        if line.prev != prev:
            raise BrokenError(seq, offset, "it does not follow the event before it")
        if line.seq != seq:
            raise BrokenError(seq, offset, f"it is numbered {line.seq}")
        yield line
        prev, offset, start = line.hash, line.end, stop + 1


def _parse(block: bytes, start: int, stop: int, *, offset: int) -> Line | None:
    """Read the line in `block[start:stop]`, unverified; None when its envelope is not ours."""
    body = block[start + _HASH + 1 : stop]
    head = _HEAD.match(body)
    # A quote inside a JSON string is escaped, so this finds the envelope's own `prev`.
    end = _END.fullmatch(body, body.rfind(b'},"prev":"'))
    if head is None or end is None or int(head[1]) > int(head[2]):
        return None
    prev, seq, ts, kind, version = end.groups()
    return Line(
        hashlib.sha256(body).hexdigest(),
        prev.decode(),
        int(seq),
        int(head[1]),
        int(head[2]),
        ts.decode(),
        kind.decode(),
        int(version),
        body,
        offset + stop + 1 - start,
    )
