"""The verb `evict`: drop the bytes of an artifact that its recorded run can make again.

1. look (stillhouse/stock.py), and refuse what could not be made again or is in use;
2. record `artifact.evicted`, if nobody recorded anything since the look: from now on it is known
   that the bytes may be gone;
3. condemn the objects that nothing else which is there needs;
4. look again, leases first; sweep those that nobody may rely on. What a publisher or worker that
   began earlier may have seen stays readable, until a later gc or evict.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.views import render
from stillhouse.quiet import LOOKS, unquiet
from stillhouse.registry.keeping.marking import Stock, mark, sweep_order
from stillhouse.registry.keeping.recovery import NotDerivableError, chain
from stillhouse.registry.keeping.retention import releases_of
from stillhouse.registry.state.references import resolve_reference
from stillhouse.rewind import tools_changed_since
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import BusyError, InputError
from stillhouse.schemas.events import ArtifactEvicted
from stillhouse.schemas.plain import plain
from stillhouse.session import clock
from stillhouse.stock import Stocktaker, alone

if TYPE_CHECKING:
    from stillhouse.registry.state.runs import Run
    from stillhouse.registry.state.state import State
    from stillhouse.session import Session


@dataclass(frozen=True, kw_only=True)
class Eviction:
    """What evicting one artifact takes."""

    digest: Digest
    steps: tuple[Run, ...]
    """The runs that make it again; the last one made it."""
    objects: frozenset[Digest]
    """What nothing else that is there needs."""
    size: int
    """Bytes of these."""


def evict(
    context: typer.Context,
    ref: Ref,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be freed; change nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also reports, and what a release was made from.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Drop an artifact's bytes; keep its recipe.

    Only what a recorded run made, and can make again with `still rewind`.
    """
    session = session_of(context)
    digest = resolve_reference(session.state(), ref)
    taker = Stocktaker(session)
    if dry_run:
        found = _decided(taker, taker.look(), digest, force=force)
        freed = 0
    else:
        with alone(session.home):
            found = _recorded(session, taker, digest, force=force)
            freed = _dropped(session, taker, found.objects)
    _tell(found, freed, dry_run=dry_run, as_json=as_json)


def _recorded(session: Session, taker: Stocktaker, digest: Digest, *, force: bool) -> Eviction:
    """Decide and record. Raises InputError, BusyError."""
    stock = taker.look()
    for _ in range(LOOKS):
        found = _decided(taker, stock, digest, force=force)
        if digest in taker.state.absent:
            session.ledger.settle()
            return found  # recorded before; its objects were still in use then
        fact = ArtifactEvicted(digest=digest, run=found.steps[-1].key, size=found.size)
        if session.ledger.append([fact], since=taker.state.seq, unless=lambda _: True):
            return found
        stock = taker.read_on()
    raise unquiet("still evict")


def _decided(taker: Stocktaker, stock: Stock, digest: Digest, *, force: bool) -> Eviction:
    state = taker.state
    objects = _only_its_own(taker, stock, digest)
    if digest in state.absent and stock.size(objects) == 0:
        raise InputError(
            f"The bytes of {digest[:SHORT]} are gone already, since event {state.absent[digest]}.",
            remedy=f"Have them made again with `still rewind {digest[:SHORT]}`.",
            code="evict.absent",
        )
    steps = _way_back(state, digest)
    _refuse_used(state, digest)
    if not force:
        _refuse_released(state, digest)
        _refuse_measured(state, digest)
    return Eviction(digest=digest, steps=steps, objects=objects, size=stock.size(objects))


def _only_its_own(taker: Stocktaker, stock: Stock, digest: Digest) -> frozenset[Digest]:
    mine = stock.needs.get(digest) or taker.remnants(digest)
    others = (needed for artifact, needed in stock.needs.items() if artifact != digest)
    return mine.difference(stock.held, taker.state.logs(), *others)


def _way_back(state: State, digest: Digest) -> tuple[Run, ...]:
    try:
        return chain(state, digest, state.absent)
    except NotDerivableError as error:
        what = "" if error.digest == digest else f" {error.digest[:SHORT]} is not here, and"
        raise InputError(
            f"{digest[:SHORT]} could not be made again:{what} {error.reason}.",
            remedy="Keep it. What nothing keeps goes by itself, with `still gc`."
            if error.digest == digest
            else f"Bring {error.digest[:SHORT]} back first: `still repair {error.digest[:SHORT]} "
            "--from PATH`.",
            code="evict.not_derivable",
        ) from error


def _refuse_used(state: State, digest: Digest) -> None:
    for run in state.running():
        if any(parent.digest == digest for parent in run.started.inputs):
            raise BusyError(
                f"Run {run.key[:SHORT]} ({run.started.slot}) goes on and reads {digest[:SHORT]}.",
                remedy="Wait until it ends: `still runs`.",
                code="evict.in_use",
            )


def _refuse_released(state: State, digest: Digest) -> None:
    for release in releases_of(state).get(digest, ()):
        raise InputError(
            f"{digest[:SHORT]} belongs to the release {release[:SHORT]}.",
            remedy="Say --force if it is really to go; `still rewind` makes it again.",
            code="evict.released",
        )


def _refuse_measured(state: State, digest: Digest) -> None:
    if any(publication.kind is Kind.REPORT for publication in state.artifacts[digest]):
        raise InputError(
            f"{digest[:SHORT]} is a report: it tells how long its run took, and another run would "
            "not make the same bytes.",
            remedy="Keep it, it is small; or say --force.",
            code="evict.report",
        )


def _dropped(session: Session, taker: Stocktaker, objects: Collection[Digest]) -> int:
    """Condemn the objects, and sweep what nobody may rely on; returns the bytes freed."""
    session.store.condemn(sorted(objects))
    stock = taker.look()
    # Whatever is there is kept here: only what was given up may go.
    marks = mark(stock, stock.needs.keys(), {}, at=clock(), grace=timedelta(0))
    return session.store.sweep(sweep_order(marks.due.intersection(objects), taker.state.artifacts))


def _tell(found: Eviction, freed: int, *, dry_run: bool, as_json: bool) -> None:
    changes = tools_changed_since(found.steps)
    if as_json:
        render.json_document(
            {
                "digest": found.digest,
                "dry_run": dry_run,
                "run": found.steps[-1].key,
                "steps": [run.key for run in found.steps],
                "bytes": found.size,
                "freed": freed,
                "tools": plain(changes),
            }
        )
        return
    what = "would free" if dry_run else "evicted"
    render.row(what, render.short(found.digest), render.size(found.size if dry_run else freed))
    for run in found.steps:
        seconds = f"{run.seconds:.0f} s" if run.seconds is not None else ""
        render.row("made by", run.started.slot, f"run {render.short(run.key)}", seconds)
    for change in changes:
        render.note(f"  Note: {change.sentence}")
    if dry_run:
        render.note("  Nothing was changed.")
    elif freed < found.size:
        render.note(
            f"  {render.size(found.size - freed)} bytes wait: somebody at work may have seen them. "
            "The next `still gc` frees them."
        )
