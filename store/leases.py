"""Leases: garbage collection waits for whoever has looked and not yet recorded.

Owns `objects/leases/`. A lease is a file that its holder keeps locked (flock); the lock goes when
the process does, however it ends. Its mtime, which the file system sets when the file is made, is
its beginning: the same clock that sets the ctime of a condemned object, so the two can be compared.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import StorageError
from store.durable import writing
from store.places import LEASES


@contextmanager
def lease(objects: Path) -> Iterator[None]:
    """Hold a lease: from before the first look at the store until the ledger has the event.

    Raises StorageError.
    """
    with writing(objects):
        path, descriptor = _locked(objects)
    try:
        yield
    finally:
        # Removed before it is unlocked: nobody ever finds a free lease of somebody who lives.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def oldest_lease(objects: Path) -> int | None:
    """When the oldest live lease began (ns, clock of the store's file system); None without any.

    Leases of the dead are removed. Raises StorageError.
    """
    with writing(objects):
        began = [
            moment
            for path in sorted((objects / LEASES).glob("*"))
            if (moment := _beginning_if_live(path)) is not None
        ]
    return min(began, default=None)


def _locked(objects: Path) -> tuple[Path, int]:
    """A new lease. Whoever looks between making and locking may take it for a dead one."""
    while True:
        path, descriptor = _new(objects)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return path, descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _new(objects: Path) -> tuple[Path, int]:
    area = objects / LEASES
    try:
        area.mkdir(exist_ok=True)
    except FileNotFoundError as error:
        raise absent(objects) from error
    descriptor, name = tempfile.mkstemp(dir=area, prefix="lease-")
    return Path(name), descriptor


def absent(objects: Path) -> StorageError:
    """Make the error for a store that was never made."""
    return StorageError(
        f"There is no store at {objects}.",
        remedy="Run `still init` first, or name the registry with --registry.",
        code="store.absent",
    )


def _beginning_if_live(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(FileNotFoundError):
            path.unlink()
    except BlockingIOError:
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)
    return None
