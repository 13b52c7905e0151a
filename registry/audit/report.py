"""What an audit came to: everything that was asked, what it said, and what was not asked. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stillhouse.registry.audit.arrows import IndexState
from stillhouse.registry.audit.audit import Examination, Finding
from stillhouse.registry.audit.retold import Difference, Retold
from stillhouse.registry.audit.sealed import ManifestReport
from stillhouse.registry.audit.touched import Touched
from stillhouse.registry.audit.witnesses import Testimony
from stillhouse.registry.home import PROJECTION
from stillhouse.registry.ledger.ledger import Audit
from stillhouse.schemas.digest import SHORT, Digest


@dataclass(frozen=True, kw_only=True)
class ProjectionReport:
    """The projection, held against the ledger."""

    state: Literal["read", "absent", "held", "unreadable"]
    detail: str
    """Who holds it, or why it cannot be read."""
    events: int
    """Those that it has …"""
    equal: int
    """… and those of them that equal the ledger's, from the first on."""
    tables: Literal["compared", "older", "held", "unreadable", "not compared"]
    differing: tuple[Difference, ...]
    """Tables and views that are not what the ledger gives."""


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """Everything that an audit came to."""

    ok: bool
    """Whether everything that could be asked agrees."""
    compared: tuple[str, ...]
    """What was asked beside the ledger's own chain …"""
    not_compared: tuple[str, ...]
    """… and what there is that could not be asked."""
    ledger: Audit
    projection: ProjectionReport
    index: IndexState
    """The lineage index, held against the ledger."""
    heads: tuple[Testimony, ...]
    manifests: tuple[ManifestReport, ...]
    """Of every release whose manifest could be read, held against the ledger."""
    unread_releases: tuple[Digest, ...]
    """Releases whose manifest cannot be read, so that it could not be asked."""
    findings: tuple[Finding, ...]
    first: int | None
    """The first event that is not what it was."""
    touches: Touched | None
    """What hangs on that event."""


def first_bad(found: Examination, retold: Retold | None) -> int | None:
    """The first event that is not what it was; None when all are, so far as they were compared."""
    differing = retold.differences if retold else ()
    seqs = [f.event for f in found.findings] + [d.seq for d in differing if d.seq]
    return min(seqs, default=None)


def report(
    found: Examination,
    retold: Retold | None,
    unread: Sequence[Digest],
    touched: Touched | None,
    *,
    manifests: Sequence[ManifestReport] | None = (),
    index: IndexState = "not compared",
) -> AuditReport:
    """Put together what an audit found.

    retold: None when there are no tables, or the projection's events are wrong already. unread:
    releases whose manifest cannot be read. touched: what the first bad event touches. manifests:
    None when they could not be derived again.
    """
    differing = retold.differences if retold else ()
    parts = _parts(found, retold, unread)
    if manifests is None and not found.findings:
        parts["manifests of releases"] = False
    return AuditReport(
        ok=not found.findings
        and not differing
        and not any(m.differing for m in manifests or ())
        and index != "differs",
        compared=tuple(part for part, compared in parts.items() if compared),
        not_compared=tuple(part for part, compared in parts.items() if not compared),
        ledger=found.audit,
        projection=ProjectionReport(
            state=found.projected.state,
            detail=found.projected.detail,
            events=len(found.projected.rows),
            equal=found.compared,
            tables=retold.state if retold else "not compared",
            differing=differing,
        ),
        index=index,
        heads=found.heads,
        manifests=tuple(manifests or ()),
        unread_releases=tuple(unread),
        findings=found.findings,
        first=first_bad(found, retold),
        touches=touched,
    )


def _parts(found: Examination, retold: Retold | None, unread: Sequence[Digest]) -> dict[str, bool]:
    """What there is to ask beside the ledger's own chain -> whether it was compared."""
    parts: dict[str, bool] = {}
    if found.projected.state != "absent":
        parts[f"events of {PROJECTION}"] = found.projected.state == "read"
        parts[f"tables of {PROJECTION}"] = retold is not None and retold.state == "compared"
    parts |= {head.source: True for head in found.heads}
    return parts | {f"release {release[:SHORT]}": False for release in unread}
