"""What must hold on every disk that a power cut can leave; looked at through the real doors.

1. What was acknowledged before the cut is there and right.
2. No object can be read that is not what its digest says: neither one that was acknowledged, nor
   one that a later publisher would take for its own.
3. The ledger opens, holds every acknowledged event, and what its events say is stored is stored.
4. Work goes on: appending, putting the same content again, publishing the same folders with
   whatever survived of the stat cache; what the dead left behind is swept.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from stillhouse.registry.home import Home
from stillhouse.registry.ledger.ledger import LedgerReader
from stillhouse.registry.state.state import State
from stillhouse.repair import from_copy
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import PUBLISHABLE
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import StillError
from stillhouse.schemas.event import Event
from stillhouse.schemas.events import TagMoved
from stillhouse.session import Session, make_registry
from stillhouse.store.disk.hashing import hash_file
from stillhouse.store.objects.damaged import forget
from stillhouse.store.objects.staging import sweep
from stillhouse.store.objects.statcache import StatCache
from stillhouse.store.trees.trees import put_tree, read_tree

from .disk import Fate, History, Told, Tree, chosen, extremes, lay_out
from .scenarios import REGISTRY, Played, small_is_large

_TURNS = 1000
"""How often each cut is tried at most."""


@dataclass
class Promises:
    """What had been acknowledged when the power went."""

    made: bool
    """The registry itself."""
    objects: set[Digest] = field(default_factory=set)
    trees: set[Digest] = field(default_factory=set)
    damaged: set[Digest] = field(default_factory=set)
    """Objects that somebody spoilt, until they were mended."""
    published: set[Digest] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)
    files: dict[str, list[bytes | None]] = field(default_factory=dict)
    """By path below the registry: what it may hold; None for no file."""

    def take(self, told: Told) -> None:
        """Add one promise, or a change of what was promised."""
        value = told.value
        match told.what:
            case "registry":
                self.made = True
            case "events":
                self.events += value
            case "writing":
                self.files.setdefault(value[0], [None]).append(value[1])
            case "written":
                self.files[value[0]] = [value[1]]
            case _:
                self._take_digest(told.what, value)

    def _take_digest(self, what: str, digest: Digest) -> None:
        match what:
            case "object":
                self.objects.add(digest)
            case "tree":
                self.trees.add(digest)
            case "gone":
                self.objects.discard(digest)
                self.trees.discard(digest)
            case "published":
                self.published.add(digest)
            case "damaged":
                self.damaged.add(digest)
            case "mended":
                self.damaged.discard(digest)
            case _:
                raise ValueError(what)


def promised(history: History, cut: int) -> Promises:
    """What had been acknowledged before operation `cut`."""
    found = Promises(made=bool(history.base.names[0]))
    for operation in history.operations[:cut]:
        if isinstance(operation, Told):
            found.take(operation)
    return found


@dataclass(frozen=True)
class Loss:
    """A disk on which something does not hold."""

    scenario: str
    cut: int
    fates: dict[int, Fate]
    faults: tuple[str, ...]


@dataclass
class Tally:
    """What came of all states of one scenario."""

    states: int = 0
    """Different ones: other bytes, names or modes, or other promises."""
    losses: list[Loss] = field(default_factory=list)


def try_states(played: Played, folder: Path, *, chance: Random, at_least: int) -> Tally:
    """Check the extreme states of every cut, then others, in `folder`, until these are so many."""
    tally = Tally()
    seen: set[int] = set()
    history = played.history
    promises = [promised(history, cut) for cut in range(len(history.operations) + 1)]
    for cut, fates in _tried(history, chance):
        if fates is None and tally.states >= at_least:
            break
        tree = history.tree(cut, fates or {})
        state = hash((frozenset(tree.items()), repr(promises[cut])))
        if state not in seen:
            seen.add(state)
            tally.states += 1
            if faults := faults_of(tree, promises[cut], played, folder):
                tally.losses.append(Loss(played.name, cut, fates or {}, tuple(faults)))
    return tally


def _tried(history: History, chance: Random) -> Iterator[tuple[int, dict[int, Fate] | None]]:
    """(cut, fates): the extreme ones, then one of each cut by turns; (0, None) after each turn."""
    cuts = range(len(history.operations) + 1)
    yield from ((cut, fates) for cut in cuts for fates in extremes(history, cut))
    for _ in range(_TURNS):
        yield from ((cut, fates) for cut in cuts for fates in chosen(history, cut, chance, 1))
        yield 0, None


def faults_of(tree: Tree, promises: Promises, played: Played, folder: Path) -> list[str]:
    """Say what does not hold on this disk."""
    root = folder / "after"
    lay_out(tree, root)
    try:
        with small_is_large():
            return _Check(Home(root / REGISTRY), promises, played).faults()
    finally:
        shutil.rmtree(root)


class _Check:
    def __init__(self, home: Home, promises: Promises, played: Played) -> None:
        self._home = home
        self._promises = promises
        self._played = played
        self._found: list[str] = []
        self._session = Session(home)

    def faults(self) -> list[str]:
        if not self._home.exists:
            if self._promises.made:
                return ["the registry is gone"]
            with self._noting("making the registry again"):
                make_registry(self._home)
        for look in (
            self._inbox,
            self._objects,
            self._acknowledged,
            self._files,
            self._events,
            self._recorded,
            self._append,
            self._mend,
            self._put_again,
            self._leftovers,
        ):
            with self._noting(look.__name__):
                look()
        return self._found

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        try:
            yield
        except (StillError, OSError) as error:
            self._found.append(f"{what}: {error}")

    def _inbox(self) -> None:
        for kind in PUBLISHABLE:
            if not (self._home.inbox / kind).is_dir():
                self._found.append(f"the inbox has no folder for {kind}")

    def _objects(self) -> None:
        store = self._session.store
        for digest in (*store.digests(), *(one.digest for one in store.condemned())):
            if digest not in self._promises.damaged:
                with self._noting("readable and wrong"):
                    store.verify(digest)

    def _acknowledged(self) -> None:
        for digest in self._promises.objects - self._promises.damaged:
            with self._noting("acknowledged object"):
                self._session.store.verify(digest)
        for digest in self._promises.trees:
            with self._noting("acknowledged tree"):
                self._whole(digest)

    def _whole(self, digest: Digest) -> None:
        for entry in read_tree(self._session.store, digest):
            self._session.store.verify(entry.digest)

    def _files(self) -> None:
        for name, allowed in self._promises.files.items():
            path = self._home.root / name
            data = path.read_bytes() if path.exists() else None
            if data not in allowed:
                self._found.append(f"{name} holds neither what was nor what is to be written")

    def _events(self) -> None:
        audit = self._session.ledger.audit()
        if audit.fault is not None:
            raise audit.fault
        there = set(_lines(self._session.ledger.read()))
        for line in _lines(self._promises.events):
            if line not in there:
                self._found.append(f"acknowledged event is gone: {line!r}")

    def _state(self) -> State:
        state = State()
        state.follow(LedgerReader(self._home.log))
        return state

    def _recorded(self) -> None:
        state = self._state()
        for digest in self._promises.published - state.artifacts.keys():
            self._found.append(f"acknowledged publication is gone: {digest}")
        for digest, publications in state.artifacts.items():
            if digest in state.absent or digest in self._promises.damaged:
                continue
            with self._noting("recorded as stored"):
                self._session.store.verify(digest)
                if publications[-1].form == "tree":
                    self._whole(digest)

    def _append(self) -> None:
        before = list(_lines(self._session.ledger.read()))
        self._session.ledger.append([TagMoved(name="afterwards", digest="ef" * 32)])
        audit = self._session.ledger.audit()
        after = list(_lines(self._session.ledger.read()))
        if audit.fault is not None or audit.torn or after[:-1] != before:
            self._found.append(f"appending left the ledger torn or shorter: {audit}")

    def _mend(self) -> None:
        """A repair that was interrupted can be repeated."""
        for digest in self._promises.damaged:
            source = next(
                path
                for path in self._played.sources.iterdir()
                if path.is_file() and _is(path, digest)
            )
            with self._session.store.lease():
                from_copy(self._session, digest, source)
            forget(self._home.damaged, [digest])
            self._session.store.verify(digest)

    def _put_again(self) -> None:
        store = self._session.store
        for data in self._played.contents:
            store.verify(store.put_bytes(data).digest)
        for folder in self._played.folders:
            cache = StatCache(self._home.root / "stat.cache")
            self._whole(put_tree(store, folder, cache=cache).digest)

    def _leftovers(self) -> None:
        objects = self._home.objects
        sweep(objects)
        if left := sorted((objects / "tmp").iterdir()):
            self._found.append(f"cannot be swept: {left}")
        if self._session.store.leases():
            self._found.append("a dead publisher's lease holds")


def _lines(events: Iterable[Event]) -> Iterator[bytes]:
    return (canonical.encode(event.to_json()) for event in events)


def _is(path: Path, digest: Digest) -> bool:
    return hash_file(path).digest == digest
