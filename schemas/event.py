"""The event envelope: one line of the ledger.

    sha256_hex TAB canonical_json LF          hash = sha256(the JSON bytes)

`prev` is the previous line's hash (64 zeros for the first), so the chain can be audited by anyone.
A batch is atomic: `batch` is this line's place in it ("1/3"); an incomplete batch at the end of the
log counts as torn. `data` is the payload (schemas/events.py), `v` its version; a type that this
program does not know is kept and passed on unchanged.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from stillhouse.schemas.digest import Digest, Sha256
from stillhouse.schemas.value import Value

GENESIS = "0" * 64
"""`prev` of the first event."""

MAX_EVENT_BYTES = 64 * 1024
"""An event's JSON is at most this long."""


class Actor(Value):
    """Who caused an event."""

    user: str
    host: str
    run: Digest | None = None
    """The run whose outcome this is, if one."""


class Event(Value):
    """One immutable fact."""

    seq: int = Field(ge=1)
    """1, 2, 3 … without gaps."""
    prev: Sha256
    ts: str
    """UTC, RFC 3339 with microseconds: `2026-11-22T10:20:30.123456Z`."""
    type: str
    """Past tense: `artifact.published`."""
    v: int = Field(ge=1)
    actor: Actor
    batch: str
    """`place/size`: `1/1` alone, `2/3` second of three."""
    data: dict[str, Any]
