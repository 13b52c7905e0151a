"""The verb `diff`: where two things begin to differ. A question: what it finds is no exit code."""

from __future__ import annotations

from typing import Annotated

import typer

from stillhouse import compare
from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.screen import answer
from stillhouse.cli.views.comparison import show_comparison

_Thing = Annotated[
    str,
    typer.Argument(help="A digest prefix, a tag, kind@latest, or the prefix of a run's key."),
]


def diff(context: typer.Context, a: _Thing, b: _Thing, *, as_json: Json = False) -> None:
    """Show where two artifacts, runs, plans or releases begin to differ.

    Nearest cause first: phase versions, inputs, parameters, tools; then what was recorded beside
    them, what follows, metrics and gates. A recipe stands for its plan.
    """
    answer(compare.diff(session_of(context), a, b), show_comparison, as_json=as_json)
