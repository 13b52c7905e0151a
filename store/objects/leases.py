"""Leases: garbage collection waits for every process that has looked and not yet recorded.

Owns `objects/leases/`. A lease is a file that its holder keeps locked (flock). The lock goes when
the process does, however it ends. The lease begins at its mtime, which the file system sets when
the file is made. The same clock sets the ctime of a condemned object, so the two can be compared.
The name of the file says which process holds it, for people only: in a container that may be
another's number.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from stillhouse.schemas.errors import StorageError
from stillhouse.schemas.moment import spell
from stillhouse.store.disk import locks
from stillhouse.store.disk.durable import writing
from stillhouse.store.objects.paths import LEASES

_NAME = "lease-"
_NANOSECONDS = 10**9


class Lease(NamedTuple):
    """A lease that is held."""

    began_ns: int
    """By the clock of the store's file system, Unix time."""
    pid: int | None
    """Of its holder, as that sees itself."""

    @property
    def since(self) -> str:
        """When it began (RFC 3339 UTC)."""
        return spell(datetime.fromtimestamp(self.began_ns / _NANOSECONDS, UTC))

    def to_json(self) -> dict[str, object]:
        """Who, and since when."""
        return {"pid": self.pid, "since": self.since}


@contextmanager
def lease(objects: Path) -> Iterator[None]:
    """Hold a lease: from before the first look at the store until the ledger has the event.

    Raises StorageError.
    """
    with writing(objects):
        path, descriptor = locks.claim(partial(_new, objects))
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


def _new(objects: Path) -> str:
    area = objects / LEASES
    try:
        area.mkdir(exist_ok=True)
    except FileNotFoundError as error:
        raise absent(objects) from error
    descriptor, name = tempfile.mkstemp(dir=area, prefix=f"{_NAME}{os.getpid()}-")
    os.close(descriptor)
    return name


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
    with suppress(FileNotFoundError), locks.opened(path) as descriptor:
        if not locks.try_acquire(descriptor):
            return os.fstat(descriptor).st_mtime_ns
        path.unlink()
    return None
