"""The verb `init`: make a registry."""

from __future__ import annotations

from pathlib import Path

import typer

from stillhouse.cli.screen import here
from stillhouse.registry.home import place
from stillhouse.session import make_registry


def init(context: typer.Context) -> None:
    """Make a registry.

    In .still/ here, or at --registry DIR, or at STILL_REGISTRY.
    """
    home = place(context.obj, Path.cwd())
    made = make_registry(home)
    screen = here()
    what = "Made a registry at" if made else "There is a registry already at"
    screen.line(f"{what} {home.root}" if screen.tty else str(home.root))
