"""What several commands take: a REF, `--json`, and the registry that they work on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stillhouse.registry.home import locate
from stillhouse.session import Session, open_registry, open_unchecked

Ref = Annotated[str, typer.Argument(metavar="REF", help="A digest prefix, a tag, or kind@latest.")]
MaybeRef = Annotated[
    str | None, typer.Argument(metavar="[REF]", help="A digest prefix, a tag, or kind@latest.")
]
PlanOption = Annotated[
    str | None, typer.Option("--plan", metavar="REF", help="Default: the latest plan.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def session_of(context: typer.Context) -> Session:
    """The registry that the command line means. Raises InputError when there is none."""
    return open_registry(locate(context.obj, Path.cwd()))


def unchecked_session_of(context: typer.Context) -> Session:
    """The same, whatever happened to its ledger. Raises InputError when there is none."""
    return open_unchecked(locate(context.obj, Path.cwd()))
