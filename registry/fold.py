"""The state of the registry: events folded in order, in memory.

Rules: `apply` is the only writer; folding the same events gives an equal state; an unknown event
type changes nothing but the position. Decisions, gates and references are computed from this state,
so they never wait for the projection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from schemas import events as e
from schemas.artifact import Kind
from schemas.digest import Digest
from schemas.event import GENESIS, Event
from schemas.policy import Policy
from schemas.recipe import Recipe
from schemas.upcast import payload_of

RunStatus = Literal["started", "succeeded", "failed", "abandoned"]
MAX_DEATHS = 3
"""A run whose process keeps dying is given up after this many deaths in a row."""

GateKey = tuple[str, Digest, Digest, Digest]
"""(gate, subject, evidence, policy)."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One publication of an artifact, and when it was recorded."""

    seq: int
    ts: str
    fact: e.ArtifactPublished


@dataclass(kw_only=True)
class Run:
    """What is known of one run key."""

    key: Digest
    started: e.RunStarted
    status: RunStatus
    attempts: int
    """Number of its latest attempt."""
    seq: int
    """Of its latest event."""
    started_seq: int
    """Of the start of its latest attempt."""
    deaths: int = 0
    """Attempts in a row whose process died; a new request or a retry begins another row."""
    ts: str
    """When the latest attempt started."""
    outputs: dict[str, Digest] = field(default_factory=dict)
    seconds: float | None = None
    error: e.RunFailed | None = None
    reason: str = ""
    log: Digest | None = None

    @property
    def given_up(self) -> bool:
        """Whether its process died too often to be started again by itself."""
        return self.status == "abandoned" and self.deaths >= MAX_DEATHS

    @property
    def environment(self) -> Digest | None:
        """The environment that the run was recorded in."""
        found = [p.digest for p in self.started.inputs if p.role == "environment"]
        return found[0] if found else None


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One recorded verdict."""

    seq: int
    fact: e.GateEvaluated


@dataclass(frozen=True, kw_only=True)
class Waived:
    """One recorded waiver."""

    seq: int
    fact: e.GateWaived


@dataclass(kw_only=True)
class State:
    """Everything that decisions read."""

    seq: int = 0
    hash: str = GENESIS
    artifacts: dict[Digest, list[Published]] = field(default_factory=dict)
    latest: dict[Kind, Digest] = field(default_factory=dict)
    environment_seq: int = 0
    """When the present environment was first seen."""
    runs: dict[Digest, Run] = field(default_factory=dict)
    filled: dict[tuple[Digest, str], Digest] = field(default_factory=dict)
    """(plan, slot) -> the run key that fills it."""
    requested: dict[Digest, int] = field(default_factory=dict)
    """plan -> seq of its latest request."""
    verdicts: dict[GateKey, Judged] = field(default_factory=dict)
    waivers: dict[tuple[str, Digest], list[Waived]] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)
    releases: dict[tuple[Digest, Digest], e.ReleaseCut] = field(default_factory=dict)
    """(release, plan) -> the cut."""
    _recipes: dict[Digest, Recipe] = field(default_factory=dict)
    _policies: dict[Digest, Policy] = field(default_factory=dict)

    def apply(self, event: Event) -> None:
        """Take in the next event."""
        self.seq = event.seq
        payload = payload_of(event)
        if payload is None:
            return
        _HANDLERS[type(payload)](self, event, payload)

    def apply_all(self, events: Iterable[Event]) -> State:
        """Take in many events; returns itself."""
        for event in events:
            self.apply(event)
        return self

    def published(self, digest: Digest, kind: Kind | None = None) -> Published | None:
        """The first publication of a digest (of a kind, if given)."""
        for found in self.artifacts.get(digest, ()):
            if kind is None or found.fact.kind == kind:
                return found
        return None

    def from_run(self, digest: Digest) -> Published | None:
        """The first publication of a digest by a recorded run or probe; evidence must have one."""
        for found in self.artifacts.get(digest, ()):
            if found.fact.origin != "imported":
                return found
        return None

    def recipe(self, plan: Digest) -> Recipe:
        """The resolved recipe of a plan. Raises KeyError when it was never published."""
        if plan not in self._recipes:
            found = self.published(plan, Kind.RECIPE)
            if found is None:
                raise KeyError(plan)
            self._recipes[plan] = Recipe.model_validate(found.fact.facts["recipe"])
        return self._recipes[plan]

    def policy(self, digest: Digest) -> Policy:
        """A published policy. Raises KeyError when it was never published."""
        if digest not in self._policies:
            found = self.published(digest, Kind.POLICY)
            if found is None:
                raise KeyError(digest)
            self._policies[digest] = Policy.model_validate(found.fact.facts["policy"])
        return self._policies[digest]

    def waiver(self, gate: str, subject: Digest, now: str) -> Waived | None:
        """The latest waiver of a gate on a subject that has not expired at `now` (RFC 3339 UTC)."""
        for found in reversed(self.waivers.get((gate, subject), [])):
            if found.fact.until > now:
                return found
        return None

    def publication(self, digest: Digest, role: str) -> Published | None:
        """The publication of a digest as what a slot needs it for.

        One by a run comes first; then one of the kind that the role names; then any.
        """
        kind = Kind(role) if role in set(Kind) else None
        return self.from_run(digest) or self.published(digest, kind) or self.published(digest)

    def reopened(self, run: Run, plan: Digest) -> bool:
        """Whether the plan was asked for again since the run went wrong.

        A death is recorded by whoever looks next, perhaps after the request that should reopen it,
        so for an abandoned run its start counts.
        """
        since = run.started_seq if run.status == "abandoned" else run.seq
        return self.requested.get(plan, 0) > since

    def running(self) -> tuple[Run, ...]:
        """Runs that were started and have no outcome yet."""
        return tuple(r for r in self.runs.values() if r.status == "started")


def _on_artifact_published(state: State, event: Event, fact: e.ArtifactPublished) -> None:
    state.artifacts.setdefault(fact.digest, []).append(
        Published(seq=event.seq, ts=event.ts, fact=fact)
    )
    if fact.kind is Kind.ENVIRONMENT and state.latest.get(fact.kind) != fact.digest:
        state.environment_seq = event.seq
    state.latest[fact.kind] = fact.digest


def _on_plan_requested(state: State, event: Event, fact: e.PlanRequested) -> None:
    state.requested[fact.plan] = event.seq


def _on_run_started(state: State, event: Event, fact: e.RunStarted) -> None:
    known = state.runs.get(fact.run)
    goes_on = known is not None and known.status == "abandoned"
    deaths = known.deaths if known and goes_on and not state.reopened(known, fact.plan) else 0
    state.runs[fact.run] = Run(
        key=fact.run,
        started=fact,
        status="started",
        attempts=fact.attempt,
        seq=event.seq,
        started_seq=event.seq,
        deaths=deaths,
        ts=event.ts,
    )


def _on_run_succeeded(state: State, event: Event, fact: e.RunSucceeded) -> None:
    run = state.runs[fact.run]
    run.status, run.seq, run.seconds, run.log = "succeeded", event.seq, fact.seconds, fact.log
    run.outputs = {o.role: o.digest for o in fact.outputs}
    state.filled[fact.plan, fact.slot] = fact.run


def _on_run_failed(state: State, event: Event, fact: e.RunFailed) -> None:
    run = state.runs[fact.run]
    run.status, run.seq, run.seconds, run.log = "failed", event.seq, fact.seconds, fact.log
    run.error = fact


def _on_run_abandoned(state: State, event: Event, fact: e.RunAbandoned) -> None:
    run = state.runs[fact.run]
    run.status, run.seq, run.reason = "abandoned", event.seq, fact.reason
    run.deaths += not fact.stopped


def _on_run_reused(state: State, event: Event, fact: e.RunReused) -> None:  # noqa: ARG001
    state.filled[fact.plan, fact.slot] = fact.run


def _on_run_retried(state: State, event: Event, fact: e.RunRetried) -> None:
    run = state.runs.get(fact.run)
    if run is not None and run.status in ("failed", "abandoned"):
        run.status, run.deaths, run.seq = "abandoned", 0, event.seq
        run.reason = "a retry was asked for"


def _on_gate_evaluated(state: State, event: Event, fact: e.GateEvaluated) -> None:
    key = (fact.gate, fact.subject, fact.evidence, fact.policy)
    state.verdicts[key] = Judged(seq=event.seq, fact=fact)


def _on_gate_waived(state: State, event: Event, fact: e.GateWaived) -> None:
    waived = Waived(seq=event.seq, fact=fact)
    state.waivers.setdefault((fact.gate, fact.subject), []).append(waived)


def _on_tag_moved(state: State, event: Event, fact: e.TagMoved) -> None:  # noqa: ARG001
    state.tags[fact.name] = fact.digest


def _on_release_cut(state: State, event: Event, fact: e.ReleaseCut) -> None:  # noqa: ARG001
    state.releases[fact.release, fact.plan] = fact


_HANDLERS: dict[type[e.Payload], Callable[[State, Event, Any], None]] = {
    e.ArtifactPublished: _on_artifact_published,
    e.PlanRequested: _on_plan_requested,
    e.RunStarted: _on_run_started,
    e.RunSucceeded: _on_run_succeeded,
    e.RunFailed: _on_run_failed,
    e.RunAbandoned: _on_run_abandoned,
    e.RunReused: _on_run_reused,
    e.RunRetried: _on_run_retried,
    e.GateEvaluated: _on_gate_evaluated,
    e.GateWaived: _on_gate_waived,
    e.TagMoved: _on_tag_moved,
    e.ReleaseCut: _on_release_cut,
}
