"""What the real code does while it is recorded, and what it promises on the way.

Each scenario acts on one disk through the doors that the commands use. `Stage.tell` notes a promise
the moment the code has given it: a digest that `commit` returned, events that `append` returned, a
file that was replaced. What lies in `sources` is somebody else's, and not on this disk.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from unittest import mock

from stillhouse.collect import collect
from stillhouse.publish import Publication, take_in
from stillhouse.registry.home import Home
from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.repair import from_copy
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.event import Actor, Event
from stillhouse.schemas.events import ArtifactEvicted, Payload, TagMoved
from stillhouse.session import Session, make_registry
from stillhouse.store.disk import kernel, streaming
from stillhouse.store.disk.durable import MANY, replace_durably
from stillhouse.store.objects import staging
from stillhouse.store.objects.damaged import forget
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.objects.paths import object_path
from stillhouse.store.objects.statcache import StatCache
from stillhouse.store.trees.trees import put_tree

from .disk import History
from .recording import Died, Recorder

REGISTRY = "projects/one/registry"
"""Where the registry lies on the disk."""
SOMEONE = Actor(user="ada", host="still-1")
_LARGE = 40_000
_PIECE = 64 << 10
"""Bytes: what counts as large, so that large files go the way of large files in small states."""
_AGE = 0.06
"""Seconds after which the stat cache takes a file for unchanged."""


@dataclass
class Stage:
    """What a scenario acts on."""

    recorder: Recorder
    root: Path
    sources: Path
    contents: list[bytes] = field(default_factory=list)
    """Bytes that somebody may put again."""
    folders: list[Path] = field(default_factory=list)
    """Folders that somebody may publish again."""
    chance: Random = field(default_factory=lambda: Random(5))

    @property
    def home(self) -> Home:
        """The registry."""
        return Home(self.root / REGISTRY)

    @property
    def store(self) -> BlobStore:
        """Its store, opened by a new process."""
        return BlobStore(self.home.objects)

    @property
    def cache(self) -> StatCache:
        """Its stat cache."""
        return StatCache(self.home.root / "stat.cache")

    def session(self) -> Session:
        """A new process at work in the registry."""
        return Session(self.home)

    def tell(self, what: str, value: object = None) -> None:
        """Note a promise."""
        self.recorder.tell(what, value)

    def append(self, ledger: Ledger, payloads: Sequence[Payload]) -> tuple[Event, ...]:
        """Record, and note that it was acknowledged."""
        events = ledger.append(payloads)
        self.tell("events", events)
        return events

    def bytes_of(self, size: int) -> bytes:
        """New content."""
        self.contents.append(self.chance.randbytes(size))
        return self.contents[-1]

    def file(self, name: str, size: int) -> Path:
        """A new file of somebody."""
        path = self.sources / name
        path.write_bytes(self.bytes_of(size))
        return path

    def folder(self, name: str, files: int) -> Path:
        """A new folder of somebody, old enough for the stat cache."""
        path = self.sources / name
        path.mkdir()
        for number in range(files):
            (path / f"{number}.bin").write_bytes(self.chance.randbytes(50 + 700 * (number % 3)))
        self.folders.append(path)
        time.sleep(_AGE)
        return path

    def put(self, data: bytes) -> Digest:
        """Put bytes, and note that they were acknowledged."""
        digest = self.store.put_bytes(data).digest
        self.tell("object", digest)
        return digest

    def put_tree(self, folder: Path, *, cached: bool = True) -> Digest:
        """Put a folder, and note that it was acknowledged."""
        digest = put_tree(self.store, folder, cache=self.cache if cached else None).digest
        self.tell("tree", digest)
        return digest

    def publish(self, path: Path) -> Publication:
        """Publish as `still publish` does, in a new process, and note what it was told."""
        session = self.session()
        done = take_in(session, path, Kind.SOURCE)
        self.tell("tree" if path.is_dir() else "object", done.digest)
        self.tell("published", done.digest)
        return done

    def replace(self, name: str, data: bytes) -> None:
        """Rewrite a small file, and note which contents it may have."""
        self.tell("writing", (name, data))
        replace_durably(self.home.root / name, data)
        self.tell("written", (name, data))

    @contextmanager
    def killed_at(self, *calls: str) -> Iterator[None]:
        """Run a process that dies before the last of these calls."""
        self.recorder.kill_at(*calls)
        try:
            yield
        except Died:
            self.recorder.bury()
        else:
            raise AssertionError("it was never killed")


Scenario = Callable[[Stage], None]


@dataclass(frozen=True, kw_only=True)
class Played:
    """A scenario that was recorded."""

    name: str
    history: History
    sources: Path
    contents: tuple[bytes, ...]
    folders: tuple[Path, ...]


def play(name: str, folder: Path) -> Played:
    """Record one scenario on a disk of its own in `folder`, which must stay until it is checked."""
    scenario, prepare = SCENARIOS[name]
    root, sources = folder / f"{name}-disk", folder / f"{name}-sources"
    root.mkdir()
    sources.mkdir()
    if prepare is not None:
        prepare(Home(root / REGISTRY))
    recorder = Recorder(root)
    stage = Stage(recorder, root, sources)
    with small_is_large(), recorder.at_work():
        scenario(stage)
    return Played(
        name=name,
        history=recorder.history(),
        sources=sources,
        contents=tuple(stage.contents),
        folders=tuple(stage.folders),
    )


@contextmanager
def small_is_large() -> Iterator[None]:
    """Let files of some kilobytes be streamed like those of gigabytes."""
    with (
        mock.patch.object(staging, "CHUNK", _LARGE),
        mock.patch.object(streaming, "PIECE", _PIECE),
    ):
        yield


def _registry(home: Home) -> None:
    make_registry(home)


def _without_ledger(home: Home) -> None:
    make_registry(home)
    home.log.unlink()


def _torn_registry(home: Home) -> None:
    """One whose ledger was cut by power, within a batch, and whose torn lines are long."""
    make_registry(home)
    ledger = _ledger(home)
    ledger.append([_tag("first")])
    ledger.append([_tag(f"torn-{number}", 3_000) for number in range(5)])
    torn = home.log.read_bytes()[:-2_000]
    home.log.write_bytes(torn)


def _ledger(home: Home) -> Ledger:
    return Ledger(home.log, lambda: datetime.now(UTC), SOMEONE)


def _tag(name: str, padding: int = 0) -> TagMoved:
    return TagMoved(name=name + "x" * padding, digest="ab" * 32)


# -- the scenarios ---------------------------------------------------------------------------------


def founding(stage: Stage) -> None:
    """A registry is made, with folders above it that were not there, and used at once."""
    make_registry(stage.home)
    stage.tell("registry")
    stage.append(_ledger(stage.home), [_tag("first")])
    stage.put(stage.bytes_of(900))


def blobs(stage: Stage) -> None:
    """Single contents: none, small, large; the same again."""
    for size in (0, 1, 5_000):
        stage.put(stage.bytes_of(size))
    for size in (_LARGE, 3 * _PIECE + 100):
        path = stage.file(f"{size}", size)
        for _ in range(2):
            stage.tell("object", stage.store.put_file(path, cache=stage.cache).digest)
    stage.put(stage.contents[2])


def few(stage: Stage) -> None:
    """A folder of few files, which are synced one by one; again; changed; again."""
    folder = stage.folder("few", 4)
    stage.put_tree(folder)
    stage.put_tree(folder)
    (folder / "0.bin").write_bytes(b"changed")
    stage.put_tree(folder)
    stage.put_tree(folder, cached=False)


def many(stage: Stage) -> None:
    """A folder of many files, for which one syncfs does; then one more file."""
    folder = stage.folder("many", MANY + 6)
    stage.put_tree(folder)
    (folder / "new.bin").write_bytes(stage.bytes_of(300))
    stage.put_tree(folder)


def many_without_syncfs(stage: Stage) -> None:
    """The same on a system where one sync of everything is not to be had."""
    with mock.patch.object(kernel, "can_sync_all", return_value=False):
        many(stage)


def appends(stage: Stage) -> None:
    """Events and batches, short and over several blocks, by two processes in turn."""
    one, other = _ledger(stage.home), _ledger(stage.home)
    stage.append(one, [_tag("a")])
    stage.append(other, [_tag("b", 400), _tag("c", 700)])
    stage.append(one, [_tag("d", 9_000)])
    stage.append(one, [_tag(f"e{number}", 1_500) for number in range(6)])
    stage.append(other, [_tag("f")])


def first_append(stage: Stage) -> None:
    """The first append makes the file."""
    stage.append(_ledger(stage.home), [_tag("a")])
    stage.append(_ledger(stage.home), [_tag("b", 5_000)])


def appends_after_a_cut(stage: Stage) -> None:
    """The first appends to a ledger with torn lines."""
    ledger = _ledger(stage.home)
    stage.append(ledger, [_tag("after")])
    stage.append(ledger, [_tag("more", 6_000)])


def publications(stage: Stage) -> None:
    """What `still publish` does: the same, another, and what somebody else has just recorded."""
    folder, file = stage.folder("published", 3), stage.file("file", 2_000)
    stage.publish(folder)
    stage.publish(file)
    stage.publish(folder)
    with stage.killed_at("pwrite", "fdatasync"):
        stage.publish(stage.file("interrupted", 500))
    stage.publish(stage.sources / "interrupted")


def takeovers(stage: Stage) -> None:
    """Contents that another process has just shown, and died before it made that durable."""
    folder = stage.folder("shared", 2)
    with stage.killed_at("rename", "fsync"):
        stage.put_tree(folder)
    stage.put_tree(folder)
    digests = [stage.put(stage.bytes_of(700 + number)) for number in range(2)]
    for digest in digests:
        stage.tell("gone", digest)
    stage.store.condemn(digests)
    with stage.killed_at("link", "fsync"):
        stage.put(stage.contents[0])
    stage.put(stage.contents[0])
    stage.put(stage.contents[1])


def takeovers_by_memory(stage: Stage) -> None:
    """The same, met by a publisher who takes the files for unchanged since its own publication."""
    folder = stage.folder("known", 2)
    digest = stage.put_tree(folder)
    lost = [digest, *stage.store.digests()]
    for one in lost:
        stage.tell("gone", one)
    stage.store.condemn(lost)
    stage.store.sweep(lost)
    with stage.killed_at("rename", "rename", "rename", "fsync"):
        stage.put_tree(folder, cached=False)
    stage.put_tree(folder)


def collections(stage: Stage) -> None:
    """`still gc` three times, with something condemned, kept again, swept, and put again."""
    doomed = [stage.publish(stage.file(f"doomed-{n}", 400 + n)).digest for n in range(3)]
    orphans = [stage.put(stage.bytes_of(300 + n)) for n in range(2)]
    kept = stage.publish(stage.folder("kept", 2)).digest
    stage.append(_ledger(stage.home), [TagMoved(name="kept", digest=kept)])
    for digest in (*doomed, *orphans):
        stage.tell("gone", digest)
    time.sleep(_AGE)
    _collect(stage)
    stage.publish(stage.sources / "doomed-0")
    stage.append(_ledger(stage.home), [TagMoved(name="back", digest=doomed[0])])
    stage.put(stage.contents[-1])
    stage.append(_ledger(stage.home), [TagMoved(name="again", digest=doomed[1])])
    stage.tell("gone", orphans[-1])
    _collect(stage)
    _collect(stage)
    stage.publish(stage.sources / "doomed-2")


def collections_resumed(stage: Stage) -> None:
    """A gc that was killed when it had recorded what it would do, and another that does it."""
    digest = stage.publish(stage.file("doomed", 700)).digest
    stage.tell("gone", digest)
    time.sleep(_AGE)
    with stage.killed_at("pwrite", "fdatasync"):
        _collect(stage)
    _collect(stage)
    time.sleep(_AGE)
    with stage.killed_at("pwrite", "fdatasync"):
        _collect(stage)
    _collect(stage)


def _collect(stage: Stage) -> None:
    collect(stage.session(), timedelta(0))


def quarantines(stage: Stage) -> None:
    """Objects condemned, put back, condemned again and swept: few and many, in new folders."""
    digests = [stage.put(stage.bytes_of(100 + number)) for number in range(4)]
    store = stage.store
    store.condemn(digests[:2])
    store.restore(digests[0])
    store.condemn(digests[:1])
    store.restore(digests[0])
    stage.put(stage.contents[1])
    stage.tell("gone", digests[1])
    stage.tell("gone", digests[2])
    store.condemn(digests[1:3])
    store.sweep(digests[1:3])
    stage.put(stage.contents[2])


def quarantines_without_links(stage: Stage) -> None:
    """The same on a file system where a file has one name only."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links")

    with mock.patch.object(os, "link", refuse):
        quarantines(stage)


def eviction_and_repair(stage: Stage) -> None:
    """An artifact is given up and swept, and comes back from a copy; so does a damaged one."""
    file = stage.file("evicted", 3_000)
    digest = stage.publish(file).digest
    stage.tell("gone", digest)
    session = stage.session()
    stage.append(session.ledger, [ArtifactEvicted(digest=digest, run="cd" * 32, size=3_000)])
    session.store.condemn([digest])
    session.store.sweep([digest])
    with session.store.lease():
        from_copy(session, digest, file)
    stage.tell("object", digest)
    other = stage.publish(stage.file("damaged", 2_500)).digest
    stage.tell("damaged", other)
    place = object_path(session.home.objects, other)
    place.chmod(0o644)
    place.write_bytes(b"damage")
    place.chmod(0o444)
    with session.store.lease():
        from_copy(session, other, stage.sources / "damaged")
    stage.tell("mended", other)
    forget(session.home.damaged, [other])


def rewritings(stage: Stage) -> None:
    """Small files replaced: new, longer, shorter, over several blocks."""
    for size in (10, 9_000, 200, 30_000):
        stage.replace("notes", stage.chance.randbytes(size))
    before = stage.home.config.read_bytes()
    stage.tell("written", ("config.toml", before))
    stage.replace("config.toml", before + b"\n# changed\n")


SCENARIOS: dict[str, tuple[Scenario, Callable[[Home], None] | None]] = {
    "founding": (founding, None),
    "blobs": (blobs, _registry),
    "few": (few, _registry),
    "many": (many, _registry),
    "many_without_syncfs": (many_without_syncfs, _registry),
    "appends": (appends, _registry),
    "first_append": (first_append, _without_ledger),
    "appends_after_a_cut": (appends_after_a_cut, _torn_registry),
    "publications": (publications, _registry),
    "takeovers": (takeovers, _registry),
    "takeovers_by_memory": (takeovers_by_memory, _registry),
    "collections": (collections, _registry),
    "collections_resumed": (collections_resumed, _registry),
    "quarantines": (quarantines, _registry),
    "quarantines_without_links": (quarantines_without_links, _registry),
    "eviction_and_repair": (eviction_and_repair, _registry),
    "rewritings": (rewritings, _registry),
}
"""Each, and what is on the disk before."""
