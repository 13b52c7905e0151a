"""How bytes enter the store: staged out of sight, made durable, then shown all at once.

Owns `objects/tmp/`. A batch has a folder of its own there, locked (flock) as long as its process
lives, so that what a crash left behind can be told from work in progress without trusting process
ids. The protocol of a batch:

    1. each source is hashed, and unless the store has it already, copied into the folder, made
       read-only and fsynced;
    2. `commit` renames each copy to `objects/ab/cdef…`, unless the object is already there;
    3. it fsyncs every folder that took part, also for objects that were already there: whoever
       renamed them may have died before his own fsync;
    4. only then are the digests acknowledged.

A crash before 2 leaves nothing visible, a crash later leaves whole objects that nobody refers to.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import InputError, IntegrityError, StorageError
from store.durable import reading, shown, sync, sync_folder, writing
from store.hashing import CHUNK, FileHash, Hasher, chunks, hash_bytes

TEMPORARY = "tmp"
"""Name of the staging area under `objects/`."""

_OBJECT_MODE = 0o444
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
# O_NONBLOCK: opening a fifo that nobody writes to would otherwise hang before we can refuse it.
_SOURCE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What the store knows about bytes it has taken."""

    digest: str
    size: int
    """Bytes."""
    sha256: str | None = None
    """When it was asked for."""


@dataclass(frozen=True)
class _Taken:
    stored: Stored
    copy: Path | None
    """None: the object was there already."""


def object_path(objects: Path, digest: str) -> Path:
    """Where the object of that name lives: two characters of folder, the rest is the file name."""
    return objects / digest[:2] / digest[2:]


class Batch:
    """Copies waiting to be shown. `add_…` may be called from several threads."""

    def __init__(self, *, objects: Path, folder: Path) -> None:
        self._objects = objects
        self._folder = folder
        self._names = itertools.count()
        self._taken: list[_Taken] = []

    def add_bytes(self, data: bytes, *, sha256: bool = False) -> Stored:
        """Stage `data`. Raises StorageError."""
        found = hash_bytes(data, sha256=sha256)
        if self._has(found):
            return self._take(found, None)
        with writing(self._objects), self._temporary() as (path, descriptor):
            write_all(descriptor, data)
            _seal(descriptor, found)
        return self._take(found, path)

    def add_file(self, source: Path, *, sha256: bool = False) -> Stored:
        """Stage the content of the regular file `source`.

        Raises InputError when it cannot be read, is not a regular file, or changes meanwhile;
        StorageError when the disk refuses the copy.
        """
        with reading(source):
            refuse_special(source, os.lstat(source).st_mode)
            descriptor = os.open(source, _SOURCE)
        try:
            before = os.fstat(descriptor)
            refuse_special(source, before.st_mode)
            if before.st_size < CHUNK:
                return self._add_small(source, descriptor, before, sha256=sha256)
            return self._add_large(source, descriptor, before, sha256=sha256)
        finally:
            os.close(descriptor)

    def commit(self) -> None:
        """Show everything that was staged; returns when it is durable.

        Raises StorageError; IntegrityError when an object that was already there has another length
        or is gone.
        """
        with writing(self._objects):
            for taken in self._taken:
                self._show(taken)
            for name in sorted({taken.stored.digest[:2] for taken in self._taken}):
                sync_folder(self._objects / name)
            sync_folder(self._objects)

    def _add_small(
        self, source: Path, descriptor: int, before: os.stat_result, *, sha256: bool
    ) -> Stored:
        data = b"".join(map(bytes, _pieces(source, descriptor, before.st_size)))
        refuse_changed(source, before, os.fstat(descriptor), len(data))
        return self.add_bytes(data, sha256=sha256)

    def _add_large(
        self, source: Path, descriptor: int, before: os.stat_result, *, sha256: bool
    ) -> Stored:
        """Hash first: most large files are met again, and hashing is far cheaper than writing."""
        hasher = Hasher(sha256=sha256, expected=before.st_size)
        for piece in _pieces(source, descriptor, before.st_size):
            hasher.update(piece)
        found = hasher.result()
        refuse_changed(source, before, os.fstat(descriptor), found.size)
        if self._has(found):
            return self._take(found, None)
        return self._take(found, self._copy(source, descriptor, before, found))

    def _copy(
        self, source: Path, descriptor: int, before: os.stat_result, expected: FileHash
    ) -> Path:
        """Copy what was hashed; its bytes are hashed again, for they may have changed since."""
        hasher = Hasher(expected=expected.size)
        os.lseek(descriptor, 0, os.SEEK_SET)
        with writing(self._objects), self._temporary() as (path, copy):
            for piece in _pieces(source, descriptor, before.st_size):
                hasher.update(piece)
                write_all(copy, piece)
            refuse_changed(source, before, os.fstat(descriptor), hasher.result().size)
            if hasher.result().digest != expected.digest:  # through a mapping, say
                raise changed(source)
            _seal(copy, expected)
        return path

    @contextmanager
    def _temporary(self) -> Iterator[tuple[Path, int]]:
        path = self._folder / str(next(self._names))
        descriptor = os.open(path, _NEW_FILE, 0o600)
        try:
            yield path, descriptor
        finally:
            os.close(descriptor)

    def _has(self, found: FileHash) -> bool:
        return object_path(self._objects, found.digest).is_file()

    def _take(self, found: FileHash, copy: Path | None) -> Stored:
        stored = Stored(digest=found.digest, size=found.size, sha256=found.sha256)
        self._taken.append(_Taken(stored, copy))
        return stored

    def _show(self, taken: _Taken) -> None:
        target = object_path(self._objects, taken.stored.digest)
        try:
            present = target.lstat()
        except FileNotFoundError as error:
            if taken.copy is None:
                raise vanished(taken.stored.digest) from error
            target.parent.mkdir(exist_ok=True)
            taken.copy.rename(target)
            return
        if not stat.S_ISREG(present.st_mode) or present.st_size != taken.stored.size:
            what = f"it has {present.st_size} bytes instead of {taken.stored.size}"
            raise corrupt(taken.stored.digest, target, what)


def corrupt(digest: str, path: Path, what: str) -> IntegrityError:
    """Make the error for an object whose bytes are not what its name says."""
    return IntegrityError(
        f"Object {digest} is corrupt: {what}.",
        remedy=f"Move {path} away and publish the same content again, or restore it from a backup;"
        " then run `still fsck`.",
        code="store.corrupt",
    )


@contextmanager
def reading_object(digest: str, path: Path) -> Iterator[None]:
    """Turn an OSError raised while reading an object into the error of a corrupt one."""
    try:
        yield
    except OSError as error:
        raise corrupt(digest, path, f"it cannot be read ({error.strerror or error})") from error


def vanished(digest: str) -> IntegrityError:
    """Make the error for an object that was removed while the same content was being put."""
    return IntegrityError(
        f"Object {digest} was removed while the same content was being stored.",
        remedy="Run the same command again; nothing was recorded.",
        code="store.vanished",
    )


def refuse_special(path: Path, mode: int) -> None:
    """Raise InputError unless `mode` (st_mode, not followed) is that of a regular file."""
    if stat.S_ISREG(mode):
        return
    if stat.S_ISLNK(mode):
        raise InputError(
            f"{shown(path)} is a symbolic link.",
            remedy="Publish what it points to, or a copy with the links resolved (`cp -rL`).",
            code="file.symlink",
        )
    kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file (a fifo, socket or device)"
    raise InputError(
        f"{shown(path)} is {kind}.",
        remedy="Only regular files can be stored; leave it out, then try again.",
        code="file.special",
    )


def refuse_changed(
    path: Path, before: os.stat_result, after: os.stat_result, size: int | None = None
) -> None:
    """Raise InputError when a file is not what it was; `size` is the number of bytes read."""
    if signature(before) == signature(after) and size in (None, after.st_size):
        return
    raise changed(path)


def changed(path: Path) -> InputError:
    """Make the error for a file that somebody writes to while we read it."""
    return InputError(
        f"{shown(path)} changed while it was being read.",
        remedy="Wait until nothing writes to it any more, then try again; nothing was recorded.",
        code="file.changed",
    )


def signature(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes whenever a file's content may have changed."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


@contextmanager
def batch(objects: Path) -> Iterator[Batch]:
    """Open a batch whose folder goes away with it, whatever happens.

    Raises StorageError when the store is missing, full or read-only.
    """
    folder, lock = _claim(objects)
    try:
        yield Batch(objects=objects, folder=folder)
    finally:
        # What cannot be removed now (a failing disk) is swept by fsck; the first error matters.
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(objects: Path, *, now: float, min_age: float) -> tuple[str, ...]:
    """Remove what dead processes left in `objects/tmp/`; returns the removed names.

    A folder goes when nobody holds its lock and it is older than `min_age` seconds at `now` (Unix
    time). Raises StorageError.
    """
    area = objects / TEMPORARY
    if not area.is_dir():
        return ()
    with writing(objects):
        return tuple(
            path.name
            for path in sorted(area.iterdir())
            if now - path.lstat().st_mtime >= min_age and _remove_if_free(path)
        )


def _claim(objects: Path) -> tuple[Path, int]:
    area = objects / TEMPORARY
    with writing(objects):
        try:
            area.mkdir(exist_ok=True)
        except FileNotFoundError as error:
            raise StorageError(
                f"There is no store at {objects}.",
                remedy="Run `still init` first, or name the registry with --registry.",
                code="store.absent",
            ) from error
        folder = Path(tempfile.mkdtemp(dir=area, prefix="put-"))
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return folder, lock


def _remove_if_free(path: Path) -> bool:
    if not path.is_dir() or path.is_symlink():
        path.unlink()
        return True
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _pieces(source: Path, descriptor: int, size: int) -> Iterator[memoryview]:
    """Yield the file's bytes; stops soon after `size`, so that an endless file does not."""
    total = 0
    with reading(source):
        for piece in chunks(descriptor, size):
            yield piece
            total += len(piece)
            if total > size:
                return


def write_all(descriptor: int, data: memoryview | bytes) -> None:
    """Write all of `data`, in as many steps as the system needs. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _seal(descriptor: int, expected: FileHash) -> None:
    os.fchmod(descriptor, _OBJECT_MODE)
    sync(descriptor)
    length = os.fstat(descriptor).st_size
    if length != expected.size:
        raise StorageError(
            f"The disk kept {length} of {expected.size} bytes.",
            remedy="Check the disk, then try again; nothing was recorded.",
            code="store.short_write",
        )
