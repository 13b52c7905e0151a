"""The verb `gc`: bytes that nothing keeps are condemned, and after a grace they are swept.

One command does all of it, from one look at the store (cli/holdings.py):

 1. what is condemned and is kept again comes back (`bytes.reprieved`);
 2. what was condemned longer than the grace ago goes for good (`bytes.swept`);
 3. what nothing keeps any longer is condemned (`bytes.condemned`).

All three are recorded in one batch *before* a single object moves, and only if nobody recorded
anything since the look; else it looks again. So whatever may be gone is known as gone or condemned,
and a kill at any point leaves only work for the next gc: objects still to be moved or removed, of
which nobody is told that they are there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import render
from cli.arguments import Json, session_of
from cli.holdings import Stocktaker, alone, logs
from cli.wiring import clock
from registry.marking import Marks, Stock, mark
from registry.retention import Keep, Kept, retention
from schemas.digest import SHORT, Digest
from schemas.errors import BusyError, InputError, IntegrityError
from schemas.events import BytesCondemned, BytesReprieved, BytesSwept, Payload

if TYPE_CHECKING:
    from cli.wiring import Session
    from registry.fold import State

LOOKS = 50
"""How often to look again because somebody recorded something meanwhile."""
_MOST = 800
"""Digests in one event, which holds at most 64 KiB."""
_SHORT_GRACE = timedelta(hours=1)
NANOSECONDS = 10**9


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What one garbage collection is to do."""

    state: State
    stock: Stock
    kept: dict[Digest, Kept]
    marks: Marks
    now: str
    until: str
    """When what is condemned now may be swept."""

    @cached_property
    def condemned(self) -> tuple[Digest, ...]:
        """Artifacts that lose bytes, and that are told so now, or of an earlier end than before."""
        losing = self.stock.holding(self.marks.doomed | self.marks.waiting)
        told = self.state.condemned
        return tuple(a for a in losing if a not in self.kept and told.get(a, "~") > self.until)

    @cached_property
    def reprieved(self) -> tuple[Digest, ...]:
        """Condemned artifacts that are kept again, or of which everything is."""
        losing = set(self.stock.holding(self.marks.doomed | self.marks.waiting | self.marks.due))
        return tuple(a for a in self.state.condemned if a in self.kept or a not in losing)

    @cached_property
    def gone(self) -> frozenset[Digest]:
        """Objects that will be nowhere in the store."""
        return self.marks.due - self.stock.placed.keys()

    @cached_property
    def swept(self) -> tuple[Digest, ...]:
        """Artifacts whose bytes go now, all or some."""
        return self.stock.holding(self.gone)

    def orphans(self, objects: Collection[Digest]) -> tuple[Digest, ...]:
        """Those of the objects that belong to no artifact."""
        known = self.stock.remnants.union(*self.stock.needs.values())
        return tuple(sorted(set(objects) - known))

    def payloads(self) -> tuple[Payload, ...]:
        """What is to be recorded."""
        return (*self._reprieved(), *self._swept(), *self._condemned())

    def _reprieved(self) -> Iterator[Payload]:
        for place, (artifacts, _) in enumerate(_in_events(self.reprieved, ())):
            yield BytesReprieved(
                artifacts=artifacts, objects=0 if place else len(self.marks.restored)
            )

    def _swept(self) -> Iterator[Payload]:
        size = self.stock.size(self.gone)
        chunks = _in_events(self.swept, self.orphans(self.gone))
        for place, (artifacts, orphans) in enumerate(chunks):
            yield BytesSwept(
                artifacts=artifacts,
                orphans=orphans,
                objects=0 if place else len(self.gone),
                size=0 if place else size,
            )

    def _condemned(self) -> Iterator[Payload]:
        size = self.stock.size(self.marks.doomed)
        chunks = _in_events(self.condemned, self.orphans(self.marks.doomed))
        for place, (artifacts, orphans) in enumerate(chunks):
            yield BytesCondemned(
                artifacts=artifacts,
                orphans=orphans,
                objects=0 if place else len(self.marks.doomed),
                size=0 if place else size,
                until=self.until,
            )


def gc(
    context: typer.Context,
    *,
    grace: Annotated[
        str | None,
        typer.Option("--grace", metavar="14d", help="Instead of `grace` in config.toml."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="List also what is kept, and every orphan.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Free the bytes that nothing keeps.

    They are condemned first, can be read and kept for a grace period, and are swept by a later gc.
    Kept is what a tag, a release, a plan or a run needs, what is young, and all that shaped it.
    """
    session = session_of(context)
    allowed = grace_of(session, grace)
    if dry_run:
        done = decide(Stocktaker(session), allowed)
    else:
        with alone(session.home):
            done = collect(session, allowed)
    if as_json:
        render.json_document(_as_json(done, allowed, dry_run=dry_run, everything=everything))
        return
    _show(done, everything=everything)
    _explain(done, allowed, dry_run=dry_run)


def grace_of(session: Session, given: str | None) -> timedelta:
    """The grace that counts. Raises InputError."""
    from cli.config import duration

    if given is None:
        return session.config.grace
    try:
        return duration(given)
    except ValueError as error:
        raise InputError(
            f"--grace: {error}.", remedy="Write it as --grace 14d.", code="gc.bad_grace"
        ) from error


def decide(taker: Stocktaker, grace: timedelta) -> Decision:
    """Look, and decide. Raises IntegrityError when it can not be known what something needs."""
    stock = taker.look()
    now = clock()
    spelt = _spelt(now)
    kept = retention(taker.state, spelt, grace)
    if damaged := [digest for digest in taker.unreadable if digest in kept]:
        raise _unknown_needs(damaged[0], taker.unreadable[damaged[0]])
    stock = _with_logs(stock, taker.state, kept, _spelt(now - grace))
    marks = mark(
        stock,
        kept,
        taker.state.condemned,
        now=spelt,
        now_ns=int(now.timestamp() * NANOSECONDS),
        grace_ns=int(grace.total_seconds() * NANOSECONDS),
    )
    return Decision(
        state=taker.state,
        stock=stock,
        kept=kept,
        marks=marks,
        now=spelt,
        until=_spelt(now + grace),
    )


def collect(session: Session, grace: timedelta) -> Decision:
    """Decide, record, and do it; the caller is alone.

    Raises BusyError when others record so fast that no decision stays true, StorageError.
    """
    taker = Stocktaker(session)
    for _ in range(LOOKS):
        found = decide(taker, grace)
        payloads = found.payloads()
        if not payloads or session.ledger.append(
            payloads, since=found.state.seq, unless=lambda _: True
        ):
            _carry_out(session, found)
            return found
    raise unquiet("still gc")


def unquiet(command: str) -> BusyError:
    """Make the error for a registry in which no decision stays true until it is recorded."""
    return BusyError(
        "Something was recorded at every look, so nothing could be decided.",
        remedy=f"Run `{command}` again when the registry is quieter; nothing was changed.",
        code="gc.unquiet",
    )


def _carry_out(session: Session, found: Decision) -> None:
    store = session.store
    for digest in sorted(found.marks.restored):
        store.restore(digest)
    # Lists of files last: as long as one can be read, the files are known as what they are.
    roots = found.state.artifacts
    store.sweep(sorted(found.marks.due, key=lambda digest: (digest in roots, digest)))
    store.condemn(sorted(found.marks.doomed))


def _with_logs(stock: Stock, state: State, kept: dict[Digest, Kept], since: str) -> Stock:
    from dataclasses import replace

    return replace(stock, held=stock.held | logs(state, kept, since))


def _in_events(
    artifacts: Sequence[Digest], orphans: Sequence[Digest]
) -> Iterator[tuple[tuple[Digest, ...], tuple[Digest, ...]]]:
    """(artifacts, orphans) for each event; the totals stand in the first of several."""
    both = [*artifacts, *orphans]
    for start in range(0, len(both), _MOST):
        chunk, split = both[start : start + _MOST], max(0, len(artifacts) - start)
        yield tuple(chunk[:split]), tuple(chunk[split:])


def _spelt(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _unknown_needs(digest: Digest, error: IntegrityError) -> IntegrityError:
    return IntegrityError(
        f"The folder {digest[:SHORT]} is kept, and its list of files can not be read, so nobody "
        f"knows which objects it needs: {error.message}",
        remedy=f"Mend it first with `still repair {digest[:SHORT]}`; nothing was changed.",
        code="gc.unreadable_tree",
    )


# -- telling ------------------------------------------------------------------------------------


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


def _show(found: Decision, *, everything: bool) -> None:
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
    if rows:
        render.table(("what", "digest", "kind", "size", "name", "why"), rows)
    for total in _totals(found):
        render.row("total", total["reason"], total["artifacts"], render.size(total["bytes"]))


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


def _explain(found: Decision, grace: timedelta, *, dry_run: bool) -> None:
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
    if dry_run:
        render.note("  Nothing was changed.")


def _as_json(
    found: Decision, grace: timedelta, *, dry_run: bool, everything: bool
) -> dict[str, Any]:
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
        },
        "totals": _totals(found),
    }
    if everything:
        told["kept"] = [
            item(digest, found.stock.size(found.stock.needs.get(digest, ())))
            | {"reason": kept.reason.code, "detail": kept.detail}
            for digest, kept in found.kept.items()
        ]
    return told
