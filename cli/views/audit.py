"""An audit in rows: what was asked, what is bad, what hangs on that, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse.cli.views.events import describe
from stillhouse.registry.home import LEDGER, LINEAGE, PROJECTION

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.registry.audit.audit import Finding
    from stillhouse.registry.audit.report import AuditReport, ProjectionReport
    from stillhouse.registry.audit.touched import Touched
    from stillhouse.schemas.event import Event


def show_audit(screen: Screen, found: AuditReport) -> None:
    """One row each; the verdict last."""
    ledger = found.ledger
    screen.facts(
        {
            "ledger": f"{ledger.events} events, head {ledger.head.seq}:{ledger.head.hash}",
            "torn": f"{ledger.torn} bytes of an unacknowledged write" if ledger.torn else "",
            "projection": _projection(found.projection),
        }
    )
    for head in found.heads:
        screen.row("head", f"{head.source} knows event {head.seq}", head.verdict)
    for release in found.unread_releases:
        screen.row("unread", f"release {screen.short(release)}, so its manifest was not asked")
    for finding in found.findings:
        screen.row("bad", _place(finding), finding.where, finding.what)
    for table in found.projection.differing:
        place = f"event {table.seq}" if table.seq else ""
        screen.row("bad", place, PROJECTION, f"{table.name} differs")
    if found.index == "differs":
        screen.row("bad", "", LINEAGE, "its arrows are not what the ledger says")
    for manifest in found.manifests:
        what = f"release {screen.short(manifest.release)}"
        if manifest.differing:
            parts = ", ".join(manifest.differing)
            screen.row("bad", what, "its manifest is not what the ledger says", parts)
        for claim in manifest.overclaimed:
            words = (claim.kind, screen.short(claim.digest), claim.name or "")
            screen.row("overclaims", what, "names, and never rested on", *words)
    if found.touches is not None:
        _show_touched(screen, found.touches)
    _show_verdict(screen, found)


def _projection(found: ProjectionReport) -> str:
    if found.state == "held":
        return f"held by {found.detail}: not compared"
    if found.state == "unreadable":
        return f"unreadable, and not compared: {found.detail}"
    if found.state == "absent":
        return "none"
    return f"{found.equal} of its {found.events} events equal the ledger's, tables {found.tables}"


def _place(finding: Finding) -> str:
    alone = finding.after == finding.event - 1
    return f"event {finding.event}" + ("" if alone else f", or one after {finding.after}")


def _show_touched(screen: Screen, touched: Touched) -> None:
    for copy in touched.copies:
        event = copy.event
        screen.row("said", f"{copy.where}, event {event.seq}", event.type, _said(screen, event))
    for artifact in touched.artifacts:
        screen.row("touches", f"{artifact.kind} {screen.short(artifact.digest)}")
    for run in touched.runs:
        screen.row("touches", f"run {screen.short(run)}")
    for gate in touched.gates:
        screen.row("touches", f"gate {gate}")
    for release in touched.releases:
        screen.row("release", f"{screen.short(release)} rests on it")


def _said(screen: Screen, event: Event) -> str:
    try:
        return describe(screen, event)
    except (KeyError, TypeError, ValueError):  # its payload was damaged as well
        return "its payload is not of that type"


def _show_verdict(screen: Screen, found: AuditReport) -> None:
    intact = "intact so far as compared" if found.not_compared else "intact"
    screen.row(intact if found.ok else "broken", "nothing was changed or repaired")
    if found.not_compared:
        screen.row("not compared", ", ".join(found.not_compared))
    if found.ok:
        return
    if any(finding.where == LEDGER for finding in found.findings):
        screen.next("Restore events.log from a copy, and audit that.")
    else:
        screen.next(_rebuilding(found))


def _rebuilding(found: AuditReport) -> str:
    """What to do where the ledger is whole, and something made from it is not."""
    bad = [LINEAGE] if found.index == "differs" else []
    if found.projection.differing or any(f.where == PROJECTION for f in found.findings):
        bad.append(PROJECTION)
    if not bad:
        return "The ledger is whole: do not use that release, and `still run` its recipe again."
    return f"The ledger is whole: delete {' and '.join(bad)}, and it is built anew from it."
