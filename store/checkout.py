"""Artifacts as ordinary files: copies for people, links for workers.

Owns what leaves the store. Rules: DEST must not exist and appears complete or not at all (built
beside it, then renamed); every byte is verified on its way out; a checkout shares no writable
storage with the object (reflink, which the file system copies on write, else a copy), so editing it
cannot change the store. Checkouts are not fsynced: they can be made again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.artifact import Form
from schemas.errors import InputError
from store.blobs import BlobStore
from store.durable import shown, writing
from store.hashing import Hasher, chunks, hash_file
from store.places import corrupt, reading_object
from store.streaming import write_all
from store.trees import read_tree

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
# _IOW(0x94, 9, int), linux/fs.h; ioctl_ficlonerange(2)
_FICLONE = 0x40049409
# File systems without reflinks, or two different ones: copy instead.
_CANNOT_CLONE = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM}
)
_CANNOT_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})


def checkout(store: BlobStore, digest: str, form: Form, dest: Path) -> None:
    """Write the artifact to `dest`, bit-exact and writable by its user.

    Raises InputError when `dest` exists or its folder does not, IntegrityError when the store is
    not what it was, StorageError when the disk refuses; then there is no `dest`.
    """
    with _appearing(dest) as temporary:
        if form == "blob":
            _copy(store, digest, temporary, executable=False)
            return
        temporary.mkdir()
        for entry in read_tree(store, digest):
            target = temporary / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(store, entry.digest, target, executable=entry.executable)


def link_tree(store: BlobStore, digest: str, dest: Path) -> None:
    """Make the folder `dest` of hard links to the objects of a tree: no copy, for reading only.

    Hard links, not symbolic ones, so that code which rightly refuses links in folders from outside
    can read this one. Where the file system has none, objects are copied. The tree is verified and
    each object must exist; the objects themselves are not hashed. Raises as `checkout` does.
    """
    with _appearing(dest) as temporary:
        temporary.mkdir()
        for entry in read_tree(store, digest):
            link = temporary / entry.path
            link.parent.mkdir(parents=True, exist_ok=True)
            try:
                link.hardlink_to(store.path(entry.digest))
            except OSError as error:
                if error.errno not in _CANNOT_LINK:
                    raise
                _copy(store, entry.digest, link, executable=entry.executable)


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
        cradle = Path(tempfile.mkdtemp(dir=dest.parent, prefix=".still-"))
        try:
            yield cradle / "new"
            (cradle / "new").rename(dest)
        finally:
            shutil.rmtree(cradle, ignore_errors=True)


def _copy(store: BlobStore, digest: str, target: Path, *, executable: bool) -> None:
    with store.open(digest) as blob:
        reader = blob.fileno()
        # The umask takes away what the user does not want to grant.
        writer = os.open(target, _NEW_FILE, 0o777 if executable else 0o666)
        try:
            cloned = _cloned(reader, writer)
            found = hash_file(target).digest if cloned else _copied(store, digest, reader, writer)
        finally:
            os.close(writer)
    if found != digest:
        raise corrupt(digest, store.path(digest), f"its bytes hash to {found}")


def _cloned(reader: int, writer: int) -> bool:
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError as error:
        if error.errno in _CANNOT_CLONE:
            return False
        raise
    return True


def _pieces(store: BlobStore, digest: str, reader: int, size: int) -> Iterator[memoryview]:
    with reading_object(digest, store.path(digest)):
        yield from chunks(reader, size)


def _copied(store: BlobStore, digest: str, reader: int, writer: int) -> str:
    size = os.fstat(reader).st_size
    hasher = Hasher(expected=size)
    for piece in _pieces(store, digest, reader, size):
        hasher.update(piece)
        write_all(writer, piece)
    return hasher.result().digest
