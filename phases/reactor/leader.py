"""Who advances a registry: the one process that holds `reactor.lock`, and notes itself in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stillhouse.registry.home import Home
from stillhouse.store.disk import locks


@contextmanager
def advancing(home: Home) -> Iterator[bool]:
    """Be the one that advances; False when another process is. Raises StorageError."""
    with locks.try_locked(home.reactor_lock) as lock:
        if lock is not None:
            with suppress(OSError):  # a full disk must not keep anybody from advancing
                _sign(lock)
        yield lock is not None


def advancer(home: Home) -> int | None:
    """The process that advances, while another does: its id, as it knows itself."""
    try:
        return int(home.reactor_lock.read_bytes())
    except (OSError, ValueError):
        return None


def _sign(descriptor: int) -> None:
    """Write our process id into the lock, unless it is there: `still run` takes it often."""
    text = f"{os.getpid()}\n".encode()
    if os.pread(descriptor, 32, 0) != text:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text, 0)
