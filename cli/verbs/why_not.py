"""The verb `why-not`: from what has not run or passed down to the slot or gate that is the cause.

Every step follows the first reason; the cause is said with its own reason, in numbers, and with
what can be done about it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from stillhouse import why as question
from stillhouse.cli.arguments import Json, PlanOption, session_of
from stillhouse.cli.screen import answer
from stillhouse.cli.views.why import show_why


def why_not(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="PHASE|SLOT|GATE|release",
            help="A phase, a slot, a gate, a tier, or a capability of the policy.",
        ),
    ],
    *,
    plan: PlanOption = None,
    as_json: Json = False,
) -> None:
    """Say why something has not run or passed.

    Down to the slot or gate that is the cause, and what can be done about it.
    """
    answer(question.why_not(session_of(context), target, plan=plan), show_why, as_json=as_json)
