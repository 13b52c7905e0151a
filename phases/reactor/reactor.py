"""The reactor: reads facts, decides, starts workers, and alone records what they made.

One tick, each step safe to be killed after:

 1. read new events, fold them, and note in the agenda what they can change;
 2. for every run that is recorded as started and whose worker is gone: record its outcome, or that
    it was abandoned;
 3. end the workers of runs that were cancelled, or took more than they may;
 4. publish the environment if it is not the one last recorded;
 5. ask the agenda; record facts, or start runs while there is room for them.

Only the holder of `reactor.lock` ticks; anyone else follows the ledger and takes over when the
holder is gone. A tick costs what new events can change, never what is registered.
"""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import partial

from stillhouse.phases.reactor import recording
from stillhouse.phases.reactor.leader import advancing
from stillhouse.phases.reactor.oversight import LOOK_SECONDS, Oversight, Progress
from stillhouse.phases.reactor.site import Surroundings
from stillhouse.phases.workers.job import Ending, Failure, Outcome
from stillhouse.phases.workers.launch import Launcher
from stillhouse.registry.home import Home
from stillhouse.registry.ledger.ledger import Ledger, LedgerReader, hash_at
from stillhouse.registry.planning.admission import admissions
from stillhouse.registry.planning.agenda import Agenda
from stillhouse.registry.planning.assess import assess
from stillhouse.registry.planning.decide import Start
from stillhouse.registry.planning.provenance import Provenance
from stillhouse.registry.planning.sealing import release_rows
from stillhouse.registry.planning.views import PlanView, Reason, Site
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import State
from stillhouse.schemas import moment
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.schemas.event import Event
from stillhouse.schemas.events import (
    ArtifactEvicted,
    BytesSwept,
    Payload,
    PlanCancelled,
    RunAbandoned,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
)
from stillhouse.schemas.limits import Limits
from stillhouse.schemas.plan import PhaseSpec
from stillhouse.schemas.rows import ReleaseRows
from stillhouse.store.objects.local import BlobStore

_SOON = 0.05
"""Seconds; the shortest pause."""

_ENDS = (RunSucceeded.TYPE, RunFailed.TYPE, RunAbandoned.TYPE)


Notice = Event | Progress
"""What a listener hears: every new event, and progress of live runs."""


def _sleep(seconds: float) -> None:
    time.sleep(min(seconds, 0.05))


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
        limits: Callable[[], Limits] = Limits,
        secrets: Sequence[str] = (),
        wait: Callable[[float], None] = _sleep,
    ) -> None:
        """`limits`: asked at every tick, so that they can be changed under a living daemon.

        secrets: names of environment variables that phases may read and no log may show.

        wait: sleeps for at most so many seconds, less when something happened.
        """
        self._home, self._ledger, self._store = home, ledger, store
        self._catalog, self._clock, self._listener = catalog, clock, listener
        self._wait = wait
        self._reader = LedgerReader(ledger.path)
        self._launcher = Launcher(home, secrets=tuple(secrets))
        self._read_limits, self._limits = limits, limits()
        self._here = Surroundings(self._limits)
        self._only: Digest | None = None
        self._agenda: Agenda | None = None
        self._tidied = False
        self._refused = False
        """Whether a start was refused in the last tick, for the moment."""
        self._oversight = Oversight(self._launcher, clock, listener)
        self.state = State().follow(self._reader)
        gc.freeze()  # what was folded stays: looking through it for garbage would take seconds

    # -- reading -------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Fold what was recorded since the last look."""
        for event in self._reader.new_events():
            self.state.apply(event)
            if self._agenda is not None:
                self._agenda.note(event)
            if event.type in _ENDS:
                self._oversight.forget(event.data["run"], event.data["attempt"])
            self._listener(event)

    def now(self) -> str:
        """The clock's time as events spell it."""
        return moment.spell(self._clock())

    def site(self) -> Site:
        """The environment that runs would have now."""
        return self._here.site

    def view(self, plan: Digest, *, fresh: bool = False) -> PlanView:
        """A plan as it stands; `fresh`: as if it were asked for now."""
        return assess(self.state, plan, self._catalog, self.site(), self.now(), fresh=fresh)

    @property
    def idle(self) -> bool:
        """Whether nothing runs, nothing is to be done, and nothing waits to be tried again."""
        return not self.state.running() and self._nothing_due()

    def _nothing_due(self) -> bool:
        agenda = self._todo()
        due = agenda.facts(self.now()) or agenda.pausing or any(True for _ in agenda.starts())
        return not due

    def pause(self) -> float | None:
        """Seconds until something is to be done without any event; None: nothing ever."""
        runs = self.state.running()
        remaining = (self._oversight.time_left(run, self._limits) for run in runs)
        waits = [seconds for seconds in remaining if seconds and seconds > 0]
        if runs or self._refused:
            waits.append(LOOK_SECONDS)
        if (wake := self._todo().wake) is not None:
            left = (moment.parse(wake) - self._clock()).total_seconds()
            waits.append(max(_SOON, left))  # what fell due this moment is the next tick's
        return min(waits, default=None)

    # -- advancing -----------------------------------------------------------------------------

    def advance(self, plan: Digest) -> PlanView:
        """Advance one plan until nothing more happens by itself, and say how it stands.

        Beside another advancer this follows, and takes over when that one is gone.
        """
        self._only, self._agenda = plan, None
        while True:
            with self.advancing() as mine:
                while mine and self.tick():
                    pass
            self.refresh()
            if self._at_rest(plan):
                return self.view(plan)
            self.report_progress()
            # Without the lock: a process that stands by may take over, and we follow.
            self._wait(min(self.pause() or LOOK_SECONDS, LOOK_SECONDS))

    def _at_rest(self, plan: Digest) -> bool:
        """Whether nothing more will happen for a plan by itself."""
        if not self.state.wants(plan):
            return not any(run.started.plan == plan for run in self.state.running())
        return self._nothing_due() and self.view(plan).settled

    def advancing(self) -> AbstractContextManager[bool]:
        """Hold `reactor.lock`; False when another process has it."""
        return advancing(self._home)

    def tick(self, *, start: bool = True) -> bool:
        """One tick; whether it recorded or started anything. The caller holds `reactor.lock`.

        start: False only takes note of what ends, and ends what was cancelled.
        """
        self.refresh()
        self._refused = False
        self._heed_limits()
        self._tidy()
        if [run for run in self.state.running() if self._collect(run)]:
            return True
        self._oversight.look_after(self.state.running(), self._limits)
        if not start:
            return False
        if self.record_environment():
            return True
        facts = self._todo().facts(self.now())
        return self._append(facts) if facts else self._start_some()

    def report_progress(self) -> None:
        """Tell the listener how far live runs are, where that changed."""
        self._oversight.report(self.state.running())

    def warm(self) -> None:
        """Keep a worker ready that has imported what phases import, while one more could start."""
        if len(self.state.running()) < self._limits.workers:
            self._launcher.warm()

    def stop(self) -> None:
        """End the workers that this process started; their runs are taken up again later."""
        self._launcher.stop_all()

    def hand_over(self) -> None:
        """Leave live workers to the next process that advances this registry."""
        self._launcher.hand_over()

    def _todo(self) -> Agenda:
        if self._agenda is None:
            self._agenda = Agenda(self.state, self._catalog, self.site(), only=self._only)
        return self._agenda

    def _heed_limits(self) -> None:
        limits = self._read_limits()
        if limits != self._limits:
            self._limits, self._agenda = limits, None
            self._here.allow(limits)

    def _tidy(self) -> None:
        """Once: remove the scratch of runs whose recorder was killed before it could."""
        if self._tidied:
            return
        self._tidied = True
        for run in self.state.runs.values():
            if run.last == "succeeded":
                self._launcher.clear(run.key)

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
        if self._here.looks_changed():
            self._launcher.cool()
            if self._here.probe():
                self._agenda = None
        stored = self.site().environment
        if self.state.latest.get(Kind.ENVIRONMENT) == stored:
            return False
        with self._store.lease():
            self._store.put_bytes(self._here.data)
            return self._append([self._here.fact()])

    def _collect(self, run: Run) -> bool:
        if not self._launcher.ended(run.key):
            return False
        outcome = self._launcher.outcome(run.key, run.attempts)
        with self._store.lease():  # for the log, until an event names it
            recorded = self._record_end(run, self._told_of(run, outcome))
        if recorded and outcome is not None and outcome.status == "succeeded":
            self._launcher.clear(run.key)
        self._launcher.forget(run.key)
        return recorded

    def _told_of(self, run: Run, outcome: Outcome | None) -> tuple[Payload, ...]:
        if outcome is None:
            return (self._gone(run),)
        return recording.ended(self.state, run, outcome, self._put_log(run))

    def _put_log(self, run: Run) -> Digest | None:
        log = self._launcher.stored_log(run.key, run.attempts)
        return None if log is None else self._store.put_bytes(log).digest

    def _gone(self, run: Run) -> Payload:
        """What to record of a run whose worker left no outcome."""
        ending = self._launcher.ending(run.key, run.attempts)
        limit = self._limits.of(run.started.phase)
        if ending is Ending.TIME:
            took = f"It took longer than the {limit.seconds:g} seconds that {run.started.phase} may"
            return self._limited(run, "run.time_limit", took)
        if ending is Ending.MEMORY:
            took = f"It held more than the {limit.memory} bytes that {run.started.phase} may"
            return self._limited(run, "run.memory_limit", took)
        cause = self._launcher.cause(run.key, run.attempts)
        return recording.abandoned(run, cause, stopped=ending is not None)

    def _limited(self, run: Run, code: str, message: str) -> RunFailed:
        where = f"[phases.{run.started.phase}] in {self._home.config.name}"
        remedy = f"Raise it under {where}, then `still retry`."
        failure = Failure(code=code, message=f"{message}, and was ended.", remedy=remedy)
        seconds = round(self._oversight.age(run), 3)
        return recording.failed(run, failure, seconds=seconds, log=self._put_log(run))

    def _record_end(self, run: Run, payloads: Sequence[Payload]) -> bool:
        def ended(event: Event) -> bool:
            return _ends(event, run)

        try:
            return self._append(payloads, unless=ended, run=run.key)
        except InputError as error:
            failure = recording.unrecordable(run, error.message)
            return self._append([failure], unless=ended, run=run.key)

    # -- starting ------------------------------------------------------------------------------

    def _start_some(self) -> bool:
        started = False
        starts = self._todo().starts()
        for admission in admissions(starts, self.state.running(), self._limits):
            if admission.held is Reason.WORKERS_BUSY:
                break
            if admission.held is None:
                started = self._start(admission.start) or started
        return started

    def _start(self, start: Start) -> bool:
        key = start.view.key
        assert key is not None  # noqa: S101  # the agenda starts only what has a key
        with _uninterrupted(), self._launcher.locked(key) as lock:
            if lock is None:
                self._refused = True  # someone looks at it this moment
                return False
            fact = recording.started(start, self.site().environment)
            try:
                job = recording.job(self.state, start, self._rows(start))
            except IntegrityError as error:
                told = recording.refused(fact, Failure.model_validate(error.as_dict()))
                return self._append(told, unless=lambda e: _overtakes(e, start), run=key)
            self._launcher.prepare(job)
            try:
                if not self._append([fact], unless=lambda e: _overtakes(e, start), run=key):
                    return False
            except InputError as error:
                # A start that no event can hold must not stop every later tick.
                told = recording.unstartable(fact, error.message)
                return self._append(told, unless=lambda e: _overtakes(e, start), run=key)
            self._launcher.start(job, lock)
        return True

    def _rows(self, start: Start) -> ReleaseRows | None:
        """What the ledger says of the release that a start is to seal, if it is to seal one."""
        view = start.view
        if not view.spec.seals:
            return None
        return release_rows(
            self.state,
            Provenance(self.state, self._catalog),
            plan=start.plan,
            slot=view.slot.id,
            inputs=view.inputs,
            verdicts=view.params["verdicts"],
            hash_of=partial(hash_at, self._ledger.path),
        )


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits: between its record and its worker a run would be neither ours nor stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if asked:
            signal.raise_signal(signal.SIGINT)


def _overtakes(event: Event, start: Start) -> bool:
    """Whether an event takes away the ground for a start: another's start, or a cancellation.

    Or the bytes of something: the next look tells whether of an input.
    """
    if event.type in (BytesSwept.TYPE, ArtifactEvicted.TYPE):
        return True
    if event.type == PlanCancelled.TYPE:
        return bool(event.data["plan"] == start.plan)
    same = event.data.get("run") == start.view.key
    return same and event.type in (RunStarted.TYPE, RunCancelled.TYPE)


def _ends(event: Event, run: Run) -> bool:
    return (
        event.type in _ENDS
        and event.data["run"] == run.key
        and event.data["attempt"] == run.attempts
    )
