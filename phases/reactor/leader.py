"""Who advances a registry: the one process that holds `reactor.lock`, and notes itself in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stillhouse.registry.home import Home
from stillhouse.store.disk.durable import writing


@contextmanager
def advancing(home: Home) -> Iterator[bool]:
    """Be the one that advances; False when another process is. Raises StorageError."""
    with writing(home.root):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(home.reactor_lock, flags, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            with suppress(OSError):  # a full disk must not keep anybody from advancing
                _sign(descriptor)
            yield True
    finally:
        os.close(descriptor)


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
