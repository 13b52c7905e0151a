"""Artifacts: typed roots (kind + digest + small facts).

Rules: a kind is a plain word. Reports, contracts, exports, packages made from them and releases
come from recorded runs. What a person publishes carries origin `imported`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from stillhouse.schemas.digest import Digest, Sha256
from stillhouse.schemas.value import Value


class Kind(StrEnum):
    """The kinds of artifact."""

    RECIPE = "recipe"
    SOURCE = "source"
    TEACHER = "teacher"
    ENVIRONMENT = "environment"
    DATASET = "dataset"
    TEACHER_CACHE = "teacher_cache"
    CHECKPOINT = "checkpoint"
    BASELINE = "baseline"
    EXPORT = "export"
    CONTRACT = "contract"
    MLPACKAGE = "mlpackage"
    REPORT = "report"
    POLICY = "policy"
    FIXTURES = "fixtures"
    RELEASE = "release"


PUBLISHABLE = frozenset(
    {
        Kind.SOURCE,
        Kind.DATASET,
        Kind.TEACHER,
        Kind.CHECKPOINT,
        Kind.RECIPE,
        Kind.POLICY,
        Kind.FIXTURES,
        Kind.MLPACKAGE,
    }
)
"""Kinds that a person may publish by hand. The others come from recorded runs only."""

Form = Literal["blob", "tree"]
"""`blob`: one file. `tree`: a folder."""

Origin = Literal["imported", "run", "probe"]
"""`imported`: published by a person; `run`: made by a recorded run; `probe`: observed here."""


class Parent(Value):
    """One arrow of lineage, from the artifact that carries it to an artifact that shaped it."""

    role: str
    """What the parent was for: `dataset`, `teacher`, `export`, …"""
    digest: Digest
    circumstance: bool = False
    """True: recorded, but not in the run key (the recipe as a whole, the environment)."""


class FileFact(Value):
    """One file of a release-bound artifact."""

    path: str
    """Relative POSIX path; the file's own name for a blob."""
    size: int = Field(ge=0)
    """Bytes."""
    digest: Digest
    sha256: Sha256


class Product(Value):
    """One artifact made by a run, as the run's outcome names it."""

    role: str
    """Which output of its phase this is: `dataset`, `teacher_cache`, `report`, …"""
    kind: Kind
    digest: Digest
    form: Form
    size: int = Field(ge=0)
    """Payload bytes (for a tree, the sum of its files)."""
    name: str | None = None
    facts: dict[str, Any] = Field(default_factory=dict)
    """What decisions, gates, SQL and the manifest read, in its kind's form (schemas/facts.py)."""
    files: tuple[FileFact, ...] = ()
