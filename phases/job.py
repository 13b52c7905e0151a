"""The two files between the reactor and a worker: `job.json` goes in, `outcome.json` comes out.

A run's folder `runs/<run key>/`: `job.json`, `outcome.json`, `lock` (held by the live worker),
`log.<attempt>`, `progress.json`, `inputs/` (links), `work/` (the phase's scratch; it survives
attempts and is removed when success is recorded).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from schemas.artifact import Form, Kind, Product
from schemas.digest import Digest
from schemas.value import Value


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
    plan: Digest
    slot: str
    params: dict[str, Any]
    inputs: tuple[JobInput, ...]


class Failure(Value):
    """Why a run failed, as the error tree says it."""

    code: str
    message: str
    remedy: str


class Outcome(Value):
    """How a run ended."""

    run: Digest
    attempt: int
    status: Literal["succeeded", "failed"]
    products: tuple[Product, ...] = ()
    failure: Failure | None = None
    seconds: float


def read_outcome(folder: Path, attempt: int) -> Outcome | None:
    """The outcome of this attempt, if its worker wrote one."""
    try:
        found = Outcome.model_validate_json((folder / "outcome.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return found if found.attempt == attempt else None


def read_progress(folder: Path) -> dict[str, Any] | None:
    """What the live worker last said of its progress, if anything."""
    try:
        found = json.loads((folder / "progress.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
