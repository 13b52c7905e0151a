"""The ledger: the append-only, hash-chained file of events, and the one truth.

Append, as a protocol:
 1. encode the payloads and refuse secrets: what needs no lock is done before it;
 2. take the exclusive lock of the file that the path names now;
 3. see that what this Ledger wrote last is still there; if others wrote since, verify the tail;
 4. when asked (`since`, `unless`), look at what others recorded meanwhile, and perhaps do nothing;
 5. drop torn bytes, write the whole batch with one `write`;
 6. unlock, *then* sync: writers that queue behind share one sync (group commit);
 7. only now return, which is the acknowledgement.

After a failed sync the kernel may have forgotten which pages were dirty, so a Ledger whose sync
failed refuses every further append.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from stillhouse.registry.ledger import file as logfile
from stillhouse.registry.ledger import format as chain
from stillhouse.registry.ledger import writer
from stillhouse.registry.ledger.format import START, BrokenError, Line, Position
from stillhouse.schemas import canonical, moment
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.schemas.event import Actor, Event
from stillhouse.schemas.events import Payload
from stillhouse.schemas.secrets import forms_in_json, secret_in_json
from stillhouse.store.disk import locks


class _Draft(NamedTuple):
    """An event whose place in the chain is not known yet."""

    type: str
    v: int
    data: canonical.Json
    encoded: bytes
    """`data` in canonical form."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What reading every byte of the log found."""

    events: int
    """Events that verify, from the first on."""
    head: Position
    """The place after the last of them."""
    torn: int
    """Bytes of an unacknowledged last write; the next append drops them."""
    fault: IntegrityError | None
    """The first event that does not verify, if any; nothing after it was read."""

    def to_json(self) -> dict[str, object]:
        """What `audit` and `fsck` say of the ledger; the head as people keep it, without offset."""
        return {
            "events": self.events,
            "head": {"seq": self.head.seq, "hash": self.head.hash},
            "torn_bytes": self.torn,
            "fault": self.fault.as_dict() if self.fault else None,
        }


def head(path: Path) -> Position:
    """Where the log at `path` ends, from its tail alone. Raises IntegrityError for damage there."""
    fd = _open(path)
    if fd is None:
        return START
    try:
        with locks.shared(fd):
            return logfile.tail(fd).end
    finally:
        os.close(fd)


def audit(path: Path, seen: Callable[[Line], object] = lambda _: None) -> Audit:
    """Read and verify every byte of the log at `path`.

    seen: gets each line that verifies, in order.
    """
    fault = None
    end = START
    try:
        for chunk in LedgerReader(path).chunks():
            for line in chunk:
                _check_form(line)
                seen(line)
                end = line.after
    except IntegrityError as error:
        fault = error
    torn = path.stat().st_size - end.offset if path.exists() else 0
    return Audit(events=end.seq, head=end, torn=0 if fault else torn, fault=fault)


def lines_until(path: Path, seq: int) -> Iterator[Line]:
    """The verified lines of the log up to event `seq`. Raises IntegrityError."""
    lines = (line for chunk in LedgerReader(path).chunks() for line in chunk)
    return itertools.takewhile(lambda line: line.seq <= seq, lines)


def hash_at(path: Path, seq: int) -> str:
    """The hash of event `seq`. Raises IntegrityError, KeyError when the log is shorter."""
    for line in lines_until(path, seq):
        if line.seq == seq:
            return line.hash
    raise KeyError(seq)


def events_at(path: Path, wanted: Collection[int]) -> dict[int, Event]:
    """Events by their numbers, for what only the ledger tells. Raises IntegrityError."""
    lines = lines_until(path, max(wanted)) if wanted else ()
    return {line.seq: line.event() for line in lines if line.seq in wanted}


class Ledger:
    """The log at `path`. Any number of processes and threads may hold one on the same file."""

    def __init__(
        self,
        path: Path,
        clock: Callable[[], datetime],
        actor: Actor,
        *,
        secrets: tuple[str, ...] = (),
    ) -> None:
        """Open nothing yet. secrets: values that no event may contain (schemas/secrets.py)."""
        self._path = path
        self._clock = clock
        self._actor = actor
        self._secrets = forms_in_json(secrets)
        self._log = writer.Writer(path)

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def append(
        self,
        payloads: Sequence[Payload],
        *,
        since: int | None = None,
        unless: Callable[[Event], bool] | None = None,
        run: Digest | None = None,
    ) -> tuple[Event, ...]:
        """Record all payloads as one atomic batch; they are durable when this returns.

        since, unless: look at every event after `since` under the lock; when one satisfies
        `unless`, record nothing and return (). So two daemons never start one run twice.
        run: the run whose outcome this is.

        Raises InputError (an event that is too large, not encodable, or holds a secret),
        IntegrityError (the tail is damaged, or lost what was recorded before), StorageError (not
        durable, so not acknowledged).
        """
        if not payloads:
            raise ValueError("an append needs at least one payload")
        drafts = [self._draft(payload) for payload in payloads]
        actor = self._actor.model_copy(update={"run": run}) if run else self._actor
        events: tuple[Event, ...] = ()
        with self._log.turn(since=since) as turn:
            if since is None or not _superseded(turn.tail, since, unless):
                events, lines, mark = self._chain(drafts, turn.tail, actor)
                self._log.write(turn, b"".join(lines), mark)
        self._log.sync(turn)  # also what others recorded, if that is why nothing was
        return events

    def settle(self) -> None:
        """Sync all that can be read here, from every writer. Raises StorageError.

        Before reporting an event that another process wrote, sync the log: the writer may have died
        before its own sync.
        """
        fd = _open(self._path)
        if fd is None:
            return
        try:
            logfile.sync(fd)
        finally:
            os.close(fd)

    def read(self, after: int = 0) -> Iterator[Event]:
        """Every event after `after`, oldest first; the chain is verified from the very first.

        Raises IntegrityError at the first event that does not verify.
        """
        for chunk in LedgerReader(self._path).chunks():
            yield from (line.event() for line in chunk if line.seq > after)

    def head(self) -> Position:
        """Tell the last event's seq and hash, and the log's length; reads only the tail."""
        return head(self._path)

    def audit(self) -> Audit:
        """Read and verify every byte: hashes, links, numbers, batches and canonical form."""
        return audit(self._path)

    def _draft(self, payload: Payload) -> _Draft:
        data = payload.to_json()
        encoded = canonical.encode(data)
        if found := secret_in_json(encoded, self._secrets):
            raise _secret(payload.TYPE, found)
        return _Draft(type=payload.TYPE, v=payload.VERSION, data=data, encoded=encoded)

    def _chain(
        self, drafts: Sequence[_Draft], tail: logfile.Tail, actor: Actor
    ) -> tuple[tuple[Event, ...], list[bytes], writer.Mark]:
        """The events of one batch after `tail`, their lines, and the mark of the last one."""
        # A clock that was set back must not make an event older than the one before it.
        ts = max(tail.ts, moment.spell(self._clock()))
        events: list[Event] = []
        lines: list[bytes] = []
        prev = tail.end.hash
        for place, draft in enumerate(drafts, start=1):
            event = Event(
                seq=tail.end.seq + place,
                prev=prev,
                ts=ts,
                type=draft.type,
                v=draft.v,
                actor=actor,
                batch=f"{place}/{len(drafts)}",
                data=draft.data,
            )
            line, prev = chain.encode_line(event, draft.encoded)
            events.append(event)
            lines.append(line)
        offset = tail.end.offset + sum(map(len, lines))
        after = Position(seq=tail.end.seq + len(drafts), hash=prev, offset=offset)
        return tuple(events), lines, writer.Mark(lines[-1], after, ts)


class LedgerReader:
    """Follows a log: remembers how far it read, and reads only what is new."""

    def __init__(self, path: Path, position: Position = START) -> None:
        """Start after `position`, which is believed; its hash must be that of the event before."""
        self._path = path
        self._position = position

    @property
    def position(self) -> Position:
        """The place after the last event that was given out."""
        return self._position

    def new_events(self) -> tuple[Event, ...]:
        """Events of batches completed since the last call; one `stat` when there is none.

        Raises IntegrityError: `ledger.broken`, or `ledger.cut` when the log became shorter. The
        position then stays where it was.
        """
        before = self._position
        try:
            return tuple(line.event() for chunk in self.chunks() for line in chunk)
        except IntegrityError:
            self._position = before
            raise

    def chunks(self, *, until: int | None = None) -> Iterator[list[Line]]:
        """Like `new_events`, as verified lines, some whole batches at a time, up to `until` bytes.

        The position moves past a chunk when the next one is asked for.
        """
        fd = _open(self._path)
        if fd is None:
            if self._position != START:
                raise self._cut(0)
            return
        try:
            size = os.fstat(fd).st_size
            if size < self._position.offset:
                raise self._cut(size)
            end = size if until is None else min(size, until)
            while self._position.offset < end and (chunk := self._next(fd, end)):
                yield chunk
                self._position = chunk[-1].after
        finally:
            os.close(fd)

    def _next(self, fd: int, end: int) -> list[Line]:
        """Read the next complete batches, about a block of them; [] when only torn bytes are left.

        A fault is raised once everything before it was given out.
        """
        length = logfile.BLOCK
        while True:
            found = self._scan(fd, length, end)
            if found.fault:
                # A writer may be replacing a torn tail at this very moment: look again without it.
                with locks.shared(fd):
                    found = self._scan(fd, length, end)
            if found.fault and not found.complete:
                if logfile.torn_by_power(fd, self._position.offset):
                    return []
                raise found.fault
            if found.complete or self._position.offset + length >= end:
                return found.complete
            length *= 2  # one batch longer than a block

    def _scan(self, fd: int, length: int, end: int) -> chain.Scan:
        at = self._position
        return chain.scan(os.pread(fd, min(length, end - at.offset), at.offset), at)

    def _cut(self, size: int) -> IntegrityError:
        return IntegrityError(
            f"events.log is {size} bytes long, but event {self._position.seq} ended at byte "
            f"{self._position.offset}: its end was cut off.",
            remedy="Restore events.log from a copy; nothing was changed or repaired.",
            code="ledger.cut",
        )


def _superseded(tail: logfile.Tail, since: int, unless: Callable[[Event], bool] | None) -> bool:
    if tail.end.seq < since:
        raise IntegrityError(
            f"events.log ends at event {tail.end.seq}, but event {since} was already read from it.",
            remedy="Restore events.log from a copy; nothing was changed or repaired.",
            code="ledger.cut",
        )
    newer = (line.event() for line in tail.lines if line.seq > since)
    return unless is not None and any(unless(event) for event in newer)


def _check_form(line: Line) -> None:
    line.event()
    try:
        same = canonical.encode(canonical.decode(line.body)) == line.body
    except InputError as error:
        raise _not_canonical(line) from error
    if not same:
        raise _not_canonical(line)


def _not_canonical(line: Line) -> BrokenError:
    return BrokenError(line.seq, line.offset, "it is not in canonical form (RFC 8785)")


def _secret(kind: str, found: str) -> InputError:
    return InputError(
        f"An event of type {kind} would hold {found}; the ledger keeps what it is told for ever.",
        remedy="Take it out, and name the secret's environment variable instead of its value.",
        code="ledger.secret",
    )


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
