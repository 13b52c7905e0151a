"""Where two things begin to differ: both lineages walked side by side, role by role. Pure.

Breadth first, so causes come nearest first; a pair of equal digests ends its branch, for all that
is behind it is equal. A *cause* differs in itself: a parameter, a version, a file from elsewhere.
A *consequence* differs because something behind it does: an input that a run made from others.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from stillhouse.registry.compare.runs import ABSENT, Difference, compared, differences, flattened
from stillhouse.registry.compare.subjects import Subject, maker_of, slots_of
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import Published, State
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.digest import Digest, is_digest

_DOCUMENTS = frozenset({Kind.RECIPE, Kind.POLICY, Kind.ENVIRONMENT})
"""Kinds whose content is in their event."""
_WHOLE = ("parameter", "plan")
"""The recipe as a whole, in the key of a sealing run; its parts that matter are listed apart."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that differs, and how far from what was compared."""

    distance: int
    """Arrows between; 0: in the two things themselves."""
    path: tuple[str, ...]
    """The roles that lead to it, or the slot of a plan."""
    what: str
    """`parameter`, `tool`, `phase`, `gate`, `input`, `recipe`, `policy`, `content`, `origin` …"""
    name: str
    before: str
    after: str


@dataclass(kw_only=True)
class Walk:
    """What was found, each list nearest first."""

    causes: list[Change] = field(default_factory=list)
    circumstances: list[Change] = field(default_factory=list)
    """What was recorded beside the two and shaped no result: the environment, the recipe."""
    consequences: list[Change] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    path: tuple[str, ...]
    before: Subject
    after: Subject


def walk(state: State, before: Subject, after: Subject) -> Walk:
    """Compare two things and all that they were made from."""
    return _Walker(state).go(before, after)


class _Walker:
    def __init__(self, state: State) -> None:
        self._state = state
        self._found = Walk()
        self._waiting: deque[_Pair] = deque()
        self._awaited: set[tuple[Digest, Digest]] = set()
        self._seen: set[tuple[Digest, Digest]] = set()

    def go(self, before: Subject, after: Subject) -> Walk:
        self._await((), before, after)
        while self._waiting:
            self._compare(self._waiting.popleft())
        found = self._found
        if not found.causes and before.name != after.name:
            self._without_cause(_Pair(path=(), before=before, after=after))
        for changes in (found.causes, found.circumstances, found.consequences):
            changes.sort(key=lambda change: change.distance)
        return found

    def _await(self, path: tuple[str, ...], before: Subject, after: Subject) -> None:
        names = before.name, after.name
        if before.name != after.name and names not in self._awaited:
            self._awaited.add(names)
            self._waiting.append(_Pair(path=path, before=before, after=after))

    def _compare(self, pair: _Pair) -> None:
        one, other = self._maker(pair.before), self._maker(pair.after)
        if one and other:
            self._compare_runs(pair, one, other)
        elif one or other:
            self._cause(
                pair.path, "origin", "", *(self._origin(s) for s in (pair.before, pair.after))
            )
        else:
            self._compare_contents(pair)

    # -- made by runs ----------------------------------------------------------------------------

    def _compare_runs(self, pair: _Pair, one: Run, other: Run) -> None:
        if one.key == other.key:
            roles = [self._role(one, side.digest) for side in (pair.before, pair.after)]
            self._cause(pair.path, "output", "", *roles)
            return
        if pair.path:
            role = pair.path[-1]
            self._follow(pair.path, "input", role, pair.before.name, pair.after.name)
        else:
            self._compare_circumstances(one, other)
        if (one.key, other.key) in self._seen:
            return  # two runs that made several inputs of one are compared once
        self._seen.add((one.key, other.key))
        if one.started.slot != other.started.slot:
            self._cause(pair.path, "slot", "", one.started.slot, other.started.slot)
        for difference in differences(one, other):
            self._compare_part(pair, difference)
        self._compare_roles(pair.path, _inputs(one), _inputs(other))

    def _compare_part(self, pair: _Pair, found: Difference) -> None:
        """One part of the key; inputs are walked by their own method."""
        if found.what == "input" or (found.what, found.name) == _WHOLE:
            return
        if self._is_known(found.before) and self._is_known(found.after):
            path = (*pair.path, found.name)
            self._await(path, Subject(digest=found.before), Subject(digest=found.after))
        else:
            self._cause(pair.path, found.what, found.name, found.before, found.after)

    def _compare_roles(
        self, path: tuple[str, ...], before: Sequence[Parent], after: Sequence[Parent]
    ) -> None:
        """Pair what is behind the two, role by role; what both have ends there."""
        for role in sorted({parent.role for parent in (*before, *after)}):
            old = [p.digest for p in before if p.role == role]
            new = [p.digest for p in after if p.role == role]
            for one, other in zip_longest(_without(old, new), _without(new, old)):
                if one and other:
                    self._await((*path, role), Subject(digest=one), Subject(digest=other))
                else:
                    self._cause(path, "input", role, one or ABSENT, other or ABSENT)

    def _compare_circumstances(self, one: Run, other: Run) -> None:
        roles = [
            {p.role: p.digest for p in run.started.inputs if p.circumstance} for run in (one, other)
        ]
        for found in compared("circumstance", roles[0], roles[1]):
            self._circumstance(found.what, found.name, found.before, found.after)
            if found.name == Kind.ENVIRONMENT:
                before, after = self._document(found.before), self._document(found.after)
                for fact in compared(found.name, before, after):
                    self._circumstance(fact.what, fact.name, fact.before, fact.after)

    # -- from elsewhere --------------------------------------------------------------------------

    def _compare_contents(self, pair: _Pair) -> None:
        found = [self._state.published(side.digest) for side in (pair.before, pair.after)]
        kinds = [str(p.fact.kind) if p else ABSENT for p in found]
        if kinds[0] != kinds[1]:
            self._cause(pair.path, "kind", "", *kinds)
            return
        if kinds[0] in _DOCUMENTS:
            before, after = (self._document(side.digest) for side in (pair.before, pair.after))
            for change in compared(kinds[0], before, after):
                if not (self._is_known(change.before) and self._is_known(change.after)):
                    self._cause(pair.path, change.what, change.name, change.before, change.after)
        else:
            self._cause(pair.path, "content", kinds[0], pair.before.digest, pair.after.digest)
        self._compare_roles(pair.path, *(_parents(p) for p in found))
        if kinds[0] == Kind.RECIPE and not pair.path:
            self._compare_plans(pair)

    def _compare_plans(self, pair: _Pair) -> None:
        """What filled the slots of two plans: versions differ there, parameters in the recipe."""
        before, after = (slots_of(self._state, side.digest) for side in (pair.before, pair.after))
        for slot in dict.fromkeys((*before, *after)):
            one, other = before.get(slot), after.get(slot)
            if one and other and one.key == other.key:
                continue
            keys = [run.key if run else ABSENT for run in (one, other)]
            self._follow((slot,), "run", slot, *keys)
            for found in differences(one, other) if one and other else ():
                if found.what in ("phase", "tool"):
                    self._cause((slot,), found.what, found.name, found.before, found.after)

    # -- what was found --------------------------------------------------------------------------

    def _without_cause(self, pair: _Pair) -> None:
        """Nothing differs by itself: tell what differs at all, or that nothing does."""
        one, other = self._maker(pair.before), self._maker(pair.after)
        for found in differences(one, other) if one and other else ():
            self._cause((), found.what, found.name, found.before, found.after)
        if not self._found.causes:
            self._cause((), "content", "", pair.before.name, pair.after.name)

    def _cause(self, path: tuple[str, ...], what: str, name: str, before: str, after: str) -> None:
        self._found.causes.append(_change(path, what, name, before, after))

    def _follow(self, path: tuple[str, ...], what: str, name: str, before: str, after: str) -> None:
        self._found.consequences.append(_change(path, what, name, before, after))

    def _circumstance(self, what: str, name: str, before: str, after: str) -> None:
        self._found.circumstances.append(_change((), what, name, before, after))

    # -- what is known ---------------------------------------------------------------------------

    def _maker(self, side: Subject) -> Run | None:
        """The run that a side is, or that made it."""
        return side.run or maker_of(self._state, side.digest)

    def _origin(self, side: Subject) -> str:
        run = self._maker(side)
        if run:
            return f"run of {run.started.slot}"
        found = self._state.published(side.digest)
        return found.fact.origin if found else ABSENT

    def _role(self, run: Run, digest: Digest) -> str:
        return next((role for role, made in run.outputs.items() if made == digest), digest)

    def _is_known(self, text: str) -> bool:
        return is_digest(text) and text in self._state.artifacts

    def _document(self, digest: Digest) -> dict[str, Any]:
        """What an artifact's event says of its content, with numbers as they were recorded."""
        found = self._state.published(digest)
        facts = found.fact.facts if found else {}
        return flattened(facts.get(str(found.fact.kind), facts)) if found and facts else {}


def _change(path: tuple[str, ...], what: str, name: str, before: str, after: str) -> Change:
    return Change(distance=len(path), path=path, what=what, name=name, before=before, after=after)


def _inputs(run: Run) -> list[Parent]:
    return [parent for parent in run.started.inputs if not parent.circumstance]


def _parents(found: Published | None) -> list[Parent]:
    return [p for p in found.fact.parents if not p.circumstance] if found else []


def _without(digests: Sequence[Digest], others: Sequence[Digest]) -> list[Digest]:
    """What is left of `digests` when each of `others` takes one of its own away."""
    left = Counter(digests) - Counter(others)
    return list(left.elements())
