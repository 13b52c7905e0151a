"""What the store holds and what needs it, looked at in the order that keeps publishers safe.

Owns the look of garbage collection, eviction and `du`. The order is the protocol of docs/store.md,
"Condemning": first the leases, then what finished workers left for the reactor, then the ledger. So
a process that may rely on an object either still holds a lease that we saw, or has left a word that
we read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from stillhouse.registry.keeping.marking import Seen, Stock
from stillhouse.schemas.artifact import Form
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import BusyError, IntegrityError
from stillhouse.store.disk import locks
from stillhouse.store.objects.leases import Lease
from stillhouse.store.objects.paths import listed
from stillhouse.store.trees.trees import read_tree

if TYPE_CHECKING:
    from stillhouse.phases.reactor.folders import RunFolders
    from stillhouse.phases.workers.job import JobInput
    from stillhouse.registry.home import Home
    from stillhouse.registry.state.state import State
    from stillhouse.schemas.artifact import Product
    from stillhouse.session import Session


class _Seen(NamedTuple):
    """What one look saw."""

    leases: tuple[Lease, ...]
    """The oldest first."""
    products: tuple[Product | JobInput, ...]
    placed: dict[Digest, Seen]
    condemned: dict[Digest, Seen]


class Stocktaker:
    """Looks again and again; remembers the ledger as far as it read it, and every tree."""

    def __init__(self, session: Session) -> None:
        from stillhouse.registry.state.state import State

        self._session = session
        self._home, self._store = session.home, session.store
        self._reader = session.reader()
        self._members: dict[Digest, frozenset[Digest]] = {}
        self.state: State = State()
        self._seen: _Seen | None = None
        self.unreadable: dict[Digest, IntegrityError] = {}
        """Trees whose list of files can not be read, so that nobody knows what they need."""

    @property
    def leases(self) -> tuple[Lease, ...]:
        """Who was at work at the last look."""
        return self._seen.leases if self._seen else ()

    def look(self) -> Stock:
        """Everything as it is now; `state` is the ledger as it was then. Raises StorageError."""
        # In this order. What lies where is seen last, and nobody but us takes anything away.
        leases = tuple(sorted(self._store.leases()))
        products = tuple(_unrecorded(self._home))
        self.follow()
        placed = dict(_placed(self._home))
        condemned = {c.digest: Seen(c.size, c.at_ns) for c in self._store.condemned()}
        self._seen = _Seen(leases, products, placed, condemned)
        return self._stock(self._seen)

    def read_on(self) -> Stock:
        """What was seen at the last look, judged by the ledger as it is now.

        As safe as another look, and as fast as folding what is new: leases and what lay to be
        recorded were seen before that ledger, and what came or was put back since is not touched.
        """
        if self._seen is None:
            return self.look()
        self.follow()
        return self._stock(self._seen)

    def _stock(self, seen: _Seen) -> Stock:
        self.unreadable = {}
        spared = frozenset().union(*(self.objects(p.digest, p.form) for p in seen.products))
        needs = {}
        remnants: set[Digest] = set()
        for digest in self.state.artifacts:
            if digest in self.state.absent:
                remnants |= self.remnants(digest)
            else:
                needs[digest] = self.objects(digest, self._form(digest))
        return Stock(
            oldest_lease=seen.leases[0].began_ns if seen.leases else None,
            held=spared,
            needs=needs,
            remnants=frozenset(remnants),
            placed=seen.placed,
            condemned=seen.condemned,
        )

    def follow(self) -> State:
        """Fold what was recorded since the last look."""
        return self.state.follow(self._reader)

    @cached_property
    def run_folders(self) -> RunFolders:
        """What lies below `runs/`, judged by the same state."""
        from stillhouse.phases.reactor.folders import RunFolders

        return RunFolders(self._home, self.state, self._session.config.limits())

    def touches(self, digest: Digest, form: Form, objects: Collection[Digest]) -> bool:
        """Whether an artifact has any of these, or may have: its tree was not read yet."""
        if form == "blob":
            return digest in objects
        members = self._members.get(digest)
        return members is None or not members.isdisjoint(objects)

    def objects(self, digest: Digest, form: Form) -> frozenset[Digest]:
        """What an artifact consists of; itself alone where its tree can not be read."""
        if form == "blob":
            return frozenset((digest,))
        if digest not in self._members:
            try:
                entries = read_tree(self._store, digest)
            except IntegrityError as error:
                self.unreadable[digest] = error
                return frozenset((digest,))
            self._members[digest] = frozenset((digest, *(entry.digest for entry in entries)))
        return self._members[digest]

    def remnants(self, digest: Digest) -> frozenset[Digest]:
        """Objects of an artifact whose bytes were given up, as far as that can be read."""
        if not self._store.has(digest):
            self._members.pop(digest, None)
            return frozenset((digest,))
        found = self.objects(digest, self._form(digest))
        self.unreadable.pop(digest, None)
        return found

    def _form(self, digest: Digest) -> Form:
        """A tree if anybody published it as one: then its files are needed too."""
        found = self.state.artifacts[digest]
        return "tree" if any(p.form == "tree" for p in found) else "blob"


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """Be the only process that takes objects away. Raises BusyError, StorageError."""
    with locks.try_locked(home.gc_lock) as lock:
        if lock is None:
            raise BusyError(
                "Another `still gc`, `still evict` or `still repair` is at work here.",
                remedy="Wait until it has ended, then ask again.",
                code="gc.busy",
            )
        yield


def _placed(home: Home) -> Iterator[tuple[Digest, Seen]]:
    for digest, entry in listed(home.objects):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # condemned since it was listed, by somebody who does not take our lock
        yield digest, Seen(status.st_size, status.st_mtime_ns)


def _unrecorded(home: Home) -> Iterator[Product | JobInput]:
    """What workers made and left to be recorded, and what live ones read."""
    from stillhouse.phases.workers.job import Job, Outcome

    for folder in sorted(home.runs.glob("*")):
        with suppress(FileNotFoundError, ValidationError):  # recorded meanwhile, or left in pieces
            if locks.held(home.run_lock(folder.name)):
                yield from Job.model_validate_json((folder / "job.json").read_bytes()).inputs
        with suppress(FileNotFoundError, ValidationError):
            outcome = Outcome.model_validate_json((folder / "outcome.json").read_bytes())
            yield from outcome.products
