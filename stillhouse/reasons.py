"""The reasons that people give for what they do by hand; events keep them for good."""

from __future__ import annotations

from stillhouse.schemas.errors import InputError

LONGEST = 1000
"""Characters."""


def check_reason(reason: str, *, code: str, remedy: str) -> None:
    """Raises InputError with this code and remedy when the reason is too long."""
    if len(reason) > LONGEST:
        raise InputError(
            f"The reason has {len(reason)} characters; {LONGEST} are the most.",
            remedy=remedy,
            code=code,
        )
