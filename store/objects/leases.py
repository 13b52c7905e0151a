"""Leases: garbage collection waits for whoever has looked and not yet recorded.

Owns `objects/leases/`. A lease is a file that its holder keeps locked (flock); the lock goes when
the process does, however it ends. Its mtime, which the file system sets when the file is made, is
its beginning: the same clock that sets the ctime of a condemned object, so the two can be compared.
Its name says which process holds it, for people only: in a container that may be another's number.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from stillhouse.schemas.errors import StorageError
from stillhouse.store.disk.durable import writing
from stillhouse.store.objects.paths import LEASES

_NAME = "lease-"


class Lease(NamedTuple):
    """A lease that is held."""

    began_ns: int
    """By the clock of the store's file system, Unix time."""
    pid: int | None
    """Of its holder, as that sees itself."""


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


def live_leases(objects: Path) -> list[Lease]:
    """Every lease that is held. Those of the dead are removed. Raises StorageError."""
    with writing(objects):
        return [
            Lease(began_ns=moment, pid=_holder(path))
            for path in sorted((objects / LEASES).glob("*"))
            if (moment := _beginning_if_live(path)) is not None
        ]


def _locked(objects: Path) -> tuple[Path, int]:
    """A new lease. Whoever looks between making and locking may take it for a dead one."""
    while True:
        path, descriptor = _new(objects)
        with ExitStack() as given_up:
            given_up.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                given_up.pop_all()
                return path, descriptor


def _new(objects: Path) -> tuple[Path, int]:
    area = objects / LEASES
    try:
        area.mkdir(exist_ok=True)
    except FileNotFoundError as error:
        raise absent(objects) from error
    descriptor, name = tempfile.mkstemp(dir=area, prefix=f"{_NAME}{os.getpid()}-")
    return Path(name), descriptor


def absent(objects: Path) -> StorageError:
    """Make the error for a store that was never made."""
    return StorageError(
        f"There is no store at {objects}.",
        remedy="Run `still init` first, or name the registry with --registry.",
        code="store.absent",
    )


def _holder(path: Path) -> int | None:
    pid = path.name.removeprefix(_NAME).partition("-")[0]
    return int(pid) if pid.isdecimal() else None


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
