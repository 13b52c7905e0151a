"""Advancing one plan: which one RECIPE means, asking for it, and going on until it is at rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse import recipes
from stillhouse.registry.planning.summary import PlanSummary, summary_of_plan
from stillhouse.registry.state.references import resolve_reference
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.store.disk.durable import present

if TYPE_CHECKING:
    from stillhouse.notices import Watcher
    from stillhouse.phases.reactor.reactor import Reactor
    from stillhouse.session import Session


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """What advancing a plan came to."""

    summary: PlanSummary


def find_plan(session: Session, recipe: str) -> Digest:
    """The plan that RECIPE means: a file that is there is published; else a REF is looked up.

    Raises InputError when it is neither; what can only be a path is then told to be missing.
    """
    path = Path(recipe)
    if present(path) and not path.is_dir():
        return recipes.resolve(session, path)
    state = session.state()
    if recipe not in state.tags and (path.suffix or len(path.parts) > 1):
        return recipes.resolve(session, path)
    return resolve_reference(state, recipe, kind=Kind.RECIPE)


def advance(
    session: Session, plan: Digest, watcher: Watcher, *, priority: int | None = None
) -> Advanced:
    """Ask for a plan, and advance it until nothing more happens by itself.

    Beside another advancer this follows what that one does. priority: higher goes first; None: what
    it was asked for with before, or 0. KeyboardInterrupt ends the workers that were started here.
    """
    from stillhouse.phases.reactor.waiting import Wakeups

    with Wakeups(session.home.log, tell=watcher.note) as wakeups:

        def wait(seconds: float) -> None:
            watcher.draw()
            wakeups.wait(seconds)

        reactor = session.reactor(watcher.hear, wait=wait)
        watcher.follow(reactor)
        _request(session, reactor, plan, priority)
        try:
            return Advanced(summary=summary_of_plan(reactor.advance(plan)))
        except KeyboardInterrupt:
            reactor.stop()
            raise


def _request(session: Session, reactor: Reactor, plan: Digest, priority: int | None) -> None:
    """Ask for the plan unless it is wanted as it is, and today's versions would change nothing.

    Asking reopens its failed runs, and lets phases run again whose packages have changed.
    """
    state = reactor.state
    before = state.priorities.get(plan, 0)
    asked = before if priority is None else priority
    if not state.wants(plan) or asked != before or not reactor.view(plan, fresh=True).done:
        reactor.record_environment()  # first: what is asked for is asked for under it
        recipes.request(session, plan, priority=asked)
