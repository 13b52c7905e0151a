"""Hashing files: BLAKE3 names them, SHA-256 is added for released files in the same pass.

Files are read through a buffer and never mapped into memory. A mapped file that is cut short by
someone else, or sits on a failing disk, kills the process with SIGBUS. There read() raises an
error. Measured on two cores with many files: 7.0 GB/s buffered, 7.4 GB/s mapped, 7.2 GB/s hashing
alone.
"""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

CHUNK = 4 << 20
"""Bytes per read: large enough for BLAKE3 to use more than one thread."""

_THREADS_PAY_FROM = 1 << 20
"""Bytes: under a mebibyte, waking BLAKE3's threads costs more than they save (measured)."""

_CACHED = 1 << 20
"""Bytes per read for one thread: what was read is hashed before it leaves the core's cache."""

_own = threading.local()


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


def hash_file(path: Path, *, sha256: bool = False) -> FileHash:
    """Hash the file at `path` without holding more than 4 MiB of it. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return hash_open(descriptor, sha256=sha256)
    finally:
        os.close(descriptor)


def hash_open(descriptor: int, *, sha256: bool = False, alone: bool = True) -> FileHash:
    """Hash the rest of an open file. Raises OSError.

    `alone`: this may use every core. Not where other threads hash other files meanwhile: each is
    faster by itself, on pieces that stay in its core's cache.
    """
    size = os.fstat(descriptor).st_size if alone else 0
    hasher = Hasher(sha256=sha256, expected=size)
    buffer = _buffer(CHUNK if size >= _THREADS_PAY_FROM else _CACHED)
    while count := os.readv(descriptor, [buffer]):
        hasher.update(buffer[:count])
    return hasher.result()


def _buffer(size: int) -> memoryview:
    """This thread's own: fresh memory for every file would cost more than hashing it."""
    if len(getattr(_own, "buffer", b"")) < size:
        _own.buffer = memoryview(bytearray(size))
    buffer: memoryview = _own.buffer[:size]
    return buffer
