"""What happened, in the order in which it was recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from stillhouse.schemas.event import Event

if TYPE_CHECKING:
    from stillhouse.session import Session

_POLL_SECONDS = 0.2


def history(
    session: Session,
    *,
    after: int = 0,
    follow: bool = False,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[Event, ...]]:
    """The events after number `after` that are recorded now; with `follow`, later ones for ever.

    Each time as many as there are, which may be none. Raises IntegrityError where the ledger is
    broken, before any event of that time is given out.
    """
    reader = session.reader()
    while True:
        yield tuple(event for event in reader.new_events() if event.seq > after)
        if not follow:
            return
        wait(_POLL_SECONDS)
