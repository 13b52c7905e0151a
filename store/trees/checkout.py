"""Artifacts as ordinary files: copies for people, links for workers.

Owns what leaves the store. Rules: DEST must not exist and appears complete or not at all (built
beside it, then renamed). Every byte is verified on its way out.

Unless links are asked for, a checkout shares no writable storage with the object, so editing it
cannot change the store. It is a reflink, which the file system copies on write, else a copy. A hard
link can be edited through, by root in every mode. Then the object is corrupt, which `fsck` and
every verified read report.

Checkouts are not fsynced: they can be made again. What is unfinished lies in a hidden folder beside
DEST, which its process keeps locked (flock). The next checkout there removes what the dead left.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from stillhouse.schemas.artifact import Form
from stillhouse.schemas.errors import InputError
from stillhouse.store.disk import kernel, locks
from stillhouse.store.disk.durable import shown, writing
from stillhouse.store.disk.hashing import CHUNK, Hasher, hash_file
from stillhouse.store.disk.streaming import Tell, pour, write_all
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.objects.paths import corrupt, reading_object
from stillhouse.store.trees.trees import read_tree

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_CANNOT_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})

_UNFINISHED = ".still-unfinished-"

LinkMode = Literal["reflink", "copy", "link"]


@dataclass
class Taken:
    """How the files of a checkout came about."""

    files: dict[LinkMode, int]
    """How many came about in each way."""
    bytes: dict[LinkMode, int]
    """Their bytes."""
    swept: tuple[str, ...] = ()
    """Names of what dead checkouts had left in the same folder, and is gone now."""

    def note(self, how: LinkMode, size: int) -> None:
        """Count one more file."""
        self.files[how] = self.files.get(how, 0) + 1
        self.bytes[how] = self.bytes.get(how, 0) + size


def checkout(
    store: BlobStore,
    digest: str,
    form: Form,
    dest: Path,
    *,
    link: bool = False,
    tell: Tell = lambda _: None,
) -> Taken:
    """Write the artifact to `dest`, bit-exact and writable by its user.

    `link` hands out the objects themselves where the file system can: read-only, of no size, and
    not verified. `tell` hears how many more bytes are there. Raises InputError when `dest` exists
    or its folder does not, IntegrityError when the store is not what it was, StorageError when the
    disk refuses; then there is no `dest`.
    """
    outlet = _Outlet(store, link=link, tell=tell)
    outlet.taken.swept = _sweep(dest.parent)
    with _appearing(dest) as temporary:
        if form == "blob":
            outlet.hand_out(digest, temporary, executable=False)
            return outlet.taken
        temporary.mkdir()
        made = {temporary}
        for entry in read_tree(store, digest):
            target = temporary / entry.path
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            outlet.hand_out(entry.digest, target, executable=entry.executable)
    return outlet.taken


def link_tree(store: BlobStore, digest: str, dest: Path) -> Taken:
    """Make the folder `dest` of hard links to the objects of a tree: no copy, for reading only.

    Hard links, not symbolic ones, so that code which rightly refuses links in folders from outside
    can read this one. Where the file system has none, objects are copied. The tree is verified and
    each object must exist; the objects themselves are not hashed. Raises as `checkout` does.
    """
    return checkout(store, digest, "tree", dest, link=True)


@contextmanager
def _appearing(dest: Path) -> Iterator[Path]:
    """Yield a path beside `dest` that becomes `dest` when all went well, else vanishes."""
    if os.path.lexists(dest):
        raise InputError(
            f"{shown(dest)} exists already.",
            remedy="Name a path that does not exist, or move this one away.",
            code="checkout.exists",
        )
    if not dest.parent.is_dir():
        raise InputError(
            f"{shown(dest.parent)} is not a folder.",
            remedy="Create it first, or name another place.",
            code="checkout.no_folder",
        )
    with writing(dest.parent):
        cradle, lock = _claim(dest.parent)
        try:
            yield cradle / "new"
            (cradle / "new").rename(dest)
        finally:
            shutil.rmtree(cradle, ignore_errors=True)
            os.close(lock)


def _claim(folder: Path) -> tuple[Path, int]:
    """A folder of our own, and its lock where the file system has one: elsewhere nobody sweeps."""
    return locks.claim(partial(tempfile.mkdtemp, dir=folder, prefix=_UNFINISHED), required=False)


def _sweep(folder: Path) -> tuple[str, ...]:
    """Remove what dead checkouts left in `folder`, as far as we may; the names that are gone."""
    return tuple(path.name for path in sorted(folder.glob(f"{_UNFINISHED}*")) if _swept(path))


def _swept(cradle: Path) -> bool:
    folder = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    with suppress(OSError), locks.opened(cradle, folder) as lock:  # else no folder, or not ours
        if locks.try_acquire(lock):
            shutil.rmtree(cradle, ignore_errors=True)
            return not cradle.exists()
    return False


class _Outlet:
    """Hands objects out one by one, and remembers what the file system cannot do."""

    def __init__(self, store: BlobStore, *, link: bool, tell: Tell) -> None:
        self._store = store
        self._tell = tell
        self._links = link
        self._clones = True
        self.taken = Taken({}, {})

    def hand_out(self, digest: str, target: Path, *, executable: bool) -> None:
        self._links = self._links and self._linked(digest, target)
        if not self._links:
            self._copy(digest, target, executable=executable)

    def _linked(self, digest: str, target: Path) -> bool:
        try:
            target.hardlink_to(self._store.path(digest))
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            return False
        self.taken.note("link", target.stat().st_size)
        return True

    def _copy(self, digest: str, target: Path, *, executable: bool) -> None:
        # The umask takes away what the user does not want to grant.
        mode = 0o777 if executable else 0o666
        with self._store.open(digest) as blob:
            reader = blob.fileno()
            size = os.fstat(reader).st_size
            self._clones = self._clones and kernel.clone(reader, target, mode)
            if self._clones:
                found = hash_file(target).digest
                self._tell(size)
            else:
                found = self._copied(digest, reader, size, os.open(target, _NEW_FILE, mode))
        if found != digest:
            raise corrupt(digest, self._store.path(digest), f"its bytes hash to {found}")
        self.taken.note("reflink" if self._clones else "copy", size)

    def _copied(self, digest: str, reader: int, size: int, writer: int) -> str:
        """Copy and hash in one pass, and close the writer."""
        hasher = Hasher(expected=size)
        guard = partial(reading_object, digest, self._store.path(digest))
        try:
            if size >= CHUNK:
                pour(
                    reader,
                    writer,
                    size=size,
                    hasher=hasher,
                    guard=guard,
                    cached=True,
                    tell=self._tell,
                )
            else:
                with guard():
                    data = os.read(reader, size + 1)
                hasher.update(data)
                write_all(writer, data)
                self._tell(len(data))
        finally:
            os.close(writer)
        return hasher.result().digest
