"""Heads: who remembers which event's hash, and what that says of the log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from stillhouse.registry.home import Home
from stillhouse.registry.ledger.witness import lock_of, noted
from stillhouse.registry.lineage.index import DamagedError, Image
from stillhouse.schemas.digest import Sha256
from stillhouse.schemas.errors import InputError

_HEAD = re.compile(r"([1-9]\d*):([0-9a-f]{64})")

Verdict = Literal["agrees", "differs", "beyond", "unknown"]
"""beyond: the log ends before that event. unknown: it is broken before that event."""


@dataclass(frozen=True, kw_only=True)
class Witness:
    """Somebody who remembers one event's hash."""

    source: str
    seq: int
    hash: Sha256


@dataclass(frozen=True, kw_only=True)
class Testimony(Witness):
    """A witness, held against the log."""

    verdict: Verdict


def parse_head(text: str) -> Witness:
    """A head that a person kept, as `SEQ:HASH`. Raises InputError."""
    found = _HEAD.fullmatch(text)
    if found is None:
        raise InputError(
            f"{text!r} is not the head of a ledger.",
            remedy="Give SEQ:HASH, as `still audit` and a manifest's depends_on tell them.",
            code="audit.bad_head",
        )
    return Witness(source="--head", seq=int(found[1]), hash=found[2])


def noted_heads(home: Home) -> Iterator[Witness]:
    """What the note beside the projection and the header of the index remember."""
    note = noted(home.projection)
    if note is not None and note.seq:
        yield Witness(source=lock_of(home.projection).name, seq=note.seq, hash=note.hash)
    try:
        covered = Image(home.lineage.read_bytes()).position
    except (OSError, DamagedError):
        return
    if covered.seq:
        yield Witness(source=home.lineage.name, seq=covered.seq, hash=covered.hash)
