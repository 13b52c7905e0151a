"""The verb `why`: the first reason for which something stands as it stands, with digests.

Of a run it names what of its key was new beside the nearest earlier run of its slot. Every reason
has a stable code for scripts (`registry/planning/views.Reason`).
"""

from __future__ import annotations

from typing import Annotated

import typer

from stillhouse import why as question
from stillhouse.cli.arguments import Json, PlanOption, session_of
from stillhouse.cli.screen import answer
from stillhouse.cli.views.why import show_why


def why(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="PHASE|SLOT|GATE|REF", help="A phase, a slot, a gate, an artifact or a run."
        ),
    ],
    *,
    plan: PlanOption = None,
    as_json: Json = False,
) -> None:
    """Say why something ran or did not.

    Why it ran, was not run again, waits or is blocked, or why a gate is open or closed: the first
    reason, with digests. Of an artifact also why its bytes are kept.
    """
    answer(question.why(session_of(context), target, plan=plan), show_why, as_json=as_json)
