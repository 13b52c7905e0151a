"""Hashing files: BLAKE3 names them, SHA-256 is added for released files in the same pass.

Files are read through a buffer and never mapped into memory: a mapped file that is cut short by
someone else, or sits on a failing disk, kills the process with SIGBUS where read() raises an error.
Measured on two cores: 5.5 GB/s buffered, 7.7 GB/s mapped, both far above any disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

CHUNK = 4 << 20
"""Bytes per read: large enough for BLAKE3 to use more than one thread."""

_THREADS_PAY_FROM = 1 << 20
"""Bytes: under a mebibyte, waking BLAKE3's threads costs more than they save (measured)."""


class FileHash(NamedTuple):
    """What one pass over some bytes tells."""

    digest: str
    """BLAKE3, 64 lower-case hex characters."""
    sha256: str | None
    """SHA-256, when it was asked for."""
    size: int
    """Bytes."""


class Hasher:
    """Feed it bytes in order; `result` may be read at any time.

    `expected` is the length if it is known; it only decides whether threads are used.
    """

    def __init__(self, *, sha256: bool = False, expected: int = 0) -> None:
        self._blake3 = blake3(max_threads=blake3.AUTO if expected >= _THREADS_PAY_FROM else 1)
        self._sha256 = hashlib.sha256() if sha256 else None
        self._size = 0

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._blake3.update(data)
        if self._sha256 is not None:
            self._sha256.update(data)
        self._size += len(data)

    def result(self) -> FileHash:
        """Return the hash of everything taken so far."""
        return FileHash(
            digest=self._blake3.hexdigest(),
            sha256=None if self._sha256 is None else self._sha256.hexdigest(),
            size=self._size,
        )


def hash_bytes(data: bytes, *, sha256: bool = False) -> FileHash:
    """Hash `data`."""
    if not sha256 and len(data) < _THREADS_PAY_FROM:
        return FileHash(digest=blake3(data).hexdigest(), sha256=None, size=len(data))
    hasher = Hasher(sha256=sha256, expected=len(data))
    hasher.update(data)
    return hasher.result()


def chunks(descriptor: int, size: int) -> Iterator[memoryview]:
    """Yield the rest of the file behind `descriptor`; each piece is valid until the next.

    `size` is the expected length and only chooses the buffer: reading goes on to the true end.
    Raises OSError.
    """
    buffer = memoryview(bytearray(min(CHUNK, size + 1)))
    while count := os.readv(descriptor, [buffer]):
        yield buffer[:count]


def hash_file(path: Path, *, sha256: bool = False) -> FileHash:
    """Hash the file at `path` without holding more than 4 MiB of it. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return hash_open(descriptor, sha256=sha256)
    finally:
        os.close(descriptor)


def hash_open(descriptor: int, *, sha256: bool = False) -> FileHash:
    """Hash the rest of an open file. Raises OSError."""
    size = os.fstat(descriptor).st_size
    hasher = Hasher(sha256=sha256, expected=size)
    for piece in chunks(descriptor, size):
        hasher.update(piece)
    return hasher.result()
