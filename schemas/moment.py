"""Moments: the only format of time.

A moment is spelled in UTC, as RFC 3339 with exactly six digits of the second and `Z`:

    2026-11-22T10:20:30.123456Z

Rules: every text has the same 27 characters, so texts compare as the moments do, and the registry
compares moments as texts. What a person types (`--until`, `--as-of`) is read where it is asked
for; its result is spelled here.
"""

from __future__ import annotations

from datetime import UTC, datetime


def spell(moment: datetime) -> str:
    """The moment as events hold it. Raises ValueError for one without a time zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone")
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat("T", "microseconds").replace("+00:00", "Z")


def parse(text: str) -> datetime:
    """The moment that a text of an event names, in UTC. Raises ValueError where it names none."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)
