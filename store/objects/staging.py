"""How bytes enter the store: staged out of sight, made durable, then shown all at once.

Owns `objects/tmp/`. A batch has a folder of its own there, locked (flock) as long as its process
lives. The lock separates what a crash left behind from work in progress, without trusting process
ids. The protocol of a batch:

    1. each source is copied into the folder and hashed in the same pass, read-only;
    2. `commit` makes the copies durable: fsync each, or one syncfs when they are many;
    3. it renames each to `objects/ab/cdef…`, unless the object is already there;
    4. it makes every folder that took part durable, also for objects that were already there:
       the process that renamed them may have died before its own fsync;
    5. only then are the digests acknowledged.

A crash before 3 leaves nothing visible, a crash later leaves whole objects that nobody refers to.
Small files are handled one after the other: their system calls are too short for threads to gain.
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from stillhouse.schemas.errors import StorageError
from stillhouse.store.disk import kernel, locks
from stillhouse.store.disk.durable import MANY, reading, sync, sync_folders, unreadable, writing
from stillhouse.store.disk.hashing import CHUNK, FileHash, Hasher, hash_bytes
from stillhouse.store.disk.streaming import Tell, pieces, pour, write_all
from stillhouse.store.objects import quarantine
from stillhouse.store.objects.leases import absent
from stillhouse.store.objects.paths import OBJECT_MODE, TEMPORARY, corrupt, object_path, vanished
from stillhouse.store.objects.sources import refuse_changed, refuse_special

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Stored(NamedTuple):
    """What the store knows about bytes it has taken. A tuple, because there are many."""

    digest: str
    size: int
    """Bytes."""
    sha256: str | None = None
    """When it was asked for."""


class _Copy(NamedTuple):
    path: str
    size: int


class Batch:
    """Copies waiting to be shown. For one thread."""

    def __init__(self, *, objects: Path, folder: Path, lock: int, tell: Tell) -> None:
        self.tell = tell
        """Hears how many more bytes of sources were taken in."""
        self._objects = objects
        self._root = os.fspath(objects)
        self._folder = os.fspath(folder)
        self._lock = lock
        self._names = itertools.count()
        self._copies: dict[str, _Copy] = {}
        self._present: dict[str, int] = {}
        self._open: list[int] = []
        self._at_once = False
        self._clones = True
        self._masked: bool | None = None  # whether the umask takes rights from new objects
        self._condemned = quarantine.prefixes(objects)
        self.began_ns = os.fstat(lock).st_mtime_ns
        """When the batch began, by the clock of the store's file system."""
        self.durable_ns = self.began_ns
        """By the same clock: all names that the batch relies on came before, and are durable."""
        self.relied = False
        """Whether it met objects under younger names than expected, and made them durable."""
        self.device = os.fstat(lock).st_dev
        """Of the store's file system."""

    def add_bytes(self, data: bytes, *, sha256: bool = False) -> Stored:
        """Stage `data`. Raises StorageError, IntegrityError."""
        found = hash_bytes(data, sha256=sha256)
        with writing(self._objects):
            if not self._has(found.digest, found.size):
                path, descriptor = self._temporary()
                write_all(descriptor, data)
                self._settle(found, path, descriptor)
        return _stored(found)

    def add_open(
        self,
        source: Path | str,
        reader: int,
        before: os.stat_result,
        *,
        sha256: bool = False,
        met: bool = False,
    ) -> Stored:
        """Stage the content of a regular file that is open: its descriptor and its status.

        `met`: this path had this size before, so the store may well have its content. Raises
        InputError when it cannot be read, is not a regular file, or changes meanwhile; StorageError
        when the disk refuses the copy; IntegrityError as `commit` does.
        """
        if not stat.S_ISREG(before.st_mode):
            refuse_special(source, before.st_mode)
        if before.st_size < CHUNK:
            data = _read_small(source, reader, before.st_size)
            refuse_changed(source, before, os.fstat(reader), len(data))
            self.tell(len(data))
            return self.add_bytes(data, sha256=sha256)
        if met:
            found = _hashed(source, reader, before, sha256=sha256)
            with writing(self._objects):
                if self._has(found.digest, found.size):
                    self.tell(found.size)
                    return _stored(found)
            os.lseek(reader, 0, os.SEEK_SET)
        return self._add_large(source, reader, before, sha256=sha256)

    def holds(self, digest: str, size: int, *, durable_ns: int) -> bool:
        """Whether the store has this object, of this size; a condemned one comes back.

        For what an earlier batch acknowledged, which had `durable_ns`: its folder is synced again
        only if the object has a younger name. Then it was gone meanwhile, and the process that
        put it back may have died before it made that durable.
        """
        try:
            status = os.stat(self._place(digest))  # noqa: PTH116  # for each of many files
        except FileNotFoundError:
            status = None
        if status is not None and status.st_ctime_ns <= durable_ns:
            return status.st_size == size and stat.S_ISREG(status.st_mode)
        self.relied = True
        with writing(self._objects):
            return self._has(digest, size)

    def commit(self) -> None:
        """Show everything that was staged; returns when it is durable.

        Raises StorageError; IntegrityError when an object that was already there has another length
        or is gone.
        """
        with writing(self._objects):
            self._make_durable()
            for digest, copy in self._copies.items():
                self._show(digest, copy)
            for digest, size in self._present.items():
                if not self._in_place(digest, size) and not self._revived(digest, size):
                    raise vanished(digest)
            moment = self._moment()
            prefixes = sorted({d[:2] for group in (self._copies, self._present) for d in group})
            if prefixes:
                folders = [self._objects / prefix for prefix in prefixes]
                sync_folders([*folders, self._objects], self._lock)
            self.durable_ns = moment

    def close(self) -> None:
        """Let go of the copies."""
        while self._open:
            os.close(self._open.pop())

    def _add_large(
        self, source: Path | str, reader: int, before: os.stat_result, *, sha256: bool
    ) -> Stored:
        with writing(self._objects):
            path, descriptor = self._cloned(reader)
            cloned = descriptor >= 0
            if not cloned:
                path, descriptor = self._temporary()
                kernel.reserve(descriptor, before.st_size)
            hasher = Hasher(sha256=sha256, expected=before.st_size)
            if cloned:
                for piece in pieces(descriptor, before.st_size, partial(reading, path)):
                    hasher.update(piece)
                    self.tell(len(piece))
            else:
                guard = partial(reading, source)
                pour(
                    reader,
                    descriptor,
                    size=before.st_size,
                    hasher=hasher,
                    guard=guard,
                    cached=False,
                    tell=self.tell,
                )
            found = hasher.result()
            refuse_changed(source, before, os.fstat(reader), found.size)
            if self._has(found.digest, found.size):
                self._open.remove(descriptor)
                os.close(descriptor)
                Path(path).unlink()
            else:
                self._settle(found, path, descriptor)
        return _stored(found)

    def _temporary(self) -> tuple[str, int]:
        path = f"{self._folder}/{next(self._names)}"
        descriptor = os.open(path, _NEW_FILE, OBJECT_MODE)
        self._open.append(descriptor)
        return path, descriptor

    def _cloned(self, reader: int) -> tuple[str, int]:
        """A clone of the source, open; -1 where the file system makes none."""
        path = f"{self._folder}/{next(self._names)}"
        self._clones = self._clones and kernel.clone(reader, Path(path), OBJECT_MODE)
        if not self._clones:
            return path, -1
        self._open.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return path, self._open[-1]

    def _settle(self, found: FileHash, path: str, descriptor: int) -> None:
        """Take a finished copy in; it is made durable now, or at `commit` with the others."""
        if self._masked is None:
            self._masked = stat.S_IMODE(os.fstat(descriptor).st_mode) != OBJECT_MODE
        if self._masked:
            os.fchmod(descriptor, OBJECT_MODE)
        if found.size >= CHUNK:
            _refuse_short(descriptor, found.size)
        self._copies[found.digest] = _Copy(path, found.size)
        if self._at_once or len(self._open) > MANY:
            self._let_go()

    def _let_go(self) -> None:
        """Too many to keep open: one syncfs will do for all, where there is one."""
        if kernel.can_sync_all():
            self._at_once = True
        else:
            for descriptor in self._open:
                os.fsync(descriptor)
        self.close()

    def _make_durable(self) -> None:
        if self._at_once:
            kernel.sync_all(self._lock)
        elif self._copies:
            for descriptor in self._open:
                sync(descriptor)
            if not kernel.can_sync_all():
                sync(self._lock)  # on macOS: empties the drive's cache, for those let go
        self.close()

    def _moment(self) -> int:
        """Now, by the clock of the store's file system."""
        os.utime(self._lock)
        return os.fstat(self._lock).st_mtime_ns

    def _has(self, digest: str, size: int) -> bool:
        """Whether the object is staged already or in the store; a condemned one is put back."""
        if digest in self._copies or digest in self._present:
            return True
        if not self._in_place(digest, size) and not (
            digest[:2] in self._condemned and self._revived(digest, size)
        ):
            return False
        self._present[digest] = size
        return True

    def _in_place(self, digest: str, size: int) -> bool:
        """Whether the object is in its place. Raises IntegrityError when it has another size."""
        try:
            status = os.lstat(self._place(digest))
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            what = f"it has {status.st_size} bytes instead of {size}"
            raise corrupt(digest, object_path(self._objects, digest), what)
        return True

    def _revived(self, digest: str, size: int) -> bool:
        return quarantine.revive(self._objects, digest, size)

    def _show(self, digest: str, copy: _Copy) -> None:
        if self._in_place(digest, copy.size):  # another process was faster
            return
        target = self._place(digest)
        try:
            os.rename(copy.path, target)  # noqa: PTH104  # for each of many files
        except FileNotFoundError:
            Path(target).parent.mkdir(exist_ok=True)
            Path(copy.path).rename(target)

    def _place(self, digest: str) -> str:
        """As `object_path`; a Path costs more than the system call that it is for."""
        return f"{self._root}/{digest[:2]}/{digest[2:]}"


@contextmanager
def batch(objects: Path, tell: Tell = lambda _: None) -> Iterator[Batch]:
    """Open a batch whose folder goes away with it, also after an error.

    What killed ones left goes first: it may be what fills the disk. Raises StorageError when the
    store is missing, full or read-only.
    """
    with suppress(StorageError):  # what may not be removed, or not yet, hinders nobody
        sweep(objects)
    folder, lock = _claim(objects)
    opened_batch = Batch(objects=objects, folder=folder, lock=lock, tell=tell)
    try:
        yield opened_batch
    finally:
        opened_batch.close()
        # What cannot be removed now (a failing disk) goes with the next; the first error matters.
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(objects: Path) -> tuple[str, ...]:
    """Remove what dead processes left in `objects/tmp/`; returns the removed names.

    A folder goes when nobody holds its lock. Raises StorageError.
    """
    area = objects / TEMPORARY
    if not area.is_dir():
        return ()
    with writing(objects):
        return tuple(path.name for path in sorted(area.iterdir()) if _remove_if_free(path))


def _claim(objects: Path) -> tuple[Path, int]:
    """A folder of our own, and its lock."""
    area = objects / TEMPORARY
    with writing(objects):
        try:
            area.mkdir(exist_ok=True)
        except FileNotFoundError as error:
            raise absent(objects) from error
        return locks.claim(partial(tempfile.mkdtemp, dir=area, prefix="put-"))


def _remove_if_free(path: Path) -> bool:
    with suppress(FileNotFoundError):  # its owner, or another sweep, was faster
        if not path.is_dir() or path.is_symlink():
            path.unlink()
            return True
        with locks.opened(path) as lock:
            if locks.try_acquire(lock):
                shutil.rmtree(path)
                return True
    return False


def _refuse_short(descriptor: int, size: int) -> None:
    kept = os.fstat(descriptor).st_size
    if kept != size:
        raise StorageError(
            f"The disk kept {kept} of {size} bytes.",
            remedy="Check the disk, then try again; nothing was recorded.",
            code="store.short_write",
        )


def _hashed(source: Path | str, reader: int, before: os.stat_result, *, sha256: bool) -> FileHash:
    hasher = Hasher(sha256=sha256, expected=before.st_size)
    for piece in pieces(reader, before.st_size, partial(reading, source)):
        hasher.update(piece)
    refuse_changed(source, before, os.fstat(reader), hasher.result().size)
    return hasher.result()


def _read_small(source: Path | str, reader: int, size: int) -> bytes:
    """The whole file, or a little more than its size when it is longer than it says."""
    try:
        data = os.read(reader, size + 1)
        while len(data) < size and (more := os.read(reader, size + 1 - len(data))):
            data += more
    except OSError as error:
        raise unreadable(source, error) from error
    return data


def _stored(found: FileHash) -> Stored:
    return Stored(digest=found.digest, size=found.size, sha256=found.sha256)
