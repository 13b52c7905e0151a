"""What must hold of a registry's store and ledger after any kill, looked at past the store's code.

Every object is read by its path and hashed here; the ledger is compared with what it was. Nothing
that was published may be missing unless the ledger says that it was given up, and nothing may be
given up that was to be kept.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from blake3 import blake3
from finished import STILL, environment

from stillhouse.registry.home import Home
from stillhouse.registry.state.state import Published
from stillhouse.schemas.digest import Digest
from stillhouse.session import open_registry
from stillhouse.store.trees.trees import parse_tree

_PLACE = re.compile(r"(?:condemned/)?([0-9a-f]{2})/([0-9a-f]{62})")
_OBJECT_MODE = stat.S_IFREG | 0o444
_LONG_AGO = 7200.0
"""Seconds: old enough for `still fsck` to take leftovers of the dead away."""


def still(registry: Path, *words: str) -> tuple[int, str]:
    """Run a command to its end: exit code, and all that it said."""
    done = subprocess.run(
        [*STILL, "--registry", str(registry), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        check=False,
    )
    return done.returncode, done.stdout


def hashed(path: Path) -> str:
    """The digest of a file's bytes."""
    return blake3(max_threads=1).update_mmap(path).hexdigest()


class Probes:
    """The checks of one registry, and what they remember of earlier ones."""

    def __init__(self, registry: Path) -> None:
        self.registry = registry
        self.session = open_registry(Home(registry))
        self.disposable: set[Digest] = set()
        """Artifacts that may be given up; all others must stay."""
        self.damaged: set[Digest] = set()
        """Objects that were harmed on purpose and are not mended yet."""
        self.told: set[Digest] = set()
        """What commands printed as published."""
        self._log = b""
        self._members: dict[Digest, frozenset[Digest]] = {}
        self._read: dict[str, tuple[int, ...]] = {}

    # -- after each kill -----------------------------------------------------------------------

    def problems(self) -> Iterator[str]:
        """Every promise that is not kept now, in words."""
        yield from self._ledger()
        sound: set[Digest] = set()
        yield from self._objects(sound)
        state = self.session.state()
        for digest in self.told - state.artifacts.keys():
            yield f"{digest[:12]} was printed as published and is not in the ledger"
        for digest in state.absent.keys() - self.disposable:
            yield f"{digest[:12]} was to be kept, and the ledger says that it was given up"
        for digest, published in state.artifacts.items():
            if digest in state.absent:
                continue
            needed = self._needed(digest, tree=_is_tree(published))
            if gone := needed - sound - self.damaged:
                yield f"{digest[:12]} is published, and {len(gone)} of its objects are not there"

    def _ledger(self) -> Iterator[str]:
        log = (self.registry / "events.log").read_bytes()
        if not log.startswith(self._log):
            yield "the ledger is not what it was: a line that had been read is gone or changed"
        self._log = log[: log.rfind(b"\n") + 1]
        if fault := self.session.ledger.audit().fault:
            yield f"the chain is broken: {fault}"

    def _objects(self, sound: set[Digest]) -> Iterator[str]:
        """Hash every object that changed since it was last read; adds what is whole to `sound`."""
        objects = self.session.home.objects
        seen = {}
        for prefix in ("", "condemned/"):
            for folder in sorted((objects / prefix).glob("[0-9a-f][0-9a-f]")):
                for entry in os.scandir(folder):
                    name = f"{prefix}{folder.name}/{entry.name}"
                    place = _PLACE.fullmatch(name)
                    if place is None:
                        yield f"objects/{name} is no object"
                        continue
                    digest = place[1] + place[2]
                    seen[name] = now = _status(entry)
                    if self._read.get(name) != now and hashed(Path(entry.path)) != digest:
                        del seen[name]
                        if digest not in self.damaged:
                            yield f"objects/{name} is visible and is not what its name says"
                        continue
                    if now[0] != _OBJECT_MODE and digest not in self.damaged:
                        yield f"objects/{name} is visible with mode {now[0]:o}"
                    sound.add(digest)
        self._read = seen

    def _needed(self, digest: Digest, *, tree: bool) -> frozenset[Digest]:
        if not tree:
            return frozenset((digest,))
        if digest not in self._members:
            for path in self.places(digest):
                if path.is_file() and hashed(path) == digest:
                    entries = parse_tree(path.read_bytes())
                    self._members[digest] = frozenset((digest, *(e.digest for e in entries)))
        return self._members.get(digest, frozenset((digest,)))

    def only_in(self, digest: Digest) -> frozenset[Digest]:
        """The objects of an artifact that no other one needs."""
        artifacts = self.session.state().artifacts
        others = (self._needed(d, tree=_is_tree(p)) for d, p in artifacts.items() if d != digest)
        return self._needed(digest, tree=_is_tree(artifacts[digest])).difference(*others)

    def places(self, digest: Digest) -> tuple[Path, Path]:
        """Where an object is, or is when it is condemned."""
        name = f"{digest[:2]}/{digest[2:]}"
        return self.session.home.objects / name, self.session.home.objects / "condemned" / name

    # -- traces of the dead --------------------------------------------------------------------

    def traces(self, target: Path) -> tuple[object, ...]:
        """Whatever a command changes on its way; equal if a killed one had changed nothing.

        target: where checkouts go.
        """
        objects = self.session.home.objects
        return (
            (self.registry / "events.log").stat().st_size,
            sorted(path.name for path in target.glob("*")),
            sorted(self._names("damaged")),
            sorted(self._names("runs")),
            sorted(p.name for p in objects.glob("*") if p.name not in {"tmp", "leases"}),
            sorted(self._names("objects/tmp")),
            sorted(self._names("objects/leases")),
            [p.stat().st_ctime_ns for p in sorted(objects.glob("*/"))],
            [p.stat().st_ctime_ns for p in sorted(objects.glob("condemned/*/"))],
        )

    def _names(self, folder: str) -> list[str]:
        path = self.registry / folder
        return [entry.name for entry in path.iterdir()] if path.is_dir() else []

    # -- now and then, by the real commands ----------------------------------------------------

    def by_commands(self) -> Iterator[str]:
        """`still fsck` and `still audit` find nothing; fsck clears what the dead left in tmp."""
        for path in (self.registry / "objects" / "tmp").iterdir():
            past = time.time() - _LONG_AGO
            os.utime(path, (past, past))
        for verb in ("fsck", "audit"):
            code, said = still(self.registry, verb)
            if code:
                yield f"still {verb} ended with {code}: {said[-1000:]}"
        if left := self._names("objects/tmp"):
            yield f"still fsck left {len(left)} folders of the dead in objects/tmp"

    def at_rest(self) -> Iterator[str]:
        """After all: what is given up is gone, and nothing is left of anybody who was killed."""
        for _ in range(3):
            code, said = still(self.registry, "gc", "--grace", "0")
            if code:
                yield f"still gc ended with {code}: {said[-1000:]}"
        self._read = {}  # every object is read once more
        yield from self.problems()
        yield from self.by_commands()
        for folder in ("damaged", "runs", "objects/leases"):
            if left := self._names(folder):
                yield f"{len(left)} things are left in {folder}: {left[:3]}"
        if list(self.session.store.condemned()):
            yield "something is still condemned"


def _is_tree(published: Sequence[Published]) -> bool:
    return any(p.form == "tree" for p in published)


def _status(entry: os.DirEntry[str]) -> tuple[int, ...]:
    found = entry.stat(follow_symlinks=False)
    return (found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
