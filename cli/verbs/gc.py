"""The verb `gc`: bytes that nothing keeps are condemned, and after a grace they are swept.

One command does all of it, from one look at the store (stillhouse/stock.py):

 1. what is condemned and is kept again comes back (`bytes.reprieved`);
 2. what was condemned longer than the grace ago goes for good (`bytes.swept`);
 3. what nothing keeps any longer is condemned (`bytes.condemned`).

What runs left that ended without success goes too, once it is older than the grace and no plan
would take it up again (phases/reactor/folders.py), and so do unfinished copies of the dead.

The three are recorded in one batch *before* a single object moves, and only if nothing that was
recorded since the look may change them; else they are decided anew, over the same look. So whatever
may be gone is known as gone or condemned, and a kill at any point leaves only work for the next gc:
objects still to be moved or removed, of which nobody is told that they are there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.views import collection as sweepings
from stillhouse.cli.views import render
from stillhouse.quiet import LOOKS, unquiet
from stillhouse.registry.keeping.marking import Marks, Stock, mark, sweep_order
from stillhouse.registry.keeping.retention import Kept, kept_logs, retention
from stillhouse.schemas import moment
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.schemas.events import (
    ArtifactPublished,
    BytesCondemned,
    BytesReprieved,
    BytesSwept,
    Payload,
    TagMoved,
)
from stillhouse.session import clock
from stillhouse.stock import Stocktaker, alone
from stillhouse.store.objects.staging import sweep

if TYPE_CHECKING:
    from stillhouse.phases.reactor.folders import RunFolder
    from stillhouse.registry.state.state import State
    from stillhouse.schemas.event import Event
    from stillhouse.session import Session
    from stillhouse.store.objects.leases import Lease

_MOST = 800
"""Digests in one event, which holds at most 64 KiB."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What one garbage collection is to do."""

    state: State
    stock: Stock
    kept: dict[Digest, Kept]
    marks: Marks
    leases: tuple[Lease, ...]
    """What was condemned after the oldest of them began is not swept."""
    now: str
    since: str
    """What is older than this is older than the grace."""
    until: str
    """When what is condemned now may be swept."""
    folders: tuple[RunFolder, ...] = ()
    """Of runs; they are no objects, and no event tells of them."""

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

    @cached_property
    def touched(self) -> frozenset[Digest]:
        """Objects that go, or lose their place."""
        return self.marks.due | self.marks.doomed

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
    Kept is what a tag, a release, a plan or a run needs, what is young, and all that shaped it. Old
    folders of runs that no plan would take up again are removed.
    """
    session = session_of(context)
    allowed = grace_of(session, grace)
    if dry_run:
        taker = Stocktaker(session)
        done = decide(taker, taker.look(), allowed)
        done = replace(done, folders=taker.run_folders.look(done.now, done.since))
    else:
        with alone(session.home):
            done = collect(session, allowed)
    if as_json:
        told = sweepings.as_json(done, allowed, dry_run=dry_run, everything=everything)
        render.json_document(told)
        return
    sweepings.show(done, everything=everything)
    sweepings.explain(done, allowed, dry_run=dry_run)


def grace_of(session: Session, given: str | None) -> timedelta:
    """The grace that counts. Raises InputError."""
    from stillhouse.config import duration

    if given is None:
        return session.config.grace
    try:
        return duration(given)
    except ValueError as error:
        raise InputError(
            f"--grace: {error}.", remedy="Write it as --grace 14d.", code="gc.bad_grace"
        ) from error


def decide(taker: Stocktaker, stock: Stock, grace: timedelta) -> Decision:
    """What is to go. Raises IntegrityError when it can not be known what something needs."""
    at = clock()
    now, since = moment.spell(at), moment.spell(at - grace)
    kept = retention(taker.state, now, grace)
    if damaged := [digest for digest in taker.unreadable if digest in kept]:
        raise _unknown_needs(damaged[0], taker.unreadable[damaged[0]])
    stock = _with_logs(stock, taker.state, kept, since)
    marks = mark(stock, kept, taker.state.condemned, at=at, grace=grace)
    return Decision(
        state=taker.state,
        stock=stock,
        kept=kept,
        marks=marks,
        leases=taker.leases,
        now=now,
        since=since,
        until=moment.spell(at + grace),
    )


def collect(session: Session, grace: timedelta) -> Decision:
    """Decide, record, and do it; the caller is alone.

    Raises BusyError when others record so fast that no decision stays true, StorageError.
    """
    taker = Stocktaker(session)
    stock = taker.look()
    for _ in range(LOOKS):
        found = decide(taker, stock, grace)
        payloads = found.payloads()
        if not payloads:
            session.ledger.settle()  # what an earlier gc recorded, and was killed before it did it
        if not payloads or session.ledger.append(
            payloads, since=found.state.seq, unless=partial(_overtakes, found, taker)
        ):
            _carry_out(session, found)
            return replace(found, folders=_without_old(taker, found))
        stock = taker.read_on()
    raise unquiet("still gc")


def _overtakes(found: Decision, taker: Stocktaker, event: Event) -> bool:
    """Whether an event may take away the ground for a decision, so that it is to be made anew.

    Not when it only publishes something else, made from what is kept, or tags what is kept: these
    come by the dozen each second, and a decision that waited for a pause would wait for ever.
    """

    def spares(digest: Digest) -> bool:
        return digest in found.kept or digest not in found.state.artifacts  # what is new

    if event.type == TagMoved.TYPE:
        return not spares(event.data["digest"])
    if event.type == ArtifactPublished.TYPE:
        fact = ArtifactPublished.model_validate(event.data)
        named = (fact.digest, *(parent.digest for parent in fact.parents))
        touches = taker.touches(fact.digest, fact.form, found.touched)
        return touches or not all(map(spares, named))
    return True


def _carry_out(session: Session, found: Decision) -> None:
    store = session.store
    for digest in sorted(found.marks.restored):
        store.restore(digest)
    store.sweep(sweep_order(found.marks.due, found.state.artifacts))
    store.condemn(sorted(found.marks.doomed))
    sweep(store.root)


def _without_old(taker: Stocktaker, found: Decision) -> tuple[RunFolder, ...]:
    """Remove the folders of runs that may go; what became of each."""
    folders = taker.run_folders
    present = folders.look(found.now, found.since)
    return tuple(
        folder
        if not folder.over or folders.remove(folder, found.now, found.since, refresh=taker.follow)
        else replace(folder, over=False, why="somebody took it up meanwhile")
        for folder in present
    )


def _with_logs(stock: Stock, state: State, kept: dict[Digest, Kept], since: str) -> Stock:
    return replace(stock, held=stock.held | kept_logs(state, kept, since))


def _in_events(
    artifacts: Sequence[Digest], orphans: Sequence[Digest]
) -> Iterator[tuple[tuple[Digest, ...], tuple[Digest, ...]]]:
    """(artifacts, orphans) for each event; the totals stand in the first of several."""
    both = [*artifacts, *orphans]
    for start in range(0, len(both), _MOST):
        chunk, split = both[start : start + _MOST], max(0, len(artifacts) - start)
        yield tuple(chunk[:split]), tuple(chunk[split:])


def _unknown_needs(digest: Digest, error: IntegrityError) -> IntegrityError:
    return IntegrityError(
        f"The folder {digest[:SHORT]} is kept, and its list of files can not be read, so nobody "
        f"knows which objects it needs: {error.message}",
        remedy=f"Mend it first with `still repair {digest[:SHORT]}`; nothing was changed.",
        code="gc.unreadable_tree",
    )
