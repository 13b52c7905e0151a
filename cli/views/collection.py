"""A garbage collection as rows, totals, and notes for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.collect import GarbageCollection
    from stillhouse.phases.reactor.folders import RunFolder
    from stillhouse.registry.keeping.summary import ArtifactFate, KeptArtifact, Orphan

_SHORT_GRACE = timedelta(hours=1)

_Row = tuple[str, ...]


def show_collection(screen: Screen, found: GarbageCollection) -> None:
    """A row for each thing that something happens to, or for everything, and totals."""
    rows = [
        *(_artifact_row(screen, each.fate, each) for each in found.artifacts),
        *_orphan_rows(screen, found, "sweep", found.orphans.swept),
        *_orphan_rows(screen, found, "condemn", found.orphans.condemned),
        *(_artifact_row(screen, "keep", each) for each in found.kept or ()),
        *(_folder_row(screen, each) for each in found.run_folders),
    ]
    if rows:
        screen.table(("what", "digest", "kind", "size", "name", "why"), rows)
    for total in found.totals:
        screen.row("total", total.reason, total.artifacts, screen.size(total.bytes))
    if over := sum(folder.over for folder in found.run_folders):
        size = screen.size(found.bytes.run_folders)
        screen.row("total", "run folders removed now", over, size)
    _explain(screen, found)


def _artifact_row(screen: Screen, fate: str, found: ArtifactFate | KeptArtifact) -> _Row:
    size = screen.size(found.bytes)
    return fate, screen.short(found.digest), found.kind, size, found.name, found.why


def _folder_row(screen: Screen, found: RunFolder) -> _Row:
    size = screen.size(found.bytes)
    return found.fate, screen.short(found.name), "run folder", size, found.slot, found.why


def _orphan_rows(
    screen: Screen, found: GarbageCollection, fate: str, orphans: Sequence[Orphan]
) -> Iterator[_Row]:
    """One row each where everything was asked for; else one for all of them."""
    rows = [(screen.short(orphan.digest), orphan.bytes) for orphan in orphans]
    if found.kept is None and orphans:
        rows = [(f"{len(orphans)} objects", sum(orphan.bytes for orphan in orphans))]
    for what, size in rows:
        yield fate, what, "orphan", screen.size(size), "", "no artifact needs it"


def _explain(screen: Screen, found: GarbageCollection) -> None:
    """What a person should know beside."""
    grace = timedelta(seconds=found.grace_seconds)
    if grace < _SHORT_GRACE:
        screen.note(
            f"  Note: with a grace of {grace} what is condemned now goes with the very next gc."
        )
    if found.objects.waiting or any(each.fate == "condemn" for each in found.artifacts):
        screen.note(
            f"  Condemned bytes can still be read. What is condemned now is not swept before "
            f"{screen.moment(found.until)}.\n  Keep something: `still tag NAME REF`, then "
            "`still gc`."
        )
    if found.objects.leased:
        oldest = found.leases[0]
        screen.note(
            f"  {found.objects.leased} objects of {screen.size(found.bytes.leased)} could go, but "
            f"process {oldest.pid} may rely on them: it is at work since "
            f"{screen.moment(oldest.since)}. Ask again when it has ended."
        )
    if found.dry_run:
        screen.note("  Nothing was changed.")
