"""The verbs that advance plans: `run` one recipe until nothing more happens, `watch` for more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.screen import here
from stillhouse.cli.views import render
from stillhouse.cli.views.plan import show_gates, show_missing, show_slots
from stillhouse.registry.planning.summary import PlanSummary, summary_of_plan
from stillhouse.schemas.digest import SHORT, Digest

if TYPE_CHECKING:
    from stillhouse.phases.reactor.reactor import Reactor
    from stillhouse.registry.planning.views import PlanView
    from stillhouse.schemas.errors import StillError
    from stillhouse.session import Session

_INTERRUPTED = 130


def run(
    context: typer.Context,
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe file, or a REF of a published one.")
    ],
    *,
    priority: Annotated[
        int | None,
        typer.Option("--priority", min=-100, max=100, help="Higher goes first; 0 by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Advance a recipe until quiet.

    Publishes it with every file it names. Ends with 0 only if every required gate passed. Beside a
    daemon it asks for the plan, and follows what the daemon does.

    With --json: one object a line for each event and progress note, then one `summary`.
    """
    from stillhouse.cli.views.follow import watcher
    from stillhouse.phases.reactor.waiting import Wakeups

    session = session_of(context)
    plan = _plan(session, recipe)
    with (
        watcher(as_json=as_json, after=session.ledger.head().seq) as screen,
        Wakeups(session.home.log, tell=render.note) as wakeups,
    ):

        def wait(seconds: float) -> None:
            screen.draw()
            wakeups.wait(seconds)

        reactor = session.reactor(screen.hear, wait=wait)
        screen.follow(reactor)
        _request(session, reactor, plan, priority)
        view = _advance(reactor, plan)
    if as_json:
        here().json_line({"summary": summary_of_plan(view)})
    else:
        _show(summary_of_plan(view))
    if not view.done:
        raise typer.Exit(1)


def watch(
    context: typer.Context,
    *,
    inbox: Annotated[
        Path | None, typer.Option("--inbox", metavar="DIR", help="Default: the registry's inbox/.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when all is quiet.")] = False,
    drain: Annotated[
        bool,
        typer.Option("--drain", help="On SIGTERM (with --once: now) let live runs end first."),
    ] = False,
    poll: Annotated[
        float | None,
        typer.Option(
            "--poll",
            metavar="SECONDS",
            min=0.1,
            help="Look at files so often, as network file systems need it.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", help="What a dropped checkpoint goes through."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Advance every plan; publish what is dropped.

    INBOX/KIND/NAME is taken when it has been still for 2 s. SIGTERM ends the daemon and not its
    workers: the next one takes them up. Ctrl-C also ends the workers that it started itself.
    """
    from stillhouse.cli.daemon.daemon import watch as keep_watch
    from stillhouse.cli.views.follow import watcher

    session = session_of(context)
    with watcher(as_json=as_json, after=session.ledger.head().seq) as screen:
        if not as_json:
            render.note(f"Watching {inbox or session.home.inbox}; stop with Ctrl-C.")
        reactor = session.reactor(screen.hear)
        screen.follow(reactor)
        done = keep_watch(
            session,
            reactor,
            inbox=inbox,
            recipe=recipe,
            once=once,
            drain=drain,
            poll=poll if poll is not None else _forced_polling(),
            draw=screen.draw,
            complain=lambda path, error: _complain(path, error, as_json=as_json),
            tell=render.note,
        )
    if not done:
        raise typer.Exit(1)


def _forced_polling() -> float | None:
    """Seconds between two looks when the environment asks for it, as watchfiles understands it."""
    from stillhouse.phases.reactor.waiting import POLL_SECONDS

    asked = os.environ.get("WATCHFILES_FORCE_POLLING", "false").lower()
    return None if asked in {"", "false", "disable", "disabled"} else POLL_SECONDS


def _plan(session: Session, recipe: str) -> Digest:
    """The plan that RECIPE means: a file that is there is published; else a REF is looked up.

    Raises InputError when it is neither; what can only be a path is then told to be missing.
    """
    from stillhouse import recipes
    from stillhouse.registry.state.references import resolve_reference
    from stillhouse.schemas.artifact import Kind
    from stillhouse.store.disk.durable import present

    path = Path(recipe)
    if present(path) and not path.is_dir():
        return recipes.resolve(session, path)
    state = session.state()
    if recipe not in state.tags and (path.suffix or len(path.parts) > 1):
        return recipes.resolve(session, path)
    return resolve_reference(state, recipe, kind=Kind.RECIPE)


def _request(session: Session, reactor: Reactor, plan: Digest, priority: int | None) -> None:
    """Ask for the plan unless it is wanted as it is, and today's versions would change nothing.

    Asking reopens its failed runs, and lets phases run again whose packages have changed.
    """
    from stillhouse import recipes

    state = reactor.state
    before = state.priorities.get(plan, 0)
    asked = before if priority is None else priority
    if not state.wants(plan) or asked != before or not reactor.view(plan, fresh=True).done:
        reactor.record_environment()  # first: what is asked for is asked for under it
        recipes.request(session, plan, priority=asked)


def _advance(reactor: Reactor, plan: Digest) -> PlanView:
    try:
        return reactor.advance(plan)
    except KeyboardInterrupt:
        reactor.stop()
        render.note("Stopped. The same `still run` goes on from what is recorded.")
        raise typer.Exit(_INTERRUPTED) from None


def _show(found: PlanSummary) -> None:
    screen = here()
    show_slots(screen, found.slots)
    screen.line()
    show_gates(screen, found.gates)
    screen.line()
    if found.release:
        screen.row("release", found.release)
        screen.note(
            f"  Next: write it out with `still manifest {found.release[:SHORT]} --out DIR`."
        )
    elif found.done:
        screen.row("done", f"plan {screen.short(found.plan)}")
    show_missing(screen, found)


def _complain(path: Path, error: StillError, *, as_json: bool) -> None:
    if as_json:
        render.json_line({"refused": {"path": str(path), **error.as_dict()}})
        return
    render.note(f"Refused {render.clean(path)}:")
    render.tell_error(error, as_json=False)
