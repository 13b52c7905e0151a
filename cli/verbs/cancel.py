"""The verb `cancel`: one run, or a whole plan, is to end and is not to be started again.

What is recorded is the wish; whoever advances the registry ends the worker. Where nobody does, this
command does it itself, and starts nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.views import render
from stillhouse.quiet import LOOKS, unquiet
from stillhouse.registry.planning.views import PlanView, SlotView, Status
from stillhouse.registry.state.references import latest_plan, resolve_reference, resolve_run
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError, ReferenceError_
from stillhouse.schemas.events import (
    Payload,
    PlanCancelled,
    RunCancelled,
    RunStarted,
)

if TYPE_CHECKING:
    from stillhouse.phases.reactor.reactor import Reactor
    from stillhouse.registry.state.runs import Run
    from stillhouse.schemas.event import Event
    from stillhouse.session import Session

PATIENCE = 30.0
"""Seconds to wait for a worker to end; it is asked first, and ended later."""
_POLL_SECONDS = 0.05
_LONGEST_REASON = 1000
"""Characters."""


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """What is to end."""

    plan: Digest | None = None
    runs: tuple[Run, ...] = ()
    spared: tuple[Run, ...] = ()
    """Runs of the plan that go on, because another plan needs them."""


def cancel(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN|SLOT|PLAN",
            help="A prefix of a run's key, a slot of the latest plan, or a REF of a recipe.",
        ),
    ],
    *,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why.")] = "",
    as_json: Json = False,
) -> None:
    """End a run, or a plan with its runs.

    It is not started again until `still retry` or `still run` asks for it. Ends with 1 if a worker
    is still there after 30 s.
    """
    _check_reason(reason)
    session = session_of(context)
    reactor = session.reactor()
    wish = _record_wish(session, reactor, target, reason)
    _await_end(reactor, [run.key for run in wish.runs])
    gone_on = _tell(reactor, wish, as_json=as_json)
    if gone_on:
        raise typer.Exit(1)


def _check_reason(reason: str) -> None:
    if len(reason) > _LONGEST_REASON:
        raise InputError(
            f"The reason has {len(reason)} characters; {_LONGEST_REASON} are the most.",
            remedy="Shorten it.",
            code="cancel.long_reason",
        )


# -- what is meant ------------------------------------------------------------------------------


def _wish(reactor: Reactor, target: str) -> _Wish:
    """What is to end. Raises InputError when it has ended, ReferenceError_ when it is unknown."""
    state = reactor.state
    key = resolve_run(state, target)
    if key is not None:
        return _Wish(runs=(_unended(reactor, state.runs[key]),))
    view = reactor.view(latest_plan(state)) if state.requested else None
    for slot in view.slots if view else ():
        if slot.slot.id == target:
            return _Wish(runs=(_unended(reactor, _run_of(slot)),))
    try:
        plan = resolve_reference(state, target, kind=Kind.RECIPE)
    except ReferenceError_ as error:
        if error.code != "ref.unknown":  # what is wrong with it is told best as it is
            raise
        raise ReferenceError_(
            f"{target!r} is no run, no slot of the latest plan and no recipe.",
            remedy="See what goes on with `still runs --status running`.",
            code="cancel.unknown",
        ) from error
    return _wish_of_plan(reactor, plan)


def _run_of(slot: SlotView) -> Run:
    if slot.run is None:
        detail = f": {slot.detail}" if slot.detail else ""
        raise InputError(
            f"{slot.slot.id} has no run to cancel: it is {slot.status}, {slot.reason}{detail}.",
            remedy="To keep it from starting, cancel its plan: `still cancel PLAN`.",
            code="cancel.not_started",
        )
    return slot.run


def _unended(reactor: Reactor, run: Run) -> Run:
    """The run, which goes on or would go on by itself. Raises InputError when it has ended."""
    tried_again = run.goes_on_by_itself and run.failures < reactor.site().limits.attempts
    if run.going_on or tried_again:
        return run
    raise InputError(
        f"There is nothing to cancel: {run.short_name} has ended; {run.ending}.",
        remedy="It is not started again by itself.",
        code="cancel.ended",
    )


def _wish_of_plan(reactor: Reactor, plan: Digest) -> _Wish:
    state = reactor.state
    view = reactor.view(plan)
    running = [s.run for s in view.slots if s.status is Status.RUNNING and s.run is not None]
    name = f"plan {plan[:SHORT]} ({view.recipe.name})"
    if not state.wants(plan) and not running:
        how = "it was cancelled before" if plan in state.requested else "it was never asked for"
        raise InputError(
            f"There is nothing to cancel: {how}, {name}.",
            remedy="Plans that are asked for are advanced by `still run` and `still watch`.",
            code="cancel.not_asked_for",
        )
    if view.done and view.settled:
        raise InputError(
            f"There is nothing to cancel: {name} has ended; every slot is filled, every gate open.",
            remedy="See what it came to with `still manifest`.",
            code="cancel.ended",
        )
    needed = _needed(reactor, (other for other in state.wanted() if other != plan))
    return _Wish(
        plan=plan,
        runs=tuple(run for run in running if run.key not in needed),
        spared=tuple(run for run in running if run.key in needed),
    )


def _needed(reactor: Reactor, plans: Iterable[Digest]) -> set[Digest | None]:
    """The runs that go on and that these plans need."""
    views: list[PlanView] = [reactor.view(plan) for plan in plans]
    return {s.key for view in views for s in view.slots if s.status is Status.RUNNING}


# -- doing it -----------------------------------------------------------------------------------


def _record_wish(session: Session, reactor: Reactor, target: str, reason: str) -> _Wish:
    """Look what is to end, and record it, until nothing moved between the two. Raises BusyError."""
    for _ in range(LOOKS):
        wish = _wish(reactor, target)
        if _recorded(session, reactor, wish, reason):
            return wish
    raise unquiet("still cancel")


def _recorded(session: Session, reactor: Reactor, wish: _Wish, reason: str) -> bool:
    """Append the wish, unless one of its runs moved on meanwhile, or one of its plan started.

    Returns whether it is recorded. What somebody wished before is not wished again.
    """
    payloads: list[Payload] = [
        RunCancelled(run=run.key, attempt=run.attempts, reason=reason)
        for run in wish.runs
        if not run.cancelled_seq
    ]
    if wish.plan is not None and reactor.state.wants(wish.plan):
        payloads.insert(0, PlanCancelled(plan=wish.plan, reason=reason))
    keys = {run.key for run in wish.runs}

    def moved(event: Event) -> bool:
        starts = event.type == RunStarted.TYPE and event.data["plan"] == wish.plan
        return starts or event.data.get("run") in keys

    if payloads:
        done = bool(session.ledger.append(payloads, since=reactor.state.seq, unless=moved))
    else:
        session.ledger.settle()  # what another wished, and was perhaps killed before it was durable
        done = True
    reactor.refresh()
    return done


def _await_end(reactor: Reactor, keys: list[Digest]) -> None:
    """Until none of them goes on, or patience is at its end.

    Whoever advances ends them; where nobody does, or no longer does, this does.
    """
    until = time.monotonic() + PATIENCE
    while any(reactor.state.runs[key].going_on for key in keys):
        with reactor.advancing() as mine:
            moved = mine and reactor.tick(start=False)
        if not moved:
            reactor.refresh()
            time.sleep(_POLL_SECONDS)
        if time.monotonic() > until:
            return


def _tell(reactor: Reactor, wish: _Wish, *, as_json: bool) -> bool:
    """Say what happened; whether anything goes on that was to end."""
    told = [reactor.state.runs[run.key] for run in wish.runs]
    gone_on = [run for run in told if run.going_on]
    word = {run.key: str(run.status) if run.going_on else "cancelled" for run in told}
    if as_json:
        render.json_document(
            {
                "plan": wish.plan,
                "runs": [
                    {"run": r.key, "slot": r.started.slot, "status": word[r.key]} for r in told
                ],
                "spared": [{"run": r.key, "slot": r.started.slot} for r in wish.spared],
            }
        )
        return bool(gone_on)
    if wish.plan is not None:
        render.row("cancelled", "plan", render.short(wish.plan))
    for run in told:
        render.row(word[run.key], run.started.slot, render.short(run.key))
    for run in wish.spared:
        render.row("spared", run.started.slot, render.short(run.key), "another plan needs it")
    if gone_on:
        render.note(
            f"  It is recorded, but after {PATIENCE:.0f} s a worker is still there; whoever "
            "advances the registry goes on ending it."
        )
    return bool(gone_on)
