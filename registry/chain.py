"""The form of the ledger: bytes in, verified lines out. Pure; opens nothing.

    sha256_hex TAB canonical_json LF          hash = sha256(the JSON bytes)

Rules: lines link by `prev` and count by `seq` from 1. A batch is atomic: its lines carry their
place (`1/3`), and lines after the last complete batch are *torn*, that is, never acknowledged and
to be ignored. A complete line that does not verify is damage: IntegrityError, with where and why.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import ValidationError

from schemas import canonical
from schemas.canonical import Json
from schemas.errors import InputError, IntegrityError
from schemas.event import GENESIS, MAX_EVENT_BYTES, Event

HASH_WIDTH = 64
"""Characters of a line's hash; a TAB follows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """A place between two batches of the log."""

    seq: int
    """The last event before it; 0 at the start."""
    hash: str
    """That event's hash; 64 zeros at the start."""
    offset: int
    """Bytes of the log before it."""


START = Position(seq=0, hash=GENESIS, offset=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One verified line."""

    seq: int
    hash: str
    body: bytes
    """The canonical JSON, verbatim."""
    fields: Json
    """The same, decoded."""
    end: int
    """Bytes of the log up to and including this line's LF."""

    @property
    def offset(self) -> int:
        """Bytes of the log before this line."""
        return self.end - HASH_WIDTH - len(self.body) - 2

    @property
    def after(self) -> Position:
        """The place right after this line."""
        return Position(seq=self.seq, hash=self.hash, offset=self.end)

    def event(self) -> Event:
        """Give the line as an Event. Raises IntegrityError when its envelope has another form."""
        try:
            return Event.model_validate(self.fields)
        except ValidationError as error:
            raise _broken(self.seq, self.offset, "its envelope is not one we know") from error


@dataclass(kw_only=True)
class Scan:
    """What a stretch of the log holds."""

    complete: list[Line] = field(default_factory=list)
    """Lines of complete batches, in order."""
    torn: list[Line] = field(default_factory=list)
    """Verified lines of a last batch whose end is missing."""
    fault: IntegrityError | None = None
    """Why the line after these does not verify, if it is complete and does not."""


def encode_line(event: Event) -> tuple[bytes, str]:
    """Give the line of an event, and its hash.

    Raises InputError when the event is longer than MAX_EVENT_BYTES or has no canonical form.
    """
    body = canonical.encode(event.to_json())
    if len(body) > MAX_EVENT_BYTES:
        raise InputError(
            f"An event of type {event.type} would be {len(body)} bytes; "
            f"the ledger takes {MAX_EVENT_BYTES}.",
            remedy="Keep large content in the store and only what is judged or queried in facts.",
            code="ledger.event_too_large",
        )
    digest = hashlib.sha256(body).hexdigest()
    return digest.encode() + b"\t" + body + b"\n", digest


def scan(block: bytes, at: Position, *, place: tuple[int, int] = (0, 0)) -> Scan:
    """Every verified line of `block`, which starts at `at`; bytes after the last LF are left.

    `place` is that of the line before `block` within its batch. The first complete line that does
    not verify ends the scan and is named in `fault`.
    """
    found = Scan()
    try:
        for line in _lines(block, at):
            place = _next_place(place, line)
            found.torn.append(line)
            if place[0] == place[1]:
                found.complete += found.torn
                found.torn.clear()
    except IntegrityError as error:
        found.fault = error
    return found


def scan_middle(block: bytes, offset: int) -> Scan:
    """Like `scan`, for a block from the middle of the log.

    Its first line's own `prev`, `seq` and `batch` are believed; all after is checked against it.
    """
    stop = block.find(b"\n")
    if stop < 0:
        return Scan()
    fields = _decode(block[HASH_WIDTH + 1 : stop], 0, offset)
    seq, prev = fields.get("seq"), fields.get("prev")
    if not isinstance(seq, int) or not isinstance(prev, str):
        raise _broken(0, offset, "it is not an event")
    number, size = place_of(fields, seq, offset)
    before = (0, 0) if number == 1 else (number - 1, size)
    return scan(block, Position(seq=seq - 1, hash=prev, offset=offset), place=before)


def place_of(fields: Json, seq: int, offset: int) -> tuple[int, int]:
    """(place, size) of a line in its batch. Raises IntegrityError when it does not say."""
    number, _, size = str(fields.get("batch")).partition("/")
    if not (number.isdecimal() and size.isdecimal() and 1 <= int(number) <= int(size)):
        raise _broken(seq, offset, "it does not say its place in a batch")
    return int(number), int(size)


def _lines(block: bytes, at: Position) -> Iterator[Line]:
    start = 0
    while (stop := block.find(b"\n", start)) >= 0:
        line = _verified(block[start:stop], at)
        yield line
        at = line.after
        start = stop + 1


def _verified(raw: bytes, at: Position) -> Line:
    """Verify the line `raw` (without LF) that follows `at`."""
    seq = at.seq + 1
    body = raw[HASH_WIDTH + 1 :]
    digest = hashlib.sha256(body).hexdigest()
    if raw[: HASH_WIDTH + 1] != digest.encode() + b"\t":
        raise _broken(seq, at.offset, "its hash is not that of its content")
    fields = _decode(body, seq, at.offset)
    if fields.get("prev") != at.hash:
        raise _broken(seq, at.offset, "it does not follow the event before it")
    if fields.get("seq") != seq:
        raise _broken(seq, at.offset, f"it is numbered {fields.get('seq')}")
    return Line(seq=seq, hash=digest, body=body, fields=fields, end=at.offset + len(raw) + 1)


def _decode(body: bytes, seq: int, offset: int) -> Json:
    # Plain json: the hash already vouches for these bytes, and this is the hot path. `Ledger.audit`
    # checks in addition that they are canonical.
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _broken(seq, offset, "it is not JSON") from error
    if not isinstance(fields, dict):
        raise _broken(seq, offset, "it is not a JSON object")
    return fields


def _next_place(place: tuple[int, int], line: Line) -> tuple[int, int]:
    number, size = place_of(line.fields, line.seq, line.offset)
    last, expected = place
    follows = number == 1 if last == expected else (number, size) == (last + 1, expected)
    if not follows:
        raise _broken(line.seq, line.offset, "the batch before it is incomplete")
    return number, size


def _broken(seq: int, offset: int, reason: str) -> IntegrityError:
    name = f"event {seq}" if seq else "the event"
    return IntegrityError(
        f"The ledger is broken at {name} (byte {offset} of events.log): {reason}.",
        remedy="Restore events.log from a copy; nothing was changed or repaired.",
        code="ledger.broken",
    )
