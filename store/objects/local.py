"""Bytes by digest: `objects/ab/cdef…`, immutable, mode 0444.

Owns the verified way to read objects. Rules: an object is written once and never changed. Its name
is the BLAKE3 digest of its bytes. What a `put_…` returned is durable. Bytes that do not match their
name are an IntegrityError for every reader. A condemned object is read like any other.

How objects are written is the business of store/objects/staging.py, how they go that of
store/objects/quarantine.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from stillhouse.schemas.digest import is_digest
from stillhouse.store.disk.durable import sync_folder, writing
from stillhouse.store.disk.hashing import hash_bytes, hash_open
from stillhouse.store.disk.streaming import Tell
from stillhouse.store.objects import leases, quarantine, staging
from stillhouse.store.objects.leases import Lease
from stillhouse.store.objects.paths import (
    TEMPORARY,
    condemned_path,
    corrupt,
    listed,
    missing,
    object_path,
    reading_object,
)
from stillhouse.store.objects.quarantine import Condemned
from stillhouse.store.objects.staging import Batch, Stored
from stillhouse.store.objects.statcache import Memory, StatCache


class BlobStore:
    """The objects below one folder. Opening it touches no disk; `create` makes the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @classmethod
    def create(cls, root: Path) -> BlobStore:
        """Make an empty store at `root`; nothing happens if there is one. Raises StorageError."""
        store = cls(root)
        with writing(store.root):
            (store.root / TEMPORARY).mkdir(parents=True, exist_ok=True)
            sync_folder(store.root)
            sync_folder(store.root.parent)
        return store

    def batch(self, tell: Tell = lambda _: None) -> AbstractContextManager[Batch]:
        """Many puts that share their directory fsyncs; nothing is stored before its `commit`.

        `tell` hears how many more bytes of files were taken in.
        """
        return staging.batch(self.root, tell)

    def put_bytes(self, data: bytes, *, sha256: bool = False) -> Stored:
        """Store `data` durably. Raises StorageError, IntegrityError."""
        with self.batch() as batch:
            stored = batch.add_bytes(data, sha256=sha256)
            batch.commit()
        return stored

    def put_file(
        self,
        path: Path,
        *,
        sha256: bool = False,
        cache: StatCache | None = None,
        tell: Tell = lambda _: None,
    ) -> Stored:
        """Store the content of the regular file `path` durably.

        `cache` spares reading it when it did not change since it was recorded there. `tell` as for
        `batch`. Raises InputError (unreadable, link, special, changed meanwhile), StorageError,
        IntegrityError.
        """
        with self.batch(tell) as batch:
            memory = Memory(cache, path, batch)
            stored = memory.take(path, "", sha256=sha256)
            batch.commit()
            memory.keep()
        return stored

    def has(self, digest: str) -> bool:
        """Whether the object is there, be it condemned; its bytes are not looked at."""
        return self._found(digest) is not None

    def path(self, digest: str) -> Path:
        """Return the read-only file of the object. Raises IntegrityError `store.missing`."""
        place = self._found(digest)
        if place is None:
            raise missing(digest)
        return place

    def open(self, digest: str) -> BinaryIO:
        """Open the object for reading, unverified. Raises IntegrityError."""
        path = self.path(digest)
        try:
            return path.open("rb")
        except FileNotFoundError:  # condemned or put back since we looked
            path = self.path(digest)
        except OSError as error:
            raise corrupt(digest, path, f"it cannot be read ({error.strerror})") from error
        with reading_object(digest, path):
            return path.open("rb")

    def size(self, digest: str) -> int:
        """Bytes of the object. Raises IntegrityError `store.missing`."""
        with self.open(digest) as blob:
            return os.fstat(blob.fileno()).st_size

    def read(self, digest: str, *, verify: bool = True) -> bytes:
        """Return the object's bytes. Raises IntegrityError `store.missing` or `store.corrupt`."""
        with self.open(digest) as blob, reading_object(digest, self._place(digest)):
            data = blob.read()
        if verify:
            self._expect(digest, hash_bytes(data).digest)
        return data

    def verify(self, digest: str, *, alone: bool = True) -> int:
        """Hash the object and return its size; raises IntegrityError, naming it, on a mismatch.

        `alone`: as for `hash_open`.
        """
        with self.open(digest) as blob, reading_object(digest, self._place(digest)):
            found = hash_open(blob.fileno(), alone=alone)
        self._expect(digest, found.digest)
        return found.size

    def digests(self) -> Iterator[str]:
        """Every object's digest, in order. What is condemned, or no object, is passed over."""
        for digest, _ in listed(self.root):
            yield digest

    def lease(self) -> AbstractContextManager[None]:
        """Keep garbage collection from what this process has seen and not yet recorded.

        Hold it from before the first look until the event is in the ledger. Raises StorageError.
        """
        return leases.lease(self.root)

    def leases(self) -> list[Lease]:
        """Every lease that is held. Those of the dead are removed. Raises StorageError."""
        return leases.live_leases(self.root)

    def condemn(self, digests: Iterable[str]) -> None:
        """Take these objects out of their places; they can still be read. Raises StorageError."""
        quarantine.condemn(self.root, map(_checked, digests))

    def condemned(self) -> Iterator[Condemned]:
        """Every condemned object: digest, size, since when (ns), in order of digest."""
        return quarantine.condemned(self.root)

    def restore(self, digest: str) -> bool:
        """Put a condemned object back; False when it is none. Raises StorageError."""
        return quarantine.restore(self.root, _checked(digest))

    def sweep(self, digests: Iterable[str]) -> int:
        """Remove these from among the condemned, for good; returns the bytes freed.

        The rule that makes this safe is in docs/store.md. Raises StorageError.
        """
        return quarantine.sweep(self.root, map(_checked, digests))

    def _place(self, digest: str) -> Path:
        return object_path(self.root, _checked(digest))

    def _found(self, digest: str) -> Path | None:
        place = self._place(digest)
        # Looked at twice: between the first two looks it may have come back.
        for path in (place, condemned_path(self.root, digest), place):
            if path.is_file():
                return path
        return None

    def _expect(self, digest: str, found: str) -> None:
        if found != digest:
            raise corrupt(digest, self.path(digest), f"its bytes hash to {found}")


def _checked(digest: str) -> str:
    if not is_digest(digest):
        raise ValueError(f"not a digest: {digest!r}")
    return digest
