"""File locks: flock(2), and what stands around each call of it.

Owns every use of flock. Rules: a lock belongs to an open file description. So a forked child shares
its parent's, and a descriptor that is handed to another process takes the lock along. Closing the
last of these descriptors releases it; the kernel closes those of a process that dies. A file may
lose its name between open and lock: where files are removed or renamed, ask `still_named` after
locking. `held` takes a shared lock for microseconds, so an attempt meanwhile may fail.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from stillhouse.store.disk.durable import writing

CREATE = os.O_RDWR | os.O_CREAT
"""Flags that open a lock's file, and make it if need be."""

_POLL_SECONDS = 0.01


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open the file of a lock, or a folder that is one; closing it releases. Raises OSError."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def acquire(descriptor: int) -> None:
    """Wait for the exclusive lock of an open file. Raises OSError."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def try_acquire(descriptor: int, *, shared: bool = False, until: float = 0.0) -> bool:
    """Whether the lock of an open file was free, at once or by `until`; then it is ours.

    until: seconds, as in time.monotonic(). Raises OSError.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True


def release(descriptor: int) -> None:
    """Give up the lock of a file that stays open. Raises OSError."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextmanager
def shared(descriptor: int) -> Iterator[None]:
    """Wait for the shared lock of an open file, and hold it. Raises OSError."""
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        yield
    finally:
        release(descriptor)


@contextmanager
def try_locked(path: Path) -> Iterator[int | None]:
    """Hold the exclusive lock of the file `path`, made if need be.

    Yields its descriptor; None while another process holds it. Raises StorageError.
    """
    with ExitStack() as closed:
        with writing(path.parent):
            descriptor = closed.enter_context(opened(path, CREATE))
        yield descriptor if try_acquire(descriptor) else None


def held(path: Path) -> bool:
    """Whether a live process holds this lock. A file that is not there is held by nobody."""
    with suppress(FileNotFoundError), opened(path) as descriptor:
        # Shared, so that two who look see each other as nobody.
        return not try_acquire(descriptor, shared=True)
    return False


def still_named(descriptor: int, path: Path) -> bool:
    """Whether `path` is a name of this open file, now. Raises OSError."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def claim(make: Callable[[], str], *, required: bool = True) -> tuple[Path, int]:
    """Make a file or folder and lock it; its path, and the descriptor that holds the lock.

    A sweep may find it unlocked and remove it; then `make` is called again, and returns the path
    of another. required: without it, go on unlocked where the file system has no such locks.
    Raises OSError.
    """
    while True:
        path = Path(make())
        with suppress(FileNotFoundError), ExitStack() as failed:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            failed.callback(os.close, descriptor)
            with nullcontext() if required else suppress(OSError):
                acquire(descriptor)
            if still_named(descriptor, path):
                failed.pop_all()
                return path, descriptor
