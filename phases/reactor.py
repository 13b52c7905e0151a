"""The reactor: reads facts, decides, starts workers, and alone records what they made.

One tick, each step safe to be killed after:

 1. read new events and fold them;
 2. publish the environment if it is not the one last recorded;
 3. for every run that is recorded as started and whose worker is gone: record its outcome, or that
    it was abandoned;
 4. ask `decide`; record facts, or start runs.

Only the holder of `reactor.lock` ticks; anyone else follows the ledger and takes over when the
holder is gone.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from phases import environment
from phases.job import Failure, Job, JobInput, Outcome
from phases.launch import Launcher
from registry.assess import assess
from registry.decide import Action, Record, Start, decide
from registry.fold import Run, State
from registry.home import Home
from registry.ledger import Ledger, LedgerReader
from registry.plans import PlanView, Site, SlotView
from schemas import canonical
from schemas.artifact import Kind, Parent, Product
from schemas.digest import Digest
from schemas.errors import InputError
from schemas.event import Event
from schemas.events import (
    ArtifactPublished,
    Payload,
    RunAbandoned,
    RunFailed,
    RunStarted,
    RunSucceeded,
)
from schemas.plan import PhaseSpec
from store.blobs import BlobStore
from store.durable import writing
from store.hashing import hash_bytes

_POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far one live run is."""

    run: Digest
    slot: str
    attempt: int
    label: str
    done: int
    total: int
    figures: Mapping[str, float]


Notice = Event | Progress
"""What a listener hears: every new event, and progress of live runs."""


class Reactor:
    """Advances the plans of one registry."""

    def __init__(
        self,
        *,
        home: Home,
        ledger: Ledger,
        store: BlobStore,
        catalog: Sequence[PhaseSpec],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        listener: Callable[[Notice], None] = lambda _: None,
        workers: int = 1,
    ) -> None:
        """`workers`: how many runs may execute at once."""
        self._home, self._ledger, self._store = home, ledger, store
        self._catalog, self._clock, self._listener = catalog, clock, listener
        self._workers = workers
        self._reader = LedgerReader(ledger.path)
        self._launcher = Launcher(home)
        self._probed = environment.probe()
        self._environment_bytes = canonical.encode(self._probed.to_json())
        self._site = Site(
            environment=hash_bytes(self._environment_bytes).digest,
            versions=self._probed.versions,
        )
        self._tidied = False
        self._shown: dict[Digest, tuple[str, int]] = {}
        self.state = State()
        self.refresh()

    # -- reading -------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Fold what was recorded since the last look."""
        for event in self._reader.new_events():
            self.state.apply(event)
            self._listener(event)

    def now(self) -> str:
        """The clock's time as events spell it."""
        return self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def site(self) -> Site:
        """The environment that runs would have now."""
        return self._site

    def view(self, plan: Digest, *, fresh: bool = False) -> PlanView:
        """A plan as it stands; `fresh`: as if it were asked for now."""
        return assess(self.state, plan, self._catalog, self.site(), self.now(), fresh=fresh)

    def pending(self, plans: Iterable[Digest]) -> tuple[Action, ...]:
        """What would be done next for these plans."""
        return decide(self.state, plans, self._catalog, self.site(), self.now())

    # -- advancing -----------------------------------------------------------------------------

    def advance(self, plan: Digest) -> PlanView:
        """Advance one plan until nothing more happens by itself, and say how it stands.

        Beside another advancer this follows, and takes over when that one is gone.
        """
        while True:
            with self.advancing() as mine:
                while mine and self.tick((plan,)):
                    pass
                self.refresh()
                view = self.view(plan)
                if view.settled and not self.pending((plan,)) and not self.state.running():
                    return view
                if mine:
                    self._wait_for_workers()
                    continue
            self.report_progress()
            time.sleep(_POLL_SECONDS)

    @contextmanager
    def advancing(self) -> Iterator[bool]:
        """Hold `reactor.lock`; False when another process has it."""
        with writing(self._home.root):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(self._home.reactor_lock, flags, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def tick(self, plans: Iterable[Digest]) -> bool:
        """One tick; whether it recorded or started anything. The caller holds `reactor.lock`."""
        self.refresh()
        self._tidy()
        if self.record_environment():
            return True
        ended = [run for run in self.state.running() if self._collect(run)]
        if ended:
            return True
        actions = self.pending(plans)
        for action in actions:
            if isinstance(action, Record):
                self._append(action.payloads)
                return True
        free = self._workers - len(self.state.running())
        starts = [a for a in actions if isinstance(a, Start)][: max(0, free)]
        return bool([start for start in starts if self._start(start)])

    def report_progress(self) -> None:
        """Tell the listener how far live runs are, where that changed."""
        for run in self.state.running():
            note = self._launcher.progress(run.key)
            if note and self._shown.get(run.key) != (note["label"], note["done"]):
                self._shown[run.key] = (note["label"], note["done"])
                self._listener(
                    Progress(run=run.key, slot=run.started.slot, attempt=run.attempts, **note)
                )

    def stop(self) -> None:
        """End the workers that this process started; their runs are taken up again later."""
        self._launcher.stop_all()

    def _tidy(self) -> None:
        """Once: remove the scratch of runs whose recorder was killed before it could."""
        if self._tidied:
            return
        self._tidied = True
        for run in self.state.runs.values():
            if run.status == "succeeded":
                self._launcher.clear(run.key)

    def _wait_for_workers(self) -> None:
        """Until a worker ends. Others may append meanwhile; that is seen at the next tick."""
        while (runs := self.state.running()) and not any(self._launcher.ended(r.key) for r in runs):
            self.report_progress()
            time.sleep(_POLL_SECONDS)

    # -- recording -----------------------------------------------------------------------------

    def _append(
        self,
        payloads: Sequence[Payload],
        *,
        unless: Callable[[Event], bool] | None = None,
        run: Digest | None = None,
    ) -> bool:
        done = self._ledger.append(payloads, since=self.state.seq, unless=unless, run=run)
        self.refresh()
        return bool(done)

    def record_environment(self) -> bool:
        """Publish the environment unless it is the one last seen; whether it was recorded."""
        stored = self.site().environment
        if self.state.latest.get(Kind.ENVIRONMENT) == stored:
            return False
        self._store.put_bytes(self._environment_bytes)
        fact = ArtifactPublished(
            digest=stored,
            kind=Kind.ENVIRONMENT,
            form="blob",
            size=len(self._environment_bytes),
            origin="probe",
            facts=environment.facts(self._probed),
        )
        return self._append([fact])

    def _collect(self, run: Run) -> bool:
        if not self._launcher.ended(run.key):
            return False
        outcome = self._launcher.outcome(run.key, run.attempts)
        if outcome is None:
            payloads: tuple[Payload, ...] = (self._abandoned(run),)
        else:
            payloads = self._ended(run, outcome)
        recorded = self._record_end(run, payloads)
        if recorded and outcome is not None and outcome.status == "succeeded":
            self._launcher.clear(run.key)
        return recorded

    def _record_end(self, run: Run, payloads: Sequence[Payload]) -> bool:
        def ended(event: Event) -> bool:
            return _ends(event, run)

        try:
            return self._append(payloads, unless=ended, run=run.key)
        except InputError as error:
            # An outcome that no event can hold must not stop every later tick.
            failed = RunFailed(
                run=run.key,
                phase=run.started.phase,
                plan=run.started.plan,
                slot=run.started.slot,
                attempt=run.attempts,
                code="run.unrecordable",
                message=f"What {run.started.slot} made can not be recorded: {error.message}",
                remedy="Shorten what the phase puts into its facts.",
                seconds=0.0,
            )
            return self._append([failed], unless=ended, run=run.key)

    def _abandoned(self, run: Run) -> RunAbandoned:
        started = run.started
        return RunAbandoned(
            run=run.key,
            phase=started.phase,
            plan=started.plan,
            slot=started.slot,
            attempt=run.attempts,
            reason=self._launcher.cause(run.key, run.attempts),
            stopped=self._launcher.stopped(run.key),
        )

    def _ended(self, run: Run, outcome: Outcome) -> tuple[Payload, ...]:
        """The batch that records an outcome: the artifacts first, then the run."""
        started = run.started
        log = self._launcher.log(run.key, run.attempts)
        common: dict[str, Any] = {
            "run": run.key,
            "phase": started.phase,
            "plan": started.plan,
            "slot": started.slot,
            "attempt": run.attempts,
            "seconds": outcome.seconds,
            "log": self._store.put_file(log).digest if log.is_file() else None,
        }
        if outcome.status == "failed":
            failure = outcome.failure or Failure(code="run.failed", message="?", remedy="")
            return (RunFailed(**common, **failure.to_json()),)
        made = tuple(_published(p, run) for p in outcome.products)
        outputs = tuple(Parent(role=p.role, digest=p.digest) for p in outcome.products)
        return (*made, RunSucceeded(**common, outputs=outputs))

    # -- starting ------------------------------------------------------------------------------

    def _start(self, start: Start) -> bool:
        view = start.view
        assert view.key is not None  # noqa: S101  # decide starts only what has a key
        with self._launcher.locked(view.key) as lock:
            if lock is None:
                return False
            key = view.key
            job = self._job(start.plan, view, key)
            self._launcher.prepare(job)
            fact = self._started(start.plan, view, key)
            if not self._append([fact], unless=lambda e: _starts(e, key), run=key):
                return False
            self._launcher.start(job, lock)
        return True

    def _started(self, plan: Digest, view: SlotView, key: Digest) -> RunStarted:
        circumstances = (
            Parent(role="recipe", digest=plan, circumstance=True),
            Parent(role="environment", digest=self.site().environment, circumstance=True),
        )
        return RunStarted(
            run=key,
            phase=view.spec.name,
            phase_version=view.spec.version,
            plan=plan,
            slot=view.slot.id,
            attempt=view.attempt,
            inputs=(*view.inputs, *circumstances),
            params=dict(view.params),
            tools=dict(view.tools),
        )

    def _job(self, plan: Digest, view: SlotView, key: Digest) -> Job:
        return Job(
            run=key,
            attempt=view.attempt,
            phase=view.spec.name,
            plan=plan,
            slot=view.slot.id,
            params=dict(view.params),
            inputs=tuple(self._job_input(parent) for parent in view.inputs),
        )

    def _job_input(self, parent: Parent) -> JobInput:
        found = self.state.publication(parent.digest, parent.role)
        assert found is not None  # noqa: S101  # a plan's inputs were published before
        fact = found.fact
        return JobInput(
            role=parent.role,
            digest=fact.digest,
            kind=fact.kind,
            form=fact.form,
            facts=fact.facts,
        )


def _published(product: Product, run: Run) -> ArtifactPublished:
    return ArtifactPublished(
        digest=product.digest,
        kind=product.kind,
        form=product.form,
        size=product.size,
        origin="run",
        run=run.key,
        role=product.role,
        name=product.name,
        parents=run.started.inputs,
        facts=product.facts,
        files=product.files,
    )


def _starts(event: Event, key: Digest) -> bool:
    return event.type == RunStarted.TYPE and event.data["run"] == key


def _ends(event: Event, run: Run) -> bool:
    ends = (RunSucceeded.TYPE, RunFailed.TYPE, RunAbandoned.TYPE)
    return (
        event.type in ends
        and event.data["run"] == run.key
        and event.data["attempt"] == run.attempts
    )
