"""The state of the registry: events folded in order, in memory.

Rules: `apply` is the only writer; folding the same events gives an equal state; an unknown event
type changes nothing but the position. Decisions, gates and references are computed from this state,
so they never wait for the projection.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from stillhouse.registry.ledger.format import Line
from stillhouse.registry.ledger.ledger import LedgerReader
from stillhouse.registry.state.runs import Fill, Run, Success
from stillhouse.schemas import events as e
from stillhouse.schemas.artifact import Form, Kind, Origin
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.event import Event
from stillhouse.schemas.upcast import payload_of

if TYPE_CHECKING:  # most commands read no facts: their forms are imported where they are parsed
    from stillhouse.schemas.canonical import Json
    from stillhouse.schemas.facts import F, Facts
    from stillhouse.schemas.policy import Policy
    from stillhouse.schemas.recipe import Recipe

GateKey = tuple[str, Digest, Digest, Digest]
"""(gate, subject, evidence, policy)."""


class Published:
    """One publication of an artifact, and when it was recorded.

    What decisions look for first is here at once; the whole fact is read from the event's text when
    someone asks for it, because most never are: a registry holds a million of them.
    """

    __slots__ = ("_fact", "_facts", "_text", "form", "kind", "origin", "run", "seq", "ts")
    kind: Kind
    form: Form
    origin: Origin
    run: Digest | None

    def __init__(self, seq: int, ts: str, fact: e.ArtifactPublished | None, text: bytes) -> None:
        """`text`: the event's JSON, whose data has today's form; unused with `fact`."""
        self.seq, self.ts = seq, ts
        self._fact, self._text = fact, text
        self._facts: Facts | None = None
        if fact is not None:
            self.kind, self.form, self.origin, self.run = (
                fact.kind,
                fact.form,
                fact.origin,
                fact.run,
            )

    @classmethod
    def of(cls, seq: int, ts: str, fact: e.ArtifactPublished) -> Published:
        """One whose fact is at hand."""
        return cls(seq, ts, fact, b"")

    @classmethod
    def read(cls, line: Line, data: Mapping[str, Any]) -> Published:
        """One whose fact stays text. Raises KeyError or ValueError when it can not be one."""
        found = cls(line.seq, line.ts, None, line.body)
        found.kind, found.form = Kind(data["kind"]), data["form"]
        found.origin, found.run = data["origin"], data.get("run")
        return found

    @property
    def fact(self) -> e.ArtifactPublished:
        """What was recorded. Raises IntegrityError when it does not have the form of its type."""
        if self._fact is None:
            payload = payload_of(Event.model_validate_json(self._text))
            assert isinstance(payload, e.ArtifactPublished)  # noqa: S101  # `read` looked
            self._fact, self._text = payload, b""
        return self._fact

    def facts(self, form: type[F]) -> F:
        """What its event carries, parsed once. Raises IntegrityError when it has another form."""
        if not isinstance(self._facts, form):
            from stillhouse.schemas.facts import facts_of

            self._facts = facts_of(self.fact, form)
        return self._facts

    def to_json(self) -> Json:
        """What was recorded, behind where and when."""
        return {"seq": self.seq, "ts": self.ts, **self.fact.to_json()}


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


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """One recorded request for a plan."""

    seq: int
    given: Mapping[Digest, int]
    """Artifact that the recipe names -> the event that published the one that is meant."""


@dataclass(kw_only=True)
class State:
    """Everything that decisions read."""

    seq: int = 0
    artifacts: dict[Digest, list[Published]] = field(default_factory=dict)
    latest: dict[Kind, Digest] = field(default_factory=dict)
    environment_seq: int = 0
    """When the present environment was first seen."""
    runs: dict[Digest, Run] = field(default_factory=dict)
    filled: dict[tuple[Digest, str], Digest] = field(default_factory=dict)
    """(plan, slot) -> the run key that fills it."""
    successes: dict[Digest, list[Success]] = field(default_factory=dict)
    """run key -> its attempts that succeeded, oldest first."""
    fills: dict[Digest, list[Fill]] = field(default_factory=dict)
    """plan -> what ever filled its slots, oldest first."""
    requested: dict[Digest, int] = field(default_factory=dict)
    """plan -> seq of its latest request."""
    requests: dict[Digest, list[PlanRequest]] = field(default_factory=dict)
    """plan -> every request, oldest first."""
    asked_at: dict[Digest, str] = field(default_factory=dict)
    """plan -> time of its latest request (RFC 3339 UTC)."""
    dropped: dict[Digest, int] = field(default_factory=dict)
    """plan -> seq of its latest cancellation."""
    priorities: dict[Digest, int] = field(default_factory=dict)
    """plan -> the priority of its latest request."""
    verdicts: dict[GateKey, Judged] = field(default_factory=dict)
    waivers: dict[tuple[str, Digest], list[Waived]] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)
    releases: dict[tuple[Digest, Digest], e.ReleaseCut] = field(default_factory=dict)
    """(release, plan) -> the cut."""
    absent: dict[Digest, int] = field(default_factory=dict)
    """Artifact whose bytes were swept or evicted -> seq of that; gone again when they are back."""
    condemned: dict[Digest, str] = field(default_factory=dict)
    """Artifact that is to be swept -> not before (RFC 3339 UTC)."""
    restored_at: dict[Digest, str] = field(default_factory=dict)
    """Artifact whose bytes were brought back -> when last (RFC 3339 UTC)."""
    _running: dict[Digest, Run] = field(default_factory=dict)

    def apply(self, event: Event) -> None:
        """Take in the next event. Raises IntegrityError for one that no earlier one allows."""
        self.seq = event.seq
        payload = payload_of(event)
        if payload is None:
            return
        if handler := _HANDLERS.get(type(payload)):
            try:
                handler(self, event, payload)
            except KeyError as error:
                raise IntegrityError(
                    f"Event {event.seq} ({event.type}) is about {error.args[0]!r}, of which no "
                    "earlier event says anything.",
                    remedy="Another program wrote it; restore events.log from a copy.",
                    code="event.malformed",
                ) from error

    def take(self, line: Line) -> None:
        """Take in the next event as a verified line of the ledger; cheaper than `apply`."""
        if line.type == e.ArtifactPublished.TYPE and e.ArtifactPublished.reads(line.v):
            try:
                data = json.loads(line.body)["data"]
                self._publish(data["digest"], Published.read(line, data))
            except (KeyError, ValueError):
                pass  # not what we write: the whole look says what is wrong with it
            else:
                self.seq = line.seq
                return
        self.apply(line.event())

    def follow(self, reader: LedgerReader) -> State:
        """Take in what a reader finds new; returns itself.

        Raises IntegrityError where the ledger is broken.
        """
        collecting = gc.isenabled()
        gc.disable()  # everything that is made here stays, so looking for garbage is a third of it
        try:
            for lines in reader.chunks():
                for line in lines:
                    self.take(line)
        finally:
            if collecting:
                gc.enable()
        return self

    def _publish(self, digest: Digest, found: Published) -> None:
        self.artifacts.setdefault(digest, []).append(found)
        self.absent.pop(digest, None)
        self.condemned.pop(digest, None)
        if found.kind is Kind.ENVIRONMENT and self.latest.get(found.kind) != digest:
            self.environment_seq = found.seq
        self.latest[found.kind] = digest

    def apply_all(self, events: Iterable[Event]) -> State:
        """Take in many events; returns itself."""
        for event in events:
            self.apply(event)
        return self

    def published(self, digest: Digest, kind: Kind | None = None) -> Published | None:
        """The first publication of a digest (of a kind, if given)."""
        for found in self.artifacts.get(digest, ()):
            if kind is None or found.kind == kind:
                return found
        return None

    def from_run(self, digest: Digest) -> Published | None:
        """The first publication of a digest by a recorded run or probe; evidence must have one."""
        for found in self.artifacts.get(digest, ()):
            if found.origin != "imported":
                return found
        return None

    def tags_of(self, digest: Digest) -> tuple[str, ...]:
        """The tags that name an artifact, in their order."""
        return tuple(sorted(name for name, named in self.tags.items() if named == digest))

    def logs(self) -> frozenset[Digest]:
        """The logs of runs, as far as the ledger says that they are in the store."""
        return frozenset(run.log for run in self.runs.values() if run.log is not None)

    def recipe(self, plan: Digest) -> Recipe:
        """The resolved recipe of a plan. Raises KeyError when it was never published."""
        from stillhouse.schemas.facts import RecipeFacts

        found = self.published(plan, Kind.RECIPE)
        if found is None:
            raise KeyError(plan)
        return found.facts(RecipeFacts).recipe

    def recipe_name(self, plan: Digest) -> str:
        """What the recipe calls itself; empty for a plan that was never published here."""
        found = self.published(plan, Kind.RECIPE)
        return (found.fact.name or "") if found else ""

    def policy(self, digest: Digest) -> Policy:
        """A published policy. Raises KeyError when it was never published."""
        from stillhouse.schemas.facts import PolicyFacts

        found = self.published(digest, Kind.POLICY)
        if found is None:
            raise KeyError(digest)
        return found.facts(PolicyFacts).policy

    def verdicts_over(self, digest: Digest) -> tuple[Judged, ...]:
        """The latest verdicts over an artifact, or with it as their evidence."""
        judged = self.verdicts.values()
        return tuple(j for j in judged if digest in (j.fact.subject, j.fact.evidence))

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
        so for an abandoned run its start counts, or the wish that it should end.
        """
        since = max(run.started_seq, run.cancelled_seq)
        return self.requested.get(plan, 0) > (since if run.last == "abandoned" else run.seq)

    def wants(self, plan: Digest) -> bool:
        """Whether the plan was asked for, and not cancelled since."""
        return self.requested.get(plan, 0) > self.dropped.get(plan, 0)

    def wanted(self) -> tuple[Digest, ...]:
        """The plans that are to be advanced, in the order in which they were first asked for."""
        return tuple(plan for plan in self.requested if self.wants(plan))

    def running(self) -> tuple[Run, ...]:
        """Runs that were started and have no outcome yet, in the order of their starts."""
        return tuple(self._running.values())


def _on_artifact_published(state: State, event: Event, fact: e.ArtifactPublished) -> None:
    found = Published.of(event.seq, event.ts, fact)
    state._publish(fact.digest, found)  # noqa: SLF001  # its own handler


def _on_plan_requested(state: State, event: Event, fact: e.PlanRequested) -> None:
    if state.published(fact.plan, Kind.RECIPE) is None:
        return  # an earlier version took `kind@latest` of any kind for a recipe
    state.requested[fact.plan] = event.seq
    state.asked_at[fact.plan] = event.ts
    state.priorities[fact.plan] = fact.priority
    request = PlanRequest(seq=event.seq, given=fact.given or {})
    state.requests.setdefault(fact.plan, []).append(request)


def _on_plan_cancelled(state: State, event: Event, fact: e.PlanCancelled) -> None:
    state.dropped[fact.plan] = event.seq


def _on_run_started(state: State, event: Event, fact: e.RunStarted) -> None:
    known = state.runs.get(fact.run)
    goes_on = known is not None and known.goes_on_by_itself
    failures = known.failures if known and goes_on and not state.reopened(known, fact.plan) else 0
    state.runs[fact.run] = state._running[fact.run] = Run(  # noqa: SLF001  # its own handler
        key=fact.run,
        started=fact,
        attempts=fact.attempt,
        seq=event.seq,
        started_seq=event.seq,
        failures=failures,
        ts=event.ts,
    )


def _ended(
    state: State, event: Event, run: Digest, how: Literal["succeeded", "failed", "abandoned"]
) -> Run:
    found = state.runs[run]
    found.last, found.seq, found.ended_ts = how, event.seq, event.ts
    state._running.pop(run, None)  # noqa: SLF001  # its own handler
    return found


def _on_run_succeeded(state: State, event: Event, fact: e.RunSucceeded) -> None:
    run = _ended(state, event, fact.run, "succeeded")
    run.seconds, run.log = fact.seconds, fact.log
    run.outputs = {o.role: o.digest for o in fact.outputs}
    success = Success(
        seq=event.seq,
        started_seq=run.started_seq,
        started=run.started,
        outputs=run.outputs,
    )
    state.successes.setdefault(fact.run, []).append(success)
    state.filled[fact.plan, fact.slot] = fact.run
    fill = Fill(seq=event.seq, slot=fact.slot, success=success, reused=False)
    state.fills.setdefault(fact.plan, []).append(fill)


def _on_run_failed(state: State, event: Event, fact: e.RunFailed) -> None:
    run = _ended(state, event, fact.run, "failed")
    run.seconds, run.log, run.error = fact.seconds, fact.log, fact
    run.failures += fact.transient


def _on_run_abandoned(state: State, event: Event, fact: e.RunAbandoned) -> None:
    run = _ended(state, event, fact.run, "abandoned")
    run.reason = fact.reason
    run.heeded = bool(run.wished_seq)
    run.failures += not fact.stopped


def _on_run_cancelled(state: State, event: Event, fact: e.RunCancelled) -> None:
    run = state.runs.get(fact.run)
    if run is not None and run.attempts == fact.attempt:
        run.wished_seq = event.seq


def _on_run_reused(state: State, event: Event, fact: e.RunReused) -> None:
    state.filled[fact.plan, fact.slot] = fact.run
    for success in state.successes.get(fact.run, ())[-1:]:
        fill = Fill(seq=event.seq, slot=fact.slot, success=success, reused=True)
        state.fills.setdefault(fact.plan, []).append(fill)


def _on_run_retried(state: State, event: Event, fact: e.RunRetried) -> None:
    run = state.runs.get(fact.run)
    if run is not None and run.unsuccessful:
        run.failures, run.seq, run.retried_seq = 0, event.seq, event.seq


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


def _on_bytes_condemned(state: State, event: Event, fact: e.BytesCondemned) -> None:  # noqa: ARG001
    state.condemned |= dict.fromkeys(fact.artifacts, fact.until)


def _on_bytes_reprieved(state: State, event: Event, fact: e.BytesReprieved) -> None:  # noqa: ARG001
    for digest in fact.artifacts:
        state.condemned.pop(digest, None)


def _on_bytes_swept(state: State, event: Event, fact: e.BytesSwept) -> None:
    for digest in fact.artifacts:
        state.condemned.pop(digest, None)
        state.absent[digest] = event.seq
    gone = frozenset(fact.orphans)
    for run in state.runs.values() if gone else ():
        if run.log in gone:
            run.log = None


def _on_artifact_evicted(state: State, event: Event, fact: e.ArtifactEvicted) -> None:
    state.condemned.pop(fact.digest, None)
    state.absent[fact.digest] = event.seq


def _on_artifact_restored(state: State, event: Event, fact: e.ArtifactRestored) -> None:
    state.absent.pop(fact.digest, None)
    state.restored_at[fact.digest] = event.ts


_HANDLERS: dict[type[e.Payload], Callable[[State, Event, Any], None]] = {
    e.ArtifactPublished: _on_artifact_published,
    e.PlanRequested: _on_plan_requested,
    e.PlanCancelled: _on_plan_cancelled,
    e.RunStarted: _on_run_started,
    e.RunSucceeded: _on_run_succeeded,
    e.RunFailed: _on_run_failed,
    e.RunAbandoned: _on_run_abandoned,
    e.RunCancelled: _on_run_cancelled,
    e.RunReused: _on_run_reused,
    e.RunRetried: _on_run_retried,
    e.GateEvaluated: _on_gate_evaluated,
    e.GateWaived: _on_gate_waived,
    e.TagMoved: _on_tag_moved,
    e.ReleaseCut: _on_release_cut,
    e.BytesCondemned: _on_bytes_condemned,
    e.BytesReprieved: _on_bytes_reprieved,
    e.BytesSwept: _on_bytes_swept,
    e.ArtifactEvicted: _on_artifact_evicted,
    e.ArtifactRestored: _on_artifact_restored,
}
