"""Marking: which objects of the store are needed, which may go, and whose bytes they are. Pure.

The rules that keep this safe are in docs/store.md, "Condemning". registry/keeping/retention.py
decides what is kept, artifact by artifact. Here that is carried over to objects, many of which
several artifacts share. What is looked at comes in as a `Stock`. So nothing here can be out of date
in a way that its maker did not allow for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar

from stillhouse.schemas.digest import Digest
from stillhouse.schemas.moment import spell

_Holder = TypeVar("_Holder", bound=Hashable)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Seen(NamedTuple):
    """An object as it lies in the store."""

    size: int
    """Bytes."""
    at_ns: int
    """When it was written, or condemned: Unix time by the clock of the store's file system."""


@dataclass(frozen=True, kw_only=True)
class Stock:
    """What there is. Looked at in the order of the fields."""

    oldest_lease: int | None
    """When the oldest live lease began (Unix time, ns); None without any."""
    held: frozenset[Digest]
    """Objects that somebody is about to refer to, or that go with what is kept: what finished runs
    made and nobody recorded yet, logs."""
    needs: Mapping[Digest, frozenset[Digest]]
    """Each artifact whose bytes are there -> the objects that it consists of."""
    remnants: frozenset[Digest]
    """Objects of artifacts whose bytes were given up, as far as these can still be read."""
    placed: Mapping[Digest, Seen]
    """Objects in their places."""
    condemned: Mapping[Digest, Seen]
    """Objects that are condemned; one that was put back since is in its place as well."""

    def size(self, objects: Iterable[Digest]) -> int:
        """Bytes that these objects take; one that is not there takes none."""
        found = (self.placed.get(d) or self.condemned.get(d) for d in objects)
        return sum(seen.size for seen in found if seen)

    def holding(self, objects: Collection[Digest]) -> tuple[Digest, ...]:
        """The artifacts that need one of these objects."""
        return tuple(a for a, needed in self.needs.items() if not needed.isdisjoint(objects))

    @property
    def objects(self) -> frozenset[Digest]:
        """Every object of the store."""
        return frozenset(self.placed.keys() | self.condemned.keys())


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What is to become of objects. They do not overlap, but that `leased` are waiting."""

    live: frozenset[Digest]
    """Needed by what is kept, or held."""
    restored: frozenset[Digest]
    """Of the live: condemned, to be put back."""
    doomed: frozenset[Digest]
    """In their places, needed by nothing that is kept, and no longer young: to be condemned."""
    due: frozenset[Digest]
    """Condemned, and may be swept now."""
    waiting: frozenset[Digest]
    """Condemned, and not due yet …"""
    leased: frozenset[Digest]
    """… of these, what only a lease keeps from being due."""


def mark(
    stock: Stock,
    kept: Collection[Digest],
    until: Mapping[Digest, str],
    *,
    at: datetime,
    grace: timedelta,
) -> Marks:
    """Decide about every object.

    kept: artifacts. until: artifact that was condemned -> not to be swept before (RFC 3339 UTC).
    at: now; the clock of the store's file system is taken to agree with it.
    """
    before = (at - grace - _EPOCH) // timedelta(microseconds=1) * 1000
    live = stock.held.union(*(stock.needs.get(artifact, frozenset()) for artifact in kept))
    condemned = stock.condemned.keys() - live
    ripe = frozenset(_ripe(stock, condemned, until, now=spell(at), before=before))
    # A process that began to look before it was condemned may rely on it, and has yet to record.
    oldest = stock.oldest_lease
    due = frozenset(d for d in ripe if oldest is None or stock.condemned[d].at_ns < oldest)
    return Marks(
        live=live,
        restored=frozenset(stock.condemned.keys() & live),
        doomed=frozenset(
            digest
            for digest, seen in stock.placed.items()
            if digest not in live and seen.at_ns <= before
        ),
        due=due,
        waiting=frozenset(condemned - due),
        leased=ripe - due,
    )


def _ripe(
    stock: Stock, condemned: Iterable[Digest], until: Mapping[Digest, str], *, now: str, before: int
) -> Iterator[Digest]:
    """Which of the condemned may be swept as far as time goes.

    No artifact loses bytes before the time that was recorded for it. What belongs to given-up
    artifacts only need not wait for the grace.
    """
    present = frozenset().union(*stock.needs.values())
    warned = {artifact for artifact, moment in until.items() if moment <= now}
    pinned = frozenset().union(*(n for a, n in stock.needs.items() if a not in warned))
    for digest in condemned:
        at_ns = stock.condemned[digest].at_ns
        given_up = digest in stock.remnants and digest not in present
        if digest not in pinned and (given_up or at_ns <= before):
            yield digest


def sweep_order(due: Iterable[Digest], artifacts: Container[Digest]) -> list[Digest]:
    """The order in which objects are swept: what may be a list of files comes last.

    As long as a list can be read, its files are known as what they are.
    """
    return sorted(due, key=lambda digest: (digest in artifacts, digest))


@dataclass(frozen=True, kw_only=True)
class Share:
    """The bytes of one holder."""

    total: int
    """Bytes of all objects that it holds."""
    unique: int
    """Bytes that would be free without it: of objects that nobody else holds."""

    @property
    def shared(self) -> int:
        """Bytes of objects that somebody else holds as well."""
        return self.total - self.unique


def shares(
    holders: Mapping[_Holder, Collection[Digest]], sizes: Mapping[Digest, int]
) -> tuple[dict[_Holder, Share], int]:
    """The bytes of each holder, and the bytes that several of them hold, each object once.

    sizes: object -> bytes; what is not in it takes none. What holders have for their own and what
    is shared add up to all that is held.
    """
    count = Counter(digest for held in holders.values() for digest in set(held))
    each = {}
    for holder, held in holders.items():
        present = [digest for digest in set(held) if digest in sizes]
        each[holder] = Share(
            total=sum(sizes[digest] for digest in present),
            unique=sum(sizes[digest] for digest in present if count[digest] == 1),
        )
    return each, sum(sizes.get(digest, 0) for digest, holding in count.items() if holding > 1)
