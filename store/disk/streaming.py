"""One pass over a large file: read, hash and write at the same time.

Owns the pipeline. One thread reads and hashes a piece while another writes it. Where the file
system lets us, it writes past the page cache (open(2), O_DIRECT). Then the bytes are copied once
less, and an artifact of gigabytes does not push out of memory what others work with. Elsewhere
every stretch that was written is handed to the disk at once. Left alone, the kernel collects
gigabytes, and the fsync at the end waits for all of them. Both threads spend their time in calls
that release the interpreter's lock.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager

from stillhouse.store.disk.hashing import Hasher
from stillhouse.store.disk.kernel import bypass_cache, start_writing

PIECE = 8 << 20
"""Bytes that are read, hashed and written together: enough for BLAKE3 to use every core."""

Guard = Callable[[], AbstractContextManager[None]]
"""Says what it means that a file cannot be read."""

Tell = Callable[[int], None]
"""Takes how many more bytes are done."""

_STRETCH = 32 << 20
"""Bytes after which the disk has to begin."""

_BLOCK = 4096
"""Bytes: what is written past the cache begins and ends at a multiple of this, in memory and on
disk. No common disk has larger blocks; one that had would answer EINVAL, and be written to through
the cache."""


def pour(
    reader: int,
    writer: int,
    *,
    size: int,
    hasher: Hasher,
    guard: Guard,
    cached: bool,
    tell: Tell = lambda _: None,
) -> int:
    """Copy the rest of `reader` to `writer` and feed it to `hasher`; returns the bytes copied.

    Stops soon after `size` bytes, so that an endless file does not fill the disk. `cached`: leave
    what was written in memory, for it will be read soon. Raises what `guard` makes of an OSError
    while reading, and OSError when `writer` refuses.
    """
    with ThreadPoolExecutor(1) as writing:
        outlet = _Outlet(writer, directly=not cached and size > PIECE)
        before: Future[None] | None = None
        for piece in pieces(reader, size, guard):
            if before is not None:
                before.result()
            before = writing.submit(outlet.write, piece)
            hasher.update(piece)
            tell(len(piece))
        if before is not None:
            before.result()
    return outlet.written


def pieces(descriptor: int, size: int, guard: Guard) -> Iterator[memoryview]:
    """Yield the rest of a file in two buffers by turns: a piece is valid until the next but one.

    Stops soon after `size` bytes. Raises what `guard` makes of an OSError.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    length = min(PIECE, size + 1)
    # Mapped, because such memory begins at a page.
    buffers = [memoryview(mmap.mmap(-1, length)), memoryview(mmap.mmap(-1, length))]
    total = turn = 0
    while total <= size:
        with guard():
            count = os.readv(descriptor, [buffers[turn]])
        if not count:
            return
        yield buffers[turn][:count]
        total += count
        turn = 1 - turn


def write_all(descriptor: int, data: memoryview | bytes) -> None:
    """Write all of `data`, in as many steps as the system needs. Raises OSError."""
    done = os.write(descriptor, data)
    while done < len(data):
        done += os.write(descriptor, memoryview(data)[done:])


class _Outlet:
    """The writing end: knows how far it came, and how far the disk was asked to."""

    def __init__(self, descriptor: int, *, directly: bool) -> None:
        self._descriptor = descriptor
        self._direct = directly and bypass_cache(descriptor, bypass=True)
        self._told = 0
        self.written = 0

    def write(self, piece: memoryview) -> None:
        """Write the next piece. Only the last may end anywhere."""
        done = self._past_the_cache(piece) if self._direct else 0
        if done < len(piece):
            write_all(self._descriptor, piece[done:])
        self.written += len(piece)
        if not self._direct and self.written - self._told >= _STRETCH:
            start_writing(self._descriptor, self._told, self.written - self._told)
            self._told = self.written

    def _past_the_cache(self, piece: memoryview) -> int:
        """Write whole blocks; the bytes written. From the first odd one on, the cache is used."""
        whole = len(piece) - len(piece) % _BLOCK
        done = 0
        try:
            while done < whole and not done % _BLOCK:
                done += os.write(self._descriptor, piece[done:whole])
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        if done < len(piece):
            self._direct = not bypass_cache(self._descriptor, bypass=False)
        return done
