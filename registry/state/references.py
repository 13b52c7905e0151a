"""References: what a REF on the command line or in a recipe means, and which run or plan is meant.

A REF is a digest prefix (4 or more characters, unique), a tag, or `kind@latest`. Tags never look
like digests or kinds (see `check_tag_name`), so the three cannot be confused.
"""

from __future__ import annotations

import difflib
import re

from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import State
from stillhouse.schemas.artifact import Form, Kind
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError, ReferenceError_

_LATEST = "@latest"
_SHORTEST = 4
_HEX = re.compile(r"[0-9a-f]+")
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9._/-]{0,99}")
_SHOWN = 5
"""Candidates that are named to someone who named none of them."""


def resolve_reference(state: State, text: str, *, kind: Kind | None = None) -> Digest:
    """The digest of the artifact that `text` names, of `kind` if one is given.

    Raises ReferenceError_ with the candidates when there are several, with near names when none.
    """
    if text.endswith(_LATEST):
        return _of_kind(state, text, _latest(state, text), kind)
    if text in state.tags:
        return _of_kind(state, text, state.tags[text], kind)
    found = [
        digest
        for digest in state.artifacts
        if digest.startswith(text) and (kind is None or state.published(digest, kind))
    ]
    if _HEX.fullmatch(text) and len(text) < _SHORTEST and not found[1:]:
        raise _too_short(text)
    if not _HEX.fullmatch(text) or not found:
        raise _unknown(state, text, kind)
    if len(found) > 1:
        raise _ambiguous(state, text, found)
    return found[0]


def resolve_run(state: State, text: str) -> Digest | None:
    """The run key that `text` is a unique prefix of, if any."""
    if not _HEX.fullmatch(text) or len(text) < _SHORTEST:
        return None
    found = [key for key in state.runs if key.startswith(text)]
    return found[0] if len(found) == 1 else None


def find_run(state: State, text: str) -> Run:
    """The run whose key begins with `text`, else the newest of that slot of the latest plan.

    Raises ReferenceError_ when there is none, or more than one such key.
    """
    key = resolve_run(state, text)
    if key is not None:
        return state.runs[key]
    plan = latest_plan(state) if state.requested else None
    of_slot = [
        run
        for run in state.runs.values()
        if (run.started.plan, run.started.slot) == (plan, text)
        or (plan is not None and state.filled.get((plan, text)) == run.key)
    ]
    if of_slot:
        return max(of_slot, key=lambda run: run.started_seq)
    newest = sorted(state.runs.values(), key=lambda run: run.started_seq)[-_SHOWN:]
    known = ", ".join(f"{run.key[:SHORT]} ({run.started.slot})" for run in newest)
    raise ReferenceError_(
        f"{text!r} is not the beginning of exactly one run's key, and no slot of the latest plan "
        "that has run.",
        remedy=f"The newest runs: {known}; see `still runs`." if known else "Nothing has run yet.",
        code="ref.unknown_run",
    )


def latest_plan(state: State) -> Digest:
    """The plan that was asked for last. Raises InputError when none was."""
    if not state.requested:
        raise InputError(
            "No plan has been asked for in this registry yet.",
            remedy="Ask for one with `still run RECIPE`.",
            code="plan.none",
        )
    return max(state.requested, key=lambda plan: state.requested[plan])


def form_of(state: State, digest: Digest) -> Form:
    """How to read an artifact: as one file or as a folder. Raises KeyError for an unknown one.

    One digest may be published as both, for a tree is a file too. What a run made counts before
    what somebody published by hand; then a tree, which is the file and all that it lists.
    """
    found = state.artifacts[digest]
    made = [p for p in found if p.origin != "imported"]
    return "tree" if any(p.form == "tree" for p in made or found) else "blob"


def check_tag_name(name: str) -> str:
    """A name that may be a tag. Raises InputError."""
    if not _TAG.fullmatch(name) or _HEX.fullmatch(name) or name in set(Kind):
        raise InputError(
            f"{name!r} can not be a tag.",
            remedy="Begin with a letter; use letters, digits and . _ / -; not only hex digits, "
            "and not the name of a kind.",
            code="tag.bad_name",
        )
    return name


def _latest(state: State, text: str) -> Digest:
    name = text.removesuffix(_LATEST)
    if name not in set(Kind):
        raise ReferenceError_(
            f"{text!r} names no kind of artifact.",
            remedy="Kinds are: " + ", ".join(sorted(Kind)) + ".",
            code="ref.unknown_kind",
        )
    found = state.latest.get(Kind(name))
    if found is None:
        raise ReferenceError_(
            f"No {name} has been published yet.",
            remedy="See what there is with `still ls`.",
            code="ref.unknown",
        )
    return found


def _of_kind(state: State, text: str, digest: Digest, kind: Kind | None) -> Digest:
    if kind is not None and state.published(digest, kind) is None:
        raise ReferenceError_(
            f"{text} names {digest[:SHORT]}, which is not a {kind}.",
            remedy=f"Name a {kind}.",
            code="ref.wrong_kind",
        )
    return digest


def _ambiguous(state: State, text: str, found: list[Digest]) -> ReferenceError_:
    shown = ", ".join(
        f"{digest[:SHORT]} ({state.artifacts[digest][0].kind})" for digest in found[:_SHOWN]
    )
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ReferenceError_(
        f"{text!r} could mean {shown}{more}.",
        remedy=f"Give more characters of the digest (at least {_SHORTEST}).",
        code="ref.ambiguous",
    )


def _too_short(text: str) -> ReferenceError_:
    return ReferenceError_(
        f"{text!r} is no tag, and too short for a digest prefix.",
        remedy=f"Give {_SHORTEST} characters of the digest or more; see `still ls`.",
        code="ref.too_short",
    )


def _unknown(state: State, text: str, kind: Kind | None) -> ReferenceError_:
    near = difflib.get_close_matches(text, state.tags, n=3)
    hint = f"Near tags: {', '.join(near)}. " if near else ""
    return ReferenceError_(
        f"{text!r} names no {kind or 'artifact'} here.",
        remedy=f"{hint}A reference is a digest prefix, a tag, or kind@latest; see `still ls`.",
        code="ref.unknown",
    )
