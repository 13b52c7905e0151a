"""Deciding at the head of the ledger: a decision is recorded only while it still holds there.

Else it is made again, with what others recorded since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from stillhouse.schemas.errors import BusyError

if TYPE_CHECKING:
    from stillhouse.registry.state.state import State
    from stillhouse.schemas.event import Event
    from stillhouse.schemas.events import Payload
    from stillhouse.session import Session

T = TypeVar("T")

LOOKS = 50
"""How often to decide before giving up."""


def record_decision(
    session: Session,
    state: State,
    decide: Callable[[], tuple[T, Sequence[Payload], Callable[[Event], bool]]],
    *,
    command: str,
) -> T:
    """Decide over `state`, record it, and return it.

    decide: follows the ledger in `state`; gives the decision, what to record of it, and which later
    events overtake it. Raises BusyError `gc.unquiet` after 50 decisions that were overtaken;
    nothing is recorded then.
    """
    for _ in range(LOOKS):
        found, payloads, overtaken = decide()
        if not payloads:
            session.ledger.settle()  # recorded earlier, perhaps by one killed before its fsync
            return found
        if session.ledger.append(payloads, since=state.seq, unless=overtaken):
            return found
    raise BusyError(
        "Something was recorded at every look, so nothing could be decided.",
        remedy=f"Run `{command}` again when the registry is quieter; nothing was changed.",
        code="gc.unquiet",
    )
