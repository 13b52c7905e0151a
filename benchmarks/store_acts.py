"""What `kills_store.py` has commands do, and what must be true once each of them has finished.

An act prepares something new, names one command, and knows what it must have come to. Artifacts
that are to be kept are tagged; what is published to be killed is not, so garbage collection really
takes it away.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from store_probes import Probes, hashed, still

from stillhouse.schemas.artifact import Form, Kind, Parent
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import ArtifactPublished, RunStarted, RunSucceeded
from stillhouse.store.disk.hashing import hash_bytes
from stillhouse.store.trees.trees import Entry, put_tree, tree_bytes
from stillhouse.tags import move_tag

_NOTHING: Callable[[], Iterator[str]] = lambda: iter(())  # noqa: E731  # a default that is called
_TOLD_GONE = (0, 2)
"""A second eviction has nothing to do and says so."""
_ORPHANS = 200


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much there is to do."""

    large: int = 256 << 20
    """Bytes of a large file."""
    many: int = 3000
    """Files in a folder of small ones."""


@dataclass(frozen=True, kw_only=True)
class Deed:
    """One command that is killed, and run again until it has finished."""

    words: tuple[str, ...]
    """Of the command, without the registry."""
    finished: Callable[[str], Iterator[str]]
    """What is wrong after its end, given what it printed."""
    halfway: Callable[[], Iterator[str]] = _NOTHING
    """What is wrong after a kill, beyond what always holds."""
    codes: tuple[int, ...] = (0,)
    """How it may end."""
    workers: bool = False
    """Whether the workers that it started die with it."""


@dataclass
class World:
    """One registry with things to act on."""

    probes: Probes
    work: Path
    chance: random.Random
    sizes: Sizes
    made: int = 0
    """Things made so far: each has another content."""
    digests: dict[str, Digest] = field(default_factory=dict)
    """The artifacts that stay, by the names of their folders in `work`."""

    # -- setting up ----------------------------------------------------------------------------

    def furnish(self) -> None:
        """Publish what is checked out, evicted and repaired; all of it is tagged."""
        large = self.work / "large"
        large.write_bytes(os.urandom(self.sizes.large))
        (self.work / "outside").mkdir()
        shutil.copy(large, self.work / "outside")
        self._write(self.work / "tree", self.sizes.many // 2)
        for number in range(20):
            (self.work / "tree" / f"large-{number}").write_bytes(os.urandom(1 << 20))
        self._write(self.work / "made", self.sizes.many)
        for path in sorted((self.work / "tree").rglob("f1*")):
            shutil.copy(path, self.work / "made" / f"shared-{path.name}")
        self._write(self.work / "many", self.sizes.many)
        for name in ("large", "tree"):
            self.digests[name] = self._published(self.work / name)
        self.digests["made"] = self._published(self.work / "made", by_run=True)
        for name, digest in self.digests.items():
            move_tag(self.probes.session, f"kept-{name}", digest)
        state = self.probes.session.state()
        for kind in (Kind.CHECKPOINT, Kind.DATASET):
            self.digests[kind] = state.latest[kind]
        shutil.copytree(self.probes.registry, self.work / "copy", symlinks=True)

    def _write(self, folder: Path, count: int, first: int = 0) -> None:
        """Small files with a content that nothing else has, in nested folders; some executable."""
        for number in range(first, first + count):
            path = folder / f"d{number % 7}" / f"e{number % 3}" / f"f{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._fresh(number))
            path.chmod(0o755 if number % 5 == 0 else 0o644)

    def _fresh(self, number: int) -> bytes:
        """A content that nothing else has."""
        self.made += 1
        return b"%d " % self.made + self.chance.randbytes(number % 1500)

    def _published(self, path: Path, *, by_run: bool = False) -> Digest:
        """Store and record without a command; `by_run`: as what a run made, so it can be given up.

        Nobody can repeat that run: what it made comes back from a copy.
        """
        session = self.probes.session
        form: Form = "tree" if path.is_dir() else "blob"
        with session.store.lease():
            if form == "tree":
                tree = put_tree(session.store, path)
                digest, size = tree.digest, tree.payload
            else:
                stored = session.store.put_file(path)
                digest, size = stored.digest, stored.size
            if by_run:
                self._record_run(digest, size)
            else:
                self._record(digest, form, size, path.name)
        return digest

    def _record(self, digest: Digest, form: Form, size: int, name: str) -> None:
        fact = ArtifactPublished(
            digest=digest, kind=Kind.SOURCE, form=form, size=size, origin="imported", name=name
        )
        self.probes.session.ledger.append([fact])

    def _record_run(self, digest: Digest, size: int) -> None:
        key, plan = hash_bytes(b"made").digest, hash_bytes(b"plan").digest
        source = self.digests["large"]
        parents = (Parent(role="source", digest=source),)
        started = RunStarted(
            run=key,
            phase="made",
            phase_version=1,
            plan=plan,
            slot="made",
            attempt=1,
            inputs=parents,
            params={},
            tools={},
        )
        published = ArtifactPublished(
            digest=digest,
            kind=Kind.BASELINE,
            form="tree",
            size=size,
            origin="run",
            run=key,
            role="made",
            parents=parents,
        )
        ended = RunSucceeded(
            run=key,
            phase="made",
            plan=plan,
            slot="made",
            attempt=1,
            outputs=(Parent(role="made", digest=digest),),
            seconds=1.0,
        )
        self.probes.session.ledger.append([started])
        self.probes.session.ledger.append([published, ended])

    # -- publish -------------------------------------------------------------------------------

    def publish_large(self) -> Deed:
        """One large file: a new path, or one that was published before with other bytes."""
        source = next((self.work / "outside").iterdir())
        if self._heads():
            self.made += 1
            source = source.rename(source.with_name(f"large-{self.made}"))
        with source.open("r+b") as file:
            file.write(os.urandom(32))
        return self._publishing(source, hashed(source))

    def publish_many(self) -> Deed:
        """A folder of small files; a part of them changed since it was published."""
        changed = self.chance.randrange(self.sizes.many)
        self._write(self.work / "many", changed)
        return self._publishing(self.work / "many", tree_digest(self.work / "many"))

    def publish_tree(self) -> Deed:
        """A folder of small and larger files that is known, with one more file."""
        self._write(self.work / "tree", 1, 10_000_000 + self.made)
        fresh = self.work / "tree" / "large-new"
        fresh.write_bytes(os.urandom(8 << 20))
        return self._publishing(self.work / "tree", tree_digest(self.work / "tree"))

    def _publishing(self, path: Path, digest: Digest) -> Deed:
        self.probes.disposable.add(digest)

        def finished(said: str) -> Iterator[str]:
            if said.strip() != digest:
                yield f"publishing {path.name} printed {said!r} instead of {digest}"
            else:
                self.probes.told.add(digest)

        return Deed(words=("publish", str(path), "--kind", "source"), finished=finished)

    # -- checkout ------------------------------------------------------------------------------

    def checkout_large(self) -> Deed:
        """One large file."""
        return self._checking_out("large")

    def checkout_tree(self) -> Deed:
        """A folder, copied."""
        return self._checking_out("made")

    def checkout_links(self) -> Deed:
        """A folder, by hard links."""
        return self._checking_out("made", "--link")

    def checkout_over(self) -> Deed:
        """Something is there already: it must stay as it is, whatever happens."""
        deed = self._checking_out("made")
        self._write(self.work / "out" / "target", 30)
        before = contents(self.work / "out" / "target")

        def same(_said: str = "") -> Iterator[str]:
            if contents(self.work / "out" / "target") != before:
                yield "a checkout changed what was there before"

        return Deed(words=deed.words, finished=same, halfway=same, codes=(2,))

    def _checking_out(self, name: str, *options: str) -> Deed:
        out = self.work / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        wanted = contents(self.work / name)
        if options:  # links are the objects themselves, none of which is executable
            wanted = {path: (digest, False) for path, (digest, _) in wanted.items()}
        if self.digests[name] in self.probes.session.state().absent:
            self._bring_back(name)
        words = ("checkout", self.digests[name], str(out / "target"), *options)

        def halfway() -> Iterator[str]:
            target = out / "target"
            if os.path.lexists(target) and contents(target) != wanted:
                yield f"a killed checkout of {name} left half of it as if it were whole"

        def finished(_said: str) -> Iterator[str]:
            if contents(out / "target") != wanted:
                yield f"the checkout of {name} is not what was published"
            if left := [path.name for path in out.iterdir() if path.name != "target"]:
                yield f"what killed checkouts left stays for ever: {left[:3]}"

        return Deed(words=words, finished=finished, halfway=halfway, codes=_TOLD_GONE)

    # -- gc ------------------------------------------------------------------------------------

    def gc_condemn(self) -> Deed:
        """Thousands of objects that nothing keeps, and as many that come back."""
        return self._collecting(self._junk())

    def gc_sweep(self) -> Deed:
        """As many that are condemned already; some of them are wanted again meanwhile."""
        junk = self._junk()
        self._must("gc", "--grace", "0")
        if self._heads():
            move_tag(self.probes.session, "again", junk)
        return self._collecting(junk)

    def _junk(self) -> Digest:
        """A folder that no tag names, and objects that belong to nothing."""
        session = self.probes.session
        with session.store.lease(), session.store.batch() as batch:
            files = [batch.add_bytes(self._fresh(number)) for number in range(self.sizes.many)]
            for _ in range(_ORPHANS):
                batch.add_bytes(self._fresh(99))
            entries = [
                Entry(path=f"f{number}", size=file.size, digest=file.digest, executable=False)
                for number, file in enumerate(files)
            ]
            junk = batch.add_bytes(tree_bytes(entries))
            batch.commit()
            self._record(junk.digest, "tree", sum(file.size for file in files), "junk")
        self.probes.disposable.add(junk.digest)
        return junk.digest

    def _collecting(self, junk: Digest) -> Deed:
        def finished(_said: str) -> Iterator[str]:
            state = self.probes.session.state()
            if state.tags.get("again") == junk:
                if junk in state.absent or junk in state.condemned:
                    yield "what was tagged again was collected"
                move_tag(self.probes.session, "again", self.digests["large"])
                return
            for _ in range(2):
                self._must("gc", "--grace", "0")
            if junk not in self.probes.session.state().absent:
                yield "what nothing keeps was never collected"
            if any(path.exists() for path in self.probes.places(junk)):
                yield "what was recorded as swept is still there"

        return Deed(words=("gc", "--grace", "0"), finished=finished)

    # -- evict, rewind, repair -----------------------------------------------------------------

    def evict(self) -> Deed:
        """A folder of thousands of files, some of which another artifact needs."""
        digest = self.digests["made"]
        if digest in self.probes.session.state().absent:
            self._bring_back("made")
        self.probes.disposable.add(digest)

        def finished(_said: str) -> Iterator[str]:
            if digest not in self.probes.session.state().absent:
                yield "an evicted artifact is not recorded as given up"
            if any(path.exists() for path in self.probes.places(digest)):
                yield "an evicted artifact is still there"

        return Deed(words=("evict", digest), finished=finished, codes=_TOLD_GONE)

    def rewind(self) -> Deed:
        """A checkpoint of a real run, at times with the data set that it was trained on."""
        wanted = self.digests[Kind.CHECKPOINT]
        for kind, chance in ((Kind.CHECKPOINT, 1.0), (Kind.DATASET, 0.2)):
            if self.chance.random() < chance:
                self.probes.disposable.add(self.digests[kind])
                if self.digests[kind] not in self.probes.session.state().absent:
                    self._must("evict", "--force", self.digests[kind])
        return self._getting_back("rewind", wanted, workers=self._heads())

    def repair_copy(self) -> Deed:
        """Thousands of files given up, damaged or missing; a folder or a registry has them."""
        digest = self.digests["made"]
        self._harm("made", self.chance.choice(("evict", "flip", "cut", "miss")))
        source = self.work / self.chance.choice(("made", "copy"))
        return self._getting_back("repair", digest, "--from", str(source))

    def repair_run(self) -> Deed:
        """A checkpoint is damaged; the real run that made it is repeated."""
        digest = self.digests[Kind.CHECKPOINT]
        self._harm(Kind.CHECKPOINT, self.chance.choice(("flip", "cut", "miss")))
        return self._getting_back("repair", digest, workers=self._heads())

    def _getting_back(
        self, verb: str, digest: Digest, *options: str, workers: bool = False
    ) -> Deed:
        def finished(_said: str) -> Iterator[str]:
            self.probes.damaged.clear()
            if digest in self.probes.session.state().absent:
                yield f"still {verb} ended, and its artifact is still given up"
            else:
                self.probes.disposable.discard(digest)

        return Deed(words=(verb, digest, *options), finished=finished, workers=workers)

    def _harm(self, name: str, how: str) -> None:
        digest = self.digests[name]
        if how == "evict":
            self.probes.disposable.add(digest)
            if digest not in self.probes.session.state().absent:
                self._must("evict", "--force", digest)
            return
        if digest in self.probes.session.state().absent:
            self._bring_back(name)
        objects = {entry.digest for entry in self._entries(digest).values()}
        if name == Kind.CHECKPOINT:  # what the run to be repeated reads must be there
            objects &= self.probes.only_in(digest)
        for victim in self.chance.sample(sorted(objects), max(1, len(objects) // 3)):
            path = self.probes.places(victim)[0]
            if not path.exists() or not path.stat().st_size:
                continue
            self.probes.damaged.add(victim)
            data = bytearray(path.read_bytes())
            path.unlink()
            if how != "miss":
                data[0] ^= 1
                path.write_bytes(data if how == "flip" else data[:-1])
                path.chmod(0o444)

    def _bring_back(self, name: str) -> None:
        verb = "rewind" if name == Kind.CHECKPOINT else "repair"
        options = () if verb == "rewind" else ("--from", str(self.work / name))
        self._must(verb, self.digests[name], *options)
        self.probes.disposable.discard(self.digests[name])

    def _heads(self) -> bool:
        return self.chance.choice((True, False))

    def _must(self, *words: str) -> None:
        code, said = still(self.probes.registry, *words)
        if code:
            raise RuntimeError(f"still {' '.join(words)} ended with {code}: {said}")

    def _entries(self, digest: Digest) -> Mapping[str, Entry]:
        from stillhouse.store.trees.trees import read_tree

        store = self.probes.session.store
        return {entry.path: entry for entry in read_tree(store, digest)}


def contents(path: Path) -> dict[str, tuple[str, bool]]:
    """Digest and whether it is executable of each file, by its path within; a file is `""`."""
    files = {"": path} if path.is_file() else _files(path)
    return {
        name: (hashed(file), bool(file.stat().st_mode & 0o100 and name))
        for name, file in files.items()
    }


def tree_digest(folder: Path) -> Digest:
    """The digest that a folder must get."""
    files = _files(folder)
    entries = [
        Entry(path=name, size=files[name].stat().st_size, digest=digest, executable=executable)
        for name, (digest, executable) in contents(folder).items()
    ]
    return hash_bytes(tree_bytes(entries)).digest


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }


ACTS: dict[str, tuple[Callable[[World], Deed], int]] = {
    "publish a large file": (World.publish_large, 3),
    "publish many files": (World.publish_many, 3),
    "publish a known tree": (World.publish_tree, 2),
    "checkout a large file": (World.checkout_large, 2),
    "checkout a tree": (World.checkout_tree, 2),
    "checkout --link": (World.checkout_links, 2),
    "checkout over a target": (World.checkout_over, 1),
    "gc, condemning": (World.gc_condemn, 3),
    "gc, sweeping": (World.gc_sweep, 3),
    "evict": (World.evict, 3),
    "rewind": (World.rewind, 3),
    "repair from a copy": (World.repair_copy, 2),
    "repair by a run": (World.repair_run, 2),
}
"""What is killed -> how it is set up, and its share of the kills."""
