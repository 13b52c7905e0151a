"""Provenance: what shaped what fills a plan's slots, told by recorded runs. Pure.

    slot of P --filled by--> run --recorded input--> slot that P's recipe names, or a given digest

Rule 2, which manifests name. A step is a slot of a plan and the run that fills it. For each input
of the run, the plan's recipe names the slot that it came from, or the digest itself; the source is
the last fill of that slot before the cut whose outputs hold the input. A reused run counts with the
slot and the sources of the plan that reused it. A given digest ends the walk where a person
published it; where a run made it, the walk goes on at the publication that the request names, as
part of that run's own plan. Publications and their parents are never followed: two runs that make
equal bytes share a digest, and no history.

Rule 1 was the union over every run that ever made the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from stillhouse.registry.planning.assess import enumerate_slots
from stillhouse.registry.state.runs import Fill, Success
from stillhouse.registry.state.state import PlanRequest, Published, State
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.plan import Need, PhaseSpec

RULE: Literal[2] = 2

RECIPE = "recipe"
"""The role under which a run records the plan that it was started for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """A slot of a plan, and what filled it; compare by `key`."""

    plan: Digest
    fill: Fill
    cut: int
    """The last event that counts for its sources."""

    @property
    def slot(self) -> str:
        """The slot's id."""
        return self.fill.slot

    @property
    def run(self) -> Digest:
        """The run's key."""
        return self.fill.success.started.run

    @property
    def key(self) -> tuple[Digest, str, int, int]:
        """What makes it one step: a slot may be filled again, and be met at two cuts."""
        return self.plan, self.slot, self.fill.seq, self.cut


@dataclass(frozen=True, kw_only=True)
class Link:
    """One input: what it was for, and where it came from."""

    role: str
    digest: Digest
    circumstance: bool
    """Whether it is recorded and shaped no result."""
    source: Step | None
    """The step that made it; None: it came from outside …"""
    published: Published | None
    """… and then the publication that is meant; None: it was never published."""


class Provenance:
    """Answers for one state; remembers what a recipe's slots need."""

    def __init__(self, state: State, catalog: Sequence[PhaseSpec]) -> None:
        self._state, self._catalog = state, catalog
        self._needs = cache(self._wiring)

    def step(self, plan: Digest, slot: str, cut: int, holding: Digest | None = None) -> Step | None:
        """The last fill of a slot up to event `cut`; `holding`: of those with that output."""
        for fill in reversed(self._state.fills.get(plan, ())):
            made = fill.success.outputs.values()
            if fill.seq <= cut and fill.slot == slot and (holding is None or holding in made):
                return Step(plan=plan, fill=fill, cut=cut)
        return None

    def links(self, step: Step) -> Iterator[Link]:
        """What a step was given, in the recorded order."""
        return self.trace(step.plan, step.slot, step.fill.success.started.inputs, step.cut)

    def trace(self, plan: Digest, slot: str, inputs: Iterable[Parent], cut: int) -> Iterator[Link]:
        """Where inputs of a slot came from; not the recipe, which is the plan itself."""
        for parent in inputs:
            if parent.role != RECIPE:
                source, published = self._source(plan, slot, parent, cut)
                yield Link(
                    role=parent.role,
                    digest=parent.digest,
                    circumstance=parent.circumstance,
                    source=source,
                    published=published,
                )

    def behind(self, steps: Iterable[Step]) -> dict[Step, tuple[Link, ...]]:
        """Every step that leads to these, themselves first, each with what it was given."""
        known = {step.key: step for step in steps}
        waiting = list(known.values())
        found = {}
        for step in waiting:  # grows while it is walked
            found[step] = tuple(self.links(step))
            for link in found[step]:
                if link.source is not None and link.source.key not in known:
                    known[link.source.key] = link.source
                    waiting.append(link.source)
        return found

    def _source(
        self, plan: Digest, slot: str, parent: Parent, cut: int
    ) -> tuple[Step | None, Published | None]:
        for need in self._needs(plan).get(slot, ()):
            if need.role != parent.role:
                continue
            if need.slot is not None:
                made = self.step(plan, need.slot, cut, holding=parent.digest)
                if made is not None:
                    return made, None
            elif need.digest == parent.digest:
                return self._given(plan, parent, cut)
        return None, self.outside(parent.digest, parent.role, cut)

    def _given(
        self, plan: Digest, parent: Parent, cut: int
    ) -> tuple[Step | None, Published | None]:
        """Where a digest came from that the recipe names."""
        request = self.request(plan, cut)
        before = cut if request is None else request.seq
        found = self.outside(parent.digest, parent.role, before)
        if found is None or found.run is None:
            return None, found
        named = {} if request is None else request.given
        known = self._state.artifacts[parent.digest]
        found = next((p for p in known if p.seq == named.get(parent.digest)), found)
        return self._maker(parent.digest, found), found

    def given(self, plan: Digest) -> dict[Digest, int]:
        """What the recipe names and only runs made -> the event of its latest publication.

        For `plan.requested`: a digest alone does not say which of several runs is meant.
        """
        found = {}
        for need in (need for needs in self._needs(plan).values() for need in needs):
            if need.digest is None:
                continue
            meant = self.outside(need.digest, need.role, self._state.seq)
            if meant is not None and meant.run is not None:
                same = [p for p in self._state.artifacts[need.digest] if p.kind is meant.kind]
                found[need.digest] = same[-1].seq
        return found

    def request(self, plan: Digest, cut: int) -> PlanRequest | None:
        """The last request for a plan up to event `cut`."""
        for request in reversed(self._state.requests.get(plan, ())):
            if request.seq <= cut:
                return request
        return None

    def outside(self, digest: Digest, role: str, before: int) -> Published | None:
        """What a person published a digest as up to an event, else a probe or a run.

        The first one; of those with the kind that the role names, where there are any.
        """
        known = [p for p in self._state.artifacts.get(digest, ()) if p.seq <= before]
        kind = Kind(role) if role in set(Kind) else None
        known = [p for p in known if p.kind is kind] or known
        return next((p for p in known if p.origin == "imported"), known[0] if known else None)

    def _maker(self, digest: Digest, published: Published) -> Step | None:
        """The step of the run's own plan that recorded a publication."""
        for success in self._state.successes.get(published.run or "", ()):
            if success.seq > published.seq and digest in success.outputs.values():
                return _own(success)
        return None

    def _wiring(self, plan: Digest) -> dict[str, tuple[Need, ...]]:
        if self._state.published(plan, Kind.RECIPE) is None:
            return {}
        slots = enumerate_slots(self._state.recipe(plan), self._catalog)
        return {slot.id: slot.needs for _, slot in slots}


def _own(success: Success) -> Step:
    """A run as a step of the plan that it was started for."""
    started = success.started
    fill = Fill(seq=success.seq, slot=started.slot, success=success, reused=False)
    return Step(plan=started.plan, fill=fill, cut=success.seq)
