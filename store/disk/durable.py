"""What "durable" means on this machine, and how the disk's refusals are reported.

Owns the fsync calls and the translation of OSError. Rules: an fsync that fails is never retried and
never acknowledged. The kernel may already have dropped the dirty pages, so a second fsync that
succeeds proves nothing. A failed write is a StorageError, a failed read of somebody's file an
InputError. So the user learns which disk to look at.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from stillhouse.schemas.errors import InputError, StorageError
from stillhouse.store.disk import kernel

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})

MANY = 16
"""From so many files or folders on, one sync of the file system is cheaper than one of each."""


def sync(descriptor: int) -> None:
    """Wait until what was written through `descriptor` survives a power cut.

    On macOS fsync leaves data in the drive's own cache; F_FULLFSYNC empties that too (fcntl(2)).
    Raises OSError.
    """
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_data(descriptor: int) -> None:
    """Do as `sync` does, but leave out times and rights: a log is read by its length alone.

    Raises OSError.
    """
    if sys.platform == "darwin":
        sync(descriptor)
    else:
        os.fdatasync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` (new, renamed, removed) durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync_folders(folders: Collection[Path], within: int) -> None:
    """Make the names in all these folders durable.

    `within` is a descriptor in the same file system, opened before anything was changed there.
    Raises OSError.
    """
    if len(folders) > MANY and kernel.can_sync_all():
        kernel.sync_all(within)
        return
    for folder in folders:
        sync_folder(folder)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, with durable names. Raises OSError."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def replace_durably(path: Path, data: bytes) -> None:
    """Replace the file `path` by `data`, whole or not at all; durable when this returns.

    Raises StorageError.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        with temp.open("wb") as file:
            file.write(data)
            file.flush()
            sync(file.fileno())
        temp.replace(path)
        sync_folder(path.parent)


@contextmanager
def writing(where: Path) -> Iterator[None]:
    """Turn an OSError raised while writing to `where` into a StorageError with a remedy."""
    try:
        yield
    except OSError as error:
        raise _refusal(where, error) from error


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn an OSError raised while reading the user's `path` into an InputError."""
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path | str, error: OSError) -> InputError:
    """Make the error for a file or folder that cannot be read."""
    return InputError(
        f"{shown(path)} cannot be read: {error.strerror or 'unknown error'}.",
        remedy="Check the path and its permissions, then try again.",
        code="file.unreadable",
    )


def present(path: Path) -> bool:
    """Whether there is anything at `path` (links are followed).

    Raises InputError when that cannot be seen: a name too long, a folder that may not be entered.
    """
    with reading(path):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in it
            return False
    return True


def shown(path: Path | str) -> str:
    """`path` as it may be printed: bytes that are not UTF-8 appear as escapes."""
    text = os.fspath(path)
    return text if text.isprintable() else ascii(text)


def _refusal(where: Path, error: OSError) -> StorageError:
    if error.errno in _FULL:
        return StorageError(
            f"The disk under {where} is full.",
            remedy="Free some space, then run the same command again; nothing was recorded.",
            code="store.full",
        )
    if error.errno in _READ_ONLY:
        return StorageError(
            f"{where} may not be written to.",
            remedy="Make it writable for this user, then run the same command again.",
            code="store.read_only",
        )
    return StorageError(
        f"Writing under {where} failed: {error.strerror or error}.",
        remedy="Check the disk (its kernel log, its cable, its quota), then try again;"
        " nothing was recorded.",
        code="store.io",
    )
