"""How often a decision is made again because others recorded events before it was recorded.

A decision is recorded only if it still holds at the head of the ledger; else it is made again.
"""

from __future__ import annotations

from stillhouse.schemas.errors import BusyError

LOOKS = 50
"""How often to decide before giving up."""


def unquiet(command: str) -> BusyError:
    """Make the error for a registry in which no decision holds until it is recorded."""
    return BusyError(
        "Something was recorded at every look, so nothing could be decided.",
        remedy=f"Run `{command}` again when the registry is quieter; nothing was changed.",
        code="gc.unquiet",
    )
