"""What a garbage collection does, or would do, told: rows, totals, and the same as JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from stillhouse.cli.views import render
from stillhouse.registry.keeping.retention import Keep, Kept
from stillhouse.schemas import moment
from stillhouse.schemas.digest import Digest

if TYPE_CHECKING:
    from stillhouse.cli.verbs.gc import Decision
    from stillhouse.phases.reactor.folders import RunFolder
    from stillhouse.store.objects.leases import Lease

_SHORT_GRACE = timedelta(hours=1)
_NANOSECONDS = 10**9


def _lost_with(found: Decision, artifact: Digest) -> int:
    """Bytes of an artifact that nothing keeps."""
    return found.stock.size(found.stock.needs[artifact] - found.marks.live)


def _named(found: Decision, digest: Digest) -> tuple[str, str]:
    fact = found.state.artifacts[digest][-1].fact
    return str(fact.kind), fact.name or fact.role or ""


def _fates(found: Decision) -> Iterator[tuple[str, Digest, str]]:
    """(what happens, artifact, why) of every artifact that something happens to, or is to."""
    for digest in found.reprieved:
        kept = found.kept.get(digest)
        yield "reprieve", digest, _reason(kept) if kept else "others keep all its bytes"
    for digest in found.swept:
        yield "sweep", digest, "condemned longer ago than the grace"
    for digest in found.condemned:
        yield "condemn", digest, f"nothing keeps it; swept after {render.moment(found.until)}"
    told = {*found.swept, *found.condemned, *found.reprieved}
    for digest, until in found.state.condemned.items():
        if digest not in told:
            yield "condemned", digest, f"nothing keeps it; swept after {render.moment(until)}"


def _reason(kept: Kept) -> str:
    return f"{kept.reason.value}: {kept.detail}"


def show(found: Decision, *, everything: bool) -> None:
    """A row for whatever something happens to, or for everything, and totals."""
    rows: list[tuple[str, ...]] = []
    for fate, digest, why in _fates(found):
        kind, name = _named(found, digest)
        size = render.size(_lost_with(found, digest))
        rows.append((fate, render.short(digest), kind, size, name, why))
    for fate, objects in (("sweep", found.gone), ("condemn", found.marks.doomed)):
        rows += _orphan_rows(found, fate, found.orphans(objects), everything=everything)
    if everything:
        for digest, kept in found.kept.items():
            kind, name = _named(found, digest)
            size = render.size(found.stock.size(found.stock.needs.get(digest, ())))
            rows.append(("keep", render.short(digest), kind, size, name, _reason(kept)))
    for folder in found.folders:
        if folder.over or everything:
            size = render.size(folder.size)
            name = render.short(folder.name)
            rows.append((_fate(folder), name, "run folder", size, folder.slot, folder.why))
    if rows:
        render.table(("what", "digest", "kind", "size", "name", "why"), rows)
    for total in _totals(found):
        render.row("total", total["reason"], total["artifacts"], render.size(total["bytes"]))
    if over := [folder for folder in found.folders if folder.over]:
        size = render.size(_freed(found))
        render.row("total", "run folders removed now", len(over), size)


def _fate(folder: RunFolder) -> str:
    return "remove" if folder.over else "keep"


def _freed(found: Decision) -> int:
    """Bytes of the run folders that go."""
    return sum(folder.size for folder in found.folders if folder.over)


def _orphan_rows(
    found: Decision, fate: str, orphans: Sequence[Digest], *, everything: bool
) -> Iterator[tuple[str, ...]]:
    why = "no artifact needs it"
    if everything:
        for digest in orphans:
            yield (
                fate,
                render.short(digest),
                "orphan",
                render.size(found.stock.size((digest,))),
                "",
                why,
            )
    elif orphans:
        size = render.size(found.stock.size(orphans))
        yield fate, f"{len(orphans)} objects", "orphan", size, "", why


def _totals(found: Decision) -> list[dict[str, Any]]:
    """How many artifacts each reason keeps, with bytes that are counted at the first of them."""
    counted: set[Digest] = set()
    told = []

    def total(reason: str, artifacts: int, objects: Collection[Digest]) -> None:
        fresh = set(objects) - counted
        counted.update(fresh)
        if artifacts or fresh:
            size = found.stock.size(fresh)
            told.append({"reason": reason, "artifacts": artifacts, "bytes": size})

    for reason in Keep:
        kept = [digest for digest, why in found.kept.items() if why.reason is reason]
        objects = frozenset().union(*(found.stock.needs.get(d, frozenset()) for d in kept))
        total(f"kept: {reason.value}", len(kept), objects)
    total("kept: a log, or not recorded yet", 0, found.stock.held & found.stock.objects)
    total("swept now", len(found.swept), found.gone)
    total("condemned now", len(found.condemned), found.marks.doomed)
    total("condemned before", 0, found.marks.waiting)
    total("kept: young objects", 0, found.stock.objects)
    return told


def explain(found: Decision, grace: timedelta, *, dry_run: bool) -> None:
    """What a person should know beside, on stderr."""
    if grace < _SHORT_GRACE:
        render.note(
            f"  Note: with a grace of {grace} what is condemned now goes with the very next gc."
        )
    if found.condemned or found.marks.waiting:
        render.note(
            f"  Condemned bytes can still be read. What is condemned now is not swept before "
            f"{render.moment(found.until)}.\n  Keep something: `still tag NAME REF`, then "
            "`still gc`."
        )
    if found.marks.leased:
        (oldest, *_) = found.leases
        size = render.size(found.stock.size(found.marks.leased))
        render.note(
            f"  {len(found.marks.leased)} objects of {size} could go, but process {oldest.pid} may "
            f"rely on them: it is at work since {render.moment(_began(oldest))}. Ask again when it "
            "has ended."
        )
    if dry_run:
        render.note("  Nothing was changed.")


def _began(lease: Lease) -> str:
    return moment.spell(datetime.fromtimestamp(lease.began_ns / _NANOSECONDS, UTC))


def as_json(
    found: Decision, grace: timedelta, *, dry_run: bool, everything: bool
) -> dict[str, Any]:
    """All of it for scripts; sizes in bytes."""

    def item(digest: Digest, size: int) -> dict[str, Any]:
        kind, name = _named(found, digest)
        return {"digest": digest, "kind": kind, "name": name, "bytes": size}

    def objects(digests: Sequence[Digest]) -> list[dict[str, Any]]:
        return [{"digest": d, "bytes": found.stock.size((d,))} for d in digests]

    told: dict[str, Any] = {
        "dry_run": dry_run,
        "grace_seconds": grace.total_seconds(),
        "until": found.until,
        "artifacts": [
            item(digest, _lost_with(found, digest)) | {"fate": fate, "why": why}
            for fate, digest, why in _fates(found)
        ],
        "orphans": {
            "swept": objects(found.orphans(found.gone)),
            "condemned": objects(found.orphans(found.marks.doomed)),
        },
        "bytes": {
            "swept": found.stock.size(found.gone),
            "condemned": found.stock.size(found.marks.doomed),
            "waiting": found.stock.size(found.marks.waiting),
            "leased": found.stock.size(found.marks.leased),
            "run_folders": _freed(found),
        },
        "leases": [{"pid": lease.pid, "since": _began(lease)} for lease in found.leases],
        "run_folders": [
            {
                "name": folder.name,
                "slot": folder.slot,
                "bytes": folder.size,
                "fate": _fate(folder),
                "why": folder.why,
            }
            for folder in found.folders
            if folder.over or everything
        ],
        "totals": _totals(found),
    }
    if everything:
        told["kept"] = [
            item(digest, found.stock.size(found.stock.needs.get(digest, ())))
            | {"reason": kept.reason.code, "detail": kept.detail}
            for digest, kept in found.kept.items()
        ]
    return told
