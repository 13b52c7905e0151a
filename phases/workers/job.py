"""The small files between the reactor and a worker, and what stands in them.

A run's folder `runs/<run key>/`, and who writes what:

    job.json             what is to be done              the reactor, durably, before `run.started`
    lock                 held by the live worker         made by the reactor, handed down
    worker.json          which process the worker is     the worker, first of all
    progress.json        how far it is                   the worker, a few times a second
    log.<attempt>        what it prints                  the worker; shortened by the reactor
    log.<attempt>.1      start and older part of it      the reactor (phases/workers/logs.py)
    ending.json          why the worker has to end       the process that ends it; first cause stays
    outcome.json         how it ended                    the worker, durably, last of all
    inputs/, work/       links, and the phase's scratch, which survives attempts

The folder is removed when success is recorded.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from stillhouse.phases.workers.processes import Process
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import Form, Kind, Product
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.rows import ReleaseRows
from stillhouse.schemas.value import Value

_File = TypeVar("_File", "Outcome", "EndingFile", "WorkerFile")


class JobInput(Value):
    """One input artifact."""

    role: str
    digest: Digest
    kind: Kind
    form: Form
    facts: dict[str, Any]


class Job(Value):
    """What a worker is to do."""

    run: Digest
    attempt: int
    phase: str
    phase_version: int
    plan: Digest
    slot: str
    params: dict[str, Any]
    inputs: tuple[JobInput, ...]
    rows: ReleaseRows | None = None
    """What the ledger says of a release, for the phase that seals one."""


class Failure(Value):
    """Why a run failed, as the error tree says it."""

    code: str
    message: str
    remedy: str
    transient: bool = False
    """True: the cause lies outside the run (a full disk, a busy file), and may be gone later."""


class Outcome(Value):
    """How a run ended."""

    run: Digest
    attempt: int
    status: Literal["succeeded", "failed"]
    products: tuple[Product, ...] = ()
    failure: Failure | None = None
    seconds: float


class Ending(StrEnum):
    """Why a live worker has to end."""

    STOPPED = "stopped"
    """The program that started it has to stop; the run is taken up again."""
    CANCELLED = "cancelled"
    """Someone cancelled the run."""
    TIME = "time"
    """It took longer than it may."""
    MEMORY = "memory"
    """It held more memory than it may."""


class EndingFile(Value):
    """`ending.json`."""

    attempt: int
    why: Ending
    at: float
    """time.monotonic(), which all processes of one boot share, of the first signal."""


class WorkerFile(Value):
    """`worker.json`."""

    attempt: int
    process: Process


def read_outcome(folder: Path, attempt: int) -> Outcome | None:
    """The outcome of this attempt, if its worker wrote one."""
    return _read(Outcome, folder / "outcome.json", attempt)


def read_ending(folder: Path, attempt: int) -> EndingFile | None:
    """Why this attempt has to end, if its `ending.json` says so."""
    return _read(EndingFile, folder / "ending.json", attempt)


def read_worker(folder: Path, attempt: int | None = None) -> WorkerFile | None:
    """Which process worked, or works, on this attempt; without one, on the latest."""
    return _read(WorkerFile, folder / "worker.json", attempt)


def read_progress(folder: Path) -> dict[str, Any] | None:
    """What the live worker last said of its progress, if anything."""
    try:
        found = json.loads((folder / "progress.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def replace(path: Path, value: Value | dict[str, Any]) -> None:
    """Write one of these files whole or not at all, but not durably: for what dies with the boot.

    Raises OSError.
    """
    note = value.to_json() if isinstance(value, Value) else value
    temp = path.with_suffix(".tmp")
    temp.write_bytes(canonical.encode(note))
    temp.replace(path)


def _read(form: type[_File], path: Path, attempt: int | None) -> _File | None:
    """A file of this attempt; None when there is none, or a crash left it in pieces."""
    try:
        found = form.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return found if attempt in (None, found.attempt) else None
