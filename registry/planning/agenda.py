"""The agenda: what is to be done next for all plans, kept up to date event by event.

Rules: an event costs as much as the slots that it can change, however many plans wait and however
many artifacts there are (`assessed` counts the slots that were looked at). Who is interested in
which run or artifact is indexed from the assessments themselves. At any moment the agenda equals
one that is made anew from the same state.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

from stillhouse.registry.planning.assess import Assessment
from stillhouse.registry.planning.decide import Start, environment_facts, slot_facts
from stillhouse.registry.planning.views import PlanView, Site, Status
from stillhouse.registry.state.state import State
from stillhouse.schemas import events as e
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.event import Event
from stillhouse.schemas.events import Payload
from stillhouse.schemas.plan import PhaseSpec

_OF_ONE_ARTIFACT = (e.ArtifactPublished.TYPE, e.ArtifactEvicted.TYPE, e.ArtifactRestored.TYPE)

_ALL = None
"""Every slot of a plan."""

_PLAN = "*"
"""Stands for a plan as a whole where a slot is expected."""

_Rank = tuple[int, int, int, Digest, str]
"""(-priority, when the plan was asked for, place in the plan, plan, slot): what starts first."""


class Agenda:
    """What is to be done for the wanted plans of one state."""

    def __init__(
        self, state: State, catalog: Sequence[PhaseSpec], site: Site, *, only: Digest | None = None
    ) -> None:
        """`only`: of the wanted plans, the one that counts; None: all."""
        self._state, self._catalog, self._site = state, catalog, site
        self._only = only
        self._standing: dict[Digest, Assessment] = {}
        self._touched: dict[Digest, set[str] | None] = {}
        self._interested: dict[Digest, set[tuple[Digest, str]]] = {}
        """Run or artifact -> slots that its events can change; `*`: a whole plan."""
        self._interests: dict[tuple[Digest, str], set[Digest]] = {}
        self._facts: dict[tuple[Digest, str], tuple[Payload, ...]] = {}
        self._ready: list[_Rank] = []
        self._ranks: dict[tuple[Digest, str], _Rank] = {}
        self._pausing: set[tuple[Digest, str]] = set()
        self._wakes: list[tuple[str, Digest]] = []
        self._woken: dict[Digest, str] = {}
        """Plan -> the moment that was last put into `_wakes` for it."""
        self.assessed = 0
        """Slots that were assessed so far, each time counted."""
        for plan in state.wanted() if only is None else (only,):
            self._touched[plan] = _ALL

    # -- what happened -------------------------------------------------------------------------

    def note(self, event: Event) -> None:
        """Note what an event can change. The state must have taken it in before."""
        data = event.data
        if event.type in (e.PlanRequested.TYPE, e.PlanCancelled.TYPE):
            self._note_plan(data["plan"])
        elif event.type == e.ArtifactPublished.TYPE and data["kind"] == Kind.ENVIRONMENT:
            self._touched |= dict.fromkeys(self._standing, _ALL)
        elif event.type in _OF_ONE_ARTIFACT:
            self._note_interested(data["digest"])
        elif event.type == e.BytesSwept.TYPE:
            for digest in data["artifacts"]:
                self._note_interested(digest)
        elif event.type in (e.GateEvaluated.TYPE, e.GateWaived.TYPE):
            self._note_interested(data["subject"])
        elif event.type == e.ReleaseCut.TYPE:
            self._note_interested(data["release"])
        elif event.type.startswith("run."):
            self._note_interested(data["run"])
            self._touch(data.get("plan", ""), data.get("slot", ""))

    def _note_plan(self, plan: Digest) -> None:
        if self._only in (None, plan):
            self._touched[plan] = _ALL

    def _note_interested(self, digest: Digest) -> None:
        for plan, slot in self._interested.get(digest, ()):
            self._touch(plan, slot)

    def _touch(self, plan: Digest, slot: str) -> None:
        if plan not in self._standing:
            return
        touched = self._touched.setdefault(plan, set())
        if slot == _PLAN:
            self._touched[plan] = _ALL
        elif touched is not None:
            touched.add(slot)

    # -- what is to be done --------------------------------------------------------------------

    def facts(self, now: str) -> tuple[Payload, ...]:
        """Take in what was noted and what fell due by `now`; the facts that are to be recorded."""
        while self._wakes and self._wakes[0][0] <= now:
            plan = heapq.heappop(self._wakes)[1]
            self._woken.pop(plan, None)
            if plan in self._standing:
                self._touched[plan] = _ALL
        for plan, slots in self._touched.items():
            self._assess(plan, slots, now)
        self._touched.clear()
        # Two plans may call for the same verdict.
        found = {fact.model_dump_json(): fact for facts in self._facts.values() for fact in facts}
        return tuple(found.values())

    def starts(self) -> Iterator[Start]:
        """The runs that are ready, in the order in which they should start; each key once."""
        seen: set[Digest | None] = set()
        for *_, plan, slot in self._ready:
            view = self._standing[plan].views[slot]
            if view.key not in seen:
                seen.add(view.key)
                yield Start(plan=plan, view=view)

    @property
    def pausing(self) -> bool:
        """Whether a run waits for a moment to be tried again."""
        return bool(self._pausing)

    @property
    def wake(self) -> str | None:
        """When something changes by itself (RFC 3339 UTC); None: never."""
        return self._wakes[0][0] if self._wakes else None

    def view(self, plan: Digest, now: str) -> PlanView:
        """A plan as it stands, once `facts` was asked at `now`. Raises KeyError: not wanted."""
        return self._standing[plan].view(now)

    # -- keeping up ----------------------------------------------------------------------------

    def _assess(self, plan: Digest, slots: Container[str] | None, now: str) -> None:
        if not self._state.wants(plan):
            self._forget(plan)
            return
        found = self._standing.get(plan)
        if found is None:
            found = Assessment(self._state, plan, self._catalog, self._site)
            self._standing[plan], slots = found, _ALL
        done = found.again(now, slots)
        self.assessed += len(done)
        for slot in done:
            self._index(plan, slot, set(found.interests(slot)))
            self._set_facts(plan, slot, slot_facts(found, found.views[slot]))
            self._set_ready(plan, slot, found)
            (self._pausing.add if found.views[slot].until else self._pausing.discard)((plan, slot))
        self._index(plan, _PLAN, found.environments())
        self._set_facts(plan, _PLAN, environment_facts(found))
        if found.wake is not None and self._woken.get(plan) != found.wake:
            self._woken[plan] = found.wake
            heapq.heappush(self._wakes, (found.wake, plan))

    def _forget(self, plan: Digest) -> None:
        gone = self._standing.pop(plan, None)
        for slot in (*gone.views, _PLAN) if gone else ():
            self._index(plan, slot, set())
            self._set_facts(plan, slot, ())
            self._unready(plan, slot)
            self._pausing.discard((plan, slot))

    def _index(self, plan: Digest, slot: str, now: set[Digest]) -> None:
        before = self._interests.pop((plan, slot), set())
        for digest in before - now:
            self._interested[digest].discard((plan, slot))
            if not self._interested[digest]:
                del self._interested[digest]
        for digest in now - before:
            self._interested.setdefault(digest, set()).add((plan, slot))
        if now:
            self._interests[plan, slot] = now

    def _set_facts(self, plan: Digest, slot: str, facts: Iterable[Payload]) -> None:
        found = tuple(facts)
        if found:
            self._facts[plan, slot] = found
        else:
            self._facts.pop((plan, slot), None)

    def _set_ready(self, plan: Digest, slot: str, found: Assessment) -> None:
        self._unready(plan, slot)
        view = found.views[slot]
        if view.status is Status.READY and view.key is not None:
            priority = self._state.priorities.get(plan, 0)
            asked = self._state.requested.get(plan, 0)
            rank = (-priority, asked, found.place(slot), plan, slot)
            insort(self._ready, rank)
            self._ranks[plan, slot] = rank

    def _unready(self, plan: Digest, slot: str) -> None:
        rank: Any = self._ranks.pop((plan, slot), None)
        if rank is not None:
            del self._ready[bisect_left(self._ready, rank)]
