"""What a release is assembled from: rows of the verified ledger, in the job of its worker.

Everything here comes from recorded events, and `head` names the last one that any of it rests on.
So a later event that changes nothing changes no byte of a manifest.
"""

from __future__ import annotations

from typing import Any, Literal

from stillhouse.schemas.artifact import Kind, Origin
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import GateEvaluated, GateWaived
from stillhouse.schemas.policy import Policy
from stillhouse.schemas.release import Head, RunRow
from stillhouse.schemas.value import Value


class ArtifactRow(Value):
    """One artifact that the release contains or rests on."""

    digest: Digest
    kind: Kind
    size: int
    origin: Origin
    role: str | None = None
    name: str | None = None
    seq: int
    """Of the publication that is meant."""
    run: Digest | None = None
    facts: dict[str, Any]


class ReleaseRows(Value):
    """Everything of the ledger that a manifest tells."""

    rule: Literal[1, 2]
    """The rule of provenance that chose the rows (registry/planning/provenance.py)."""
    recipe: dict[str, Any]
    """The resolved recipe, as it was recorded."""
    policy: Policy
    artifacts: tuple[ArtifactRow, ...]
    """Recipe, policy, what is released and all that shaped it; in order of their events."""
    runs: tuple[RunRow, ...]
    """The runs that fill the slots behind it; in order of their ends."""
    failures: dict[str, str]
    """Slot of the plan that nothing fills -> why its last attempt did not."""
    verdicts: dict[int, GateEvaluated]
    """Of the events that the request names, those that are verdicts, by seq …"""
    waivers: dict[int, GateWaived]
    """… and those that are waivers."""
    head: Head
    """The latest event that any of this rests on."""
