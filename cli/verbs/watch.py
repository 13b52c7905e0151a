"""The verb `watch`: every plan is advanced, and what is dropped into the inbox is taken in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.screen import here
from stillhouse.cli.views.follow import watcher


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

    session = session_of(context)
    with watcher(here(), as_json=as_json, after=session.ledger.head().seq) as watching:
        if not as_json:
            watching.note(f"Watching {inbox or session.home.inbox}; stop with Ctrl-C.")
        done = keep_watch(
            session,
            watching,
            inbox=inbox,
            recipe=recipe,
            once=once,
            drain=drain,
            poll=_forced_polling() if poll is None else poll,
        )
    if not done:
        raise typer.Exit(1)


def _forced_polling() -> float | None:
    """Seconds between two looks when the environment asks for it, as watchfiles understands it."""
    from stillhouse.phases.reactor.waiting import POLL_SECONDS

    asked = os.environ.get("WATCHFILES_FORCE_POLLING", "false").lower()
    return None if asked in {"", "false", "disable", "disabled"} else POLL_SECONDS
