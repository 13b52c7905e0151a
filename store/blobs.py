"""Bytes by digest: `objects/ab/cdef…`, immutable, mode 0444.

Owns the names of objects and the verified way to read them. Rules: an object is written once and
never changed; its name is the BLAKE3 digest of its bytes; what a `put_…` returned is durable; bytes
that do not match their name are an IntegrityError, whoever asks. How objects are written is the
business of store/staging.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from schemas.digest import is_digest
from schemas.errors import IntegrityError
from store import staging
from store.durable import sync_folder, writing
from store.hashing import hash_bytes, hash_file
from store.staging import Batch, Stored, corrupt, object_path, reading_object

OBJECT_FOLDER = re.compile(r"[0-9a-f]{2}")
OBJECT_FILE = re.compile(r"[0-9a-f]{62}")


class BlobStore:
    """The objects below one folder. Opening it touches no disk; `create` makes the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @classmethod
    def create(cls, root: Path) -> BlobStore:
        """Make an empty store at `root`; nothing happens if there is one. Raises StorageError."""
        store = cls(root)
        with writing(store.root):
            (store.root / staging.TEMPORARY).mkdir(parents=True, exist_ok=True)
            sync_folder(store.root)
            sync_folder(store.root.parent)
        return store

    def batch(self) -> AbstractContextManager[Batch]:
        """Many puts that share their directory fsyncs; nothing is stored before its `commit`."""
        return staging.batch(self.root)

    def put_bytes(self, data: bytes, *, sha256: bool = False) -> Stored:
        """Store `data` durably. Raises StorageError, IntegrityError."""
        with self.batch() as batch:
            stored = batch.add_bytes(data, sha256=sha256)
            batch.commit()
        return stored

    def put_file(self, path: Path, *, sha256: bool = False) -> Stored:
        """Store the content of the regular file `path` durably.

        Raises InputError (unreadable, link, special, changed meanwhile), StorageError,
        IntegrityError.
        """
        with self.batch() as batch:
            stored = batch.add_file(path, sha256=sha256)
            batch.commit()
        return stored

    def has(self, digest: str) -> bool:
        """Whether the object is there; its bytes are not looked at."""
        return self._place(digest).is_file()

    def path(self, digest: str) -> Path:
        """Return the read-only file of the object. Raises IntegrityError `store.missing`."""
        place = self._place(digest)
        if not place.is_file():
            raise _missing(digest)
        return place

    def open(self, digest: str) -> BinaryIO:
        """Open the object for reading, unverified. Raises IntegrityError `store.missing`."""
        return self.path(digest).open("rb")

    def size(self, digest: str) -> int:
        """Bytes of the object. Raises IntegrityError `store.missing`."""
        return self.path(digest).stat().st_size

    def read(self, digest: str, *, verify: bool = True) -> bytes:
        """Return the object's bytes. Raises IntegrityError `store.missing` or `store.corrupt`."""
        place = self.path(digest)
        with reading_object(digest, place):
            data = place.read_bytes()
        if verify:
            self._expect(digest, hash_bytes(data).digest)
        return data

    def verify(self, digest: str) -> int:
        """Hash the object and return its size; raises IntegrityError, naming it, on a mismatch."""
        place = self.path(digest)
        with reading_object(digest, place):
            found = hash_file(place)
        self._expect(digest, found.digest)
        return found.size

    def digests(self) -> Iterator[str]:
        """Every object's digest, in order. Files that are not objects are passed over."""
        for folder in _names(self.root, OBJECT_FOLDER):
            for name in _names(self.root / folder, OBJECT_FILE):
                yield folder + name

    def _place(self, digest: str) -> Path:
        if not is_digest(digest):
            raise ValueError(f"not a digest: {digest!r}")
        return object_path(self.root, digest)

    def _expect(self, digest: str, found: str) -> None:
        if found != digest:
            raise corrupt(digest, self._place(digest), f"its bytes hash to {found}")


def _names(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    try:
        with os.scandir(folder) as listing:
            return sorted(child.name for child in listing if pattern.fullmatch(child.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _missing(digest: str) -> IntegrityError:
    return IntegrityError(
        f"Object {digest} is not in the store.",
        remedy="Publish the same content again or restore it from a backup; `still fsck` lists"
        " everything that is missing.",
        code="store.missing",
    )
