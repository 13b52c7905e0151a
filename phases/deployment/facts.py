"""What a release asks of the ledger, and what it gets: rows over lineage and events.

The query itself is the registry's; this module only says what its answer must hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.artifact import Kind, Origin
from schemas.digest import Digest
from schemas.policy import Policy
from schemas.release import Head, RunRow


@dataclass(frozen=True, kw_only=True)
class ArtifactFact:
    """One artifact that the release contains or rests on."""

    digest: Digest
    kind: Kind
    size: int
    origin: Origin
    """`run` or `probe` when any recorded run or probe made it, else `imported`."""
    role: str | None
    name: str | None
    seq: int
    """Of its first publication with that origin."""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything of the ledger that a manifest tells."""

    recipe: Mapping[str, Any]
    """The resolved recipe."""
    policy: Policy
    artifacts: Sequence[ArtifactFact]
    """The roots and all that shaped them, environments included."""
    runs: Sequence[RunRow]
    """The runs that made those artifacts."""
    failures: Mapping[str, str]
    """Slot of the plan -> message of its failed run."""
    head: Head
    """The latest event that any of this, or a verdict, rests on."""


class ReleaseFacts(Protocol):
    """The ledger, as a release asks it."""

    def facts(
        self, *, plan: Digest, policy: Digest, roots: Iterable[Digest], events: Iterable[int]
    ) -> Facts:
        """The facts behind `roots`; `events` are sequence numbers the release rests on besides."""
        ...
