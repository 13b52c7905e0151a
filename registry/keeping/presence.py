"""Whether the bytes of an artifact are here, as the ledger tells it, and how to get them back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from stillhouse.registry.keeping.retention import retention
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError

if TYPE_CHECKING:
    from stillhouse.registry.state.state import State

Word = Literal["kept", "unkept", "condemned", "absent"]


@dataclass(frozen=True, kw_only=True)
class Presence:
    """How the bytes of one artifact stand."""

    word: Word
    reason: str
    """In words."""
    code: str | None
    """The reason's name for scripts, if something keeps it."""
    detail: str
    """What keeps it; when it is swept; which event gave it up."""
    remedy: str


def presence(state: State, digest: Digest, now: str, grace: timedelta) -> Presence:
    """How an artifact's bytes stand at `now` (RFC 3339 UTC)."""
    if digest in state.absent:
        event = f"event {state.absent[digest]}"
        return _presence("absent", "its bytes were given up", event, way_back(state, digest))
    found = retention(state, now, grace).get(digest)
    keep = f"`still tag NAME {digest[:SHORT]}`"
    if digest in state.condemned:
        until = f"swept after {state.condemned[digest]}"
        if found is None:
            return _presence("condemned", "nothing keeps it", until, keep)
        return Presence(
            word="condemned",
            reason=found.reason.value,
            code=found.reason.code,
            detail=found.detail,
            remedy="`still gc`, which reprieves it",
        )
    if found is None:
        return _presence("unkept", "nothing keeps it", "the next `still gc` condemns it", keep)
    return Presence(
        word="kept",
        reason=found.reason.value,
        code=found.reason.code,
        detail=found.detail,
        remedy="",
    )


def _presence(word: Word, reason: str, detail: str, remedy: str) -> Presence:
    return Presence(word=word, reason=reason, code=None, detail=detail, remedy=remedy)


def word_for(state: State, digest: Digest) -> str:
    """`absent` or `condemned`; empty for what is here to stay or not decided on."""
    if digest in state.absent:
        return "absent"
    return "condemned" if digest in state.condemned else ""


def require_present(state: State, digest: Digest) -> None:
    """Refuse an artifact whose bytes were given up. Raises InputError that says how to get them."""
    if digest in state.absent:
        raise InputError(
            f"The bytes of {digest[:SHORT]} are not here: event {state.absent[digest]} gave them "
            "up.",
            remedy=f"Get them back with {way_back(state, digest)}.",
            code="artifact.absent",
        )


def way_back(state: State, digest: Digest) -> str:
    """The command that brings the bytes of an artifact back, as it is written in a remedy."""
    made = state.from_run(digest)
    by_run = made is not None and made.run is not None
    verb = "rewind" if by_run else "repair"
    return f"`still {verb} {digest[:SHORT]}{'' if by_run else ' --from PATH'}`"
