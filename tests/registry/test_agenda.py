"""The agenda: kept up to date event by event, it equals one that is made anew; and costs little."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from stillhouse.registry.planning.agenda import Agenda
from stillhouse.registry.planning.decide import Start
from stillhouse.schemas import moment
from stillhouse.schemas.events import (
    ArtifactEvicted,
    ArtifactPublished,
    ArtifactRestored,
    BytesSwept,
    GateWaived,
    PlanCancelled,
    PlanRequested,
    RunCancelled,
    RunFailed,
    RunRetried,
    RunStarted,
    TagMoved,
)
from stillhouse.schemas.limits import Limits

from .plan_world import CATALOG, NOW, Action, Record, World, actions, digest

if TYPE_CHECKING:
    from stillhouse.schemas.digest import Digest


def _told(due: tuple[Action, ...]) -> Any:
    if due and isinstance(due[0], Record):
        return {fact.model_dump_json() for fact in due[0].payloads}
    return [
        (a.plan, a.view.slot.id, a.view.key, a.view.attempt, a.view.inputs)
        for a in due
        if isinstance(a, Start)
    ]


class _History:
    """A random history of one registry, seeded."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = World(limits=Limits(backoff=40))
        self.plans: list[Digest] = []
        self.seconds = 0

    def step(self) -> None:
        self.random.choice(
            (
                self.ask,
                self.act,
                self.act,
                self.act,
                self.act,
                self.break_or_mend,
                self.ask_again,
                self.cancel_plan,
                self.cancel_run,
                self.retry,
                self.waive,
                self.upgrade,
                self.wait,
                self.lose,
                self.other,
            )
        )()

    def ask(self) -> None:
        if len(self.plans) < 5:
            shapes = self.random.sample((8, 16, 32), self.random.randint(1, 3))
            name = self.random.choice("ab")
            self.plans.append(
                self.world.plan(
                    prefill=tuple(shapes), name=name, priority=self.random.randint(0, 2)
                )
            )

    def act(self) -> None:
        assert self.world.agenda is not None
        due = actions(self.world.agenda, self.world.now)
        if due and isinstance(due[0], Record):
            self.world.record(*due[0].payloads)
        elif due:
            start = self.random.choice(due)
            assert isinstance(start, Start)
            self.world._execute(start, notice=self.random.random() < 0.5)

    def break_or_mend(self) -> None:
        self.world.bury()
        slot = self.random.choice(("training", "export/prefill-8", "conversion/prefill-16"))
        for trouble in (self.world.failing, self.world.dying):
            (trouble.discard if slot in trouble else trouble.add)(slot)
        self.world.max_abs[slot] = self.random.choice((0.0, 1.0))

    def ask_again(self) -> None:
        if self.plans:
            self.world.record(PlanRequested(plan=self.random.choice(self.plans), priority=1))

    def cancel_plan(self) -> None:
        if self.plans and self.random.random() < 0.4:
            self.world.record(PlanCancelled(plan=self.random.choice(self.plans)))

    def cancel_run(self) -> None:
        for run in self._some_runs():
            self.world.record(RunCancelled(run=run.key, attempt=run.attempts))

    def retry(self) -> None:
        for run in self._some_runs():
            self.world.record(RunRetried(run=run.key))

    def _some_runs(self) -> list[Any]:
        runs = list(self.world.state.runs.values())
        return self.random.sample(runs, min(len(runs), 1))

    def waive(self) -> None:
        judged = list(self.world.state.verdicts.values())
        if judged:
            fact = self.random.choice(judged).fact
            until = self._at(self.seconds + self.random.randint(1, 60))
            self.world.record(
                GateWaived(
                    gate=fact.gate, subject=fact.subject, author="ada", reason="so", until=until
                )
            )

    def upgrade(self) -> None:
        if self.random.random() < 0.3:
            # Versions alone: another environment is another site, and so another agenda.
            self.world.measure_environment()

    def wait(self) -> None:
        self.seconds += self.random.randint(1, 50)
        self.world.now = self._at(self.seconds)

    def lose(self) -> None:
        """Drop the bytes of something, or bring them back."""
        digest, found = self.random.choice(list(self.world.state.artifacts.items()))
        if digest in self.world.state.absent:
            self.world.record(ArtifactRestored(digest=digest, how="run"))
        elif self.random.random() < 0.5:
            self.world.record(ArtifactEvicted(digest=digest, run=found[0].run or digest, size=1))
        else:
            self.world.record(BytesSwept(artifacts=(digest,), objects=1, size=1))

    def other(self) -> None:
        self.world.record(TagMoved(name="t", digest=digest("t")))

    def _at(self, seconds: int) -> str:
        return moment.spell(moment.parse(NOW) + timedelta(seconds=seconds))


@pytest.mark.parametrize("seed", range(40))
def test_an_agenda_that_follows_equals_one_that_is_made_anew(seed: int) -> None:
    history = _History(seed)
    world = history.world
    world.measure_environment()
    world.agenda = Agenda(world.state, CATALOG, world.site)
    for _ in range(120):
        history.step()
        fresh = Agenda(world.state, CATALOG, world.site)
        assert _told(actions(world.agenda, world.now)) == _told(actions(fresh, world.now))
        for plan in world.state.wanted():
            mine, anew = world.agenda.view(plan, world.now), fresh.view(plan, world.now)
            assert [(s.slot.id, s.status, s.reason) for s in mine.slots] == [
                (s.slot.id, s.status, s.reason) for s in anew.slots
            ]
            assert mine.gates == anew.gates


def _finished(plans: int) -> World:
    world = World()
    world.measure_environment()
    world.agenda = Agenda(world.state, CATALOG, world.site)
    for place in range(plans):
        world.run(world.plan(name=f"r{place}", prefill=(8, 16)))
    world.agenda.facts(world.now)
    return world


def test_events_that_concern_nobody_cost_no_assessment() -> None:
    world = _finished(3)
    agenda = world.agenda
    assert agenda is not None
    before = agenda.assessed
    assert before > 0
    world.record(TagMoved(name="best", digest=digest("x")))
    world._publish((world.state.published(digest("weights")) and "dataset") or "dataset", b"rows")  # type: ignore[arg-type]
    assert agenda.facts(world.now) == ()
    assert agenda.assessed == before


def test_an_event_costs_as_much_as_the_slots_that_it_can_change_however_many_wait() -> None:
    costs = []
    for others in (0, 30):
        world = _finished(others)
        agenda = world.agenda
        assert agenda is not None
        plan = world.plan(name="mine", prefill=(8, 16, 32))
        agenda.facts(world.now)
        world.run(plan)
        agenda.facts(world.now)
        before = agenda.assessed
        run = agenda.view(plan, world.now).slot("conversion/prefill-32").run
        assert run is not None
        world.record(RunRetried(run=run.key))
        agenda.facts(world.now)
        costs.append(agenda.assessed - before)
    # That conversion, in each plan that shares its run; found as it was, so nothing after it.
    assert costs == [1, 1]


def test_a_verdict_is_followed_only_to_what_rests_on_it() -> None:
    world = World(max_abs={"export/prefill-16": 1.0})
    world.measure_environment()
    world.agenda = Agenda(world.state, CATALOG, world.site)
    plan = world.plan(prefill=(8, 16, 32))
    world.run(plan)
    world.agenda.facts(world.now)
    gate = next(g for g in world.view(plan).gates if g.slot == "export/prefill-16")
    assert gate.subject is not None
    before = world.agenda.assessed
    world.record(
        GateWaived(
            gate=gate.gate,
            subject=gate.subject,
            author="ada",
            reason="so",
            until="2030-01-01T00:00:00.000000Z",
        )
    )
    (start,) = actions(world.agenda, world.now)
    assert isinstance(start, Start)
    assert start.view.slot.id == "conversion/prefill-16"
    # export/prefill-16, its conversion, and the sealing slot.
    assert world.agenda.assessed - before == 3


def test_higher_priority_starts_first_then_what_was_asked_for_first() -> None:
    world = World()
    world.measure_environment()
    world.agenda = Agenda(world.state, CATALOG, world.site)
    early = world.plan(name="early", prefill=(8,))
    late = world.plan(name="late", prefill=(16,))
    urgent = world.plan(name="urgent", prefill=(32,), priority=5)
    world.record(*_facts(world))
    (training,) = actions(world.agenda, world.now)  # the same key in all three
    assert isinstance(training, Start)
    assert training.plan == urgent
    world._execute(training)
    while due := actions(world.agenda, world.now):
        if isinstance(due[0], Start):
            break
        world.record(*due[0].payloads)
    assert [a.plan for a in due if isinstance(a, Start)] == [urgent, early, late]


def _facts(world: World) -> Any:
    assert world.agenda is not None
    return world.agenda.facts(world.now)


def test_a_cancelled_plan_is_left_alone_until_it_is_asked_for_again() -> None:
    world = World()
    world.measure_environment()
    world.agenda = Agenda(world.state, CATALOG, world.site)
    plan = world.plan()
    world.record(*_facts(world))
    assert actions(world.agenda, world.now)
    world.record(PlanCancelled(plan=plan, reason="wrong data"))
    assert actions(world.agenda, world.now) == ()
    with pytest.raises(KeyError):
        world.agenda.view(plan, world.now)
    world.record(PlanRequested(plan=plan))
    assert len(actions(world.agenda, world.now)) == 1


def test_a_cancelled_run_waits_for_a_request_or_a_retry() -> None:
    world = World(dying={"training"}, stopping=True)
    plan = world.plan()
    (record,) = _decided(world, plan)
    world.record(*record.payloads)
    (start,) = _decided(world, plan)
    world._execute(start, notice=False)
    run = world.state.runs[start.view.key]
    world.record(RunCancelled(run=run.key, attempt=1))
    world.bury()
    view = world.view(plan)
    assert (view.slot("training").status, view.settled) == ("failed", True)
    assert "cancelled" in view.slot("training").reason
    world.dying.clear()
    world.record(RunRetried(run=run.key))
    assert world.run(plan).done


def _decided(world: World, plan: Digest) -> Any:
    return actions(Agenda(world.state, CATALOG, world.site, only=plan), world.now)


def test_a_lost_run_waits_longer_each_time_and_is_given_up_at_the_limit() -> None:
    world = World(dying={"training"}, limits=Limits(attempts=3, backoff=10))
    plan = world.plan()
    for pause in (10, 20):
        world.run(plan)
        view = world.view(plan).slot("training")
        assert (view.status, view.reason.name) == ("waiting", "BACKING_OFF")
        assert view.until is not None
        assert view.until == world.now.replace(":00.", f":{pause}.")
        agenda = Agenda(world.state, CATALOG, world.site)
        assert actions(agenda, world.now) == ()
        assert agenda.wake == view.until
        world.now = view.until
        world.limits = Limits(attempts=3, backoff=10)
        (start,) = actions(agenda, world.now)
        assert isinstance(start, Start)
        world.now = NOW
        world._execute(start)
    view = world.view(plan).slot("training")
    assert (view.status, view.reason.name) == ("failed", "RUN_DIED")


def test_a_transient_failure_is_tried_again_and_a_plain_one_is_not() -> None:
    for transient, status in ((True, "ready"), (False, "failed")):
        world = World()
        plan = world.plan()
        (record,) = _decided(world, plan)
        world.record(*record.payloads)
        (start,) = _decided(world, plan)
        common = {
            "run": start.view.key,
            "phase": "training",
            "plan": plan,
            "slot": "training",
            "attempt": 1,
        }
        started = RunStarted(**common, phase_version=1, inputs=(), params={}, tools={})
        failed = RunFailed(
            **common,
            code="store.full",
            message="no space",
            remedy="free some",
            seconds=1,
            transient=transient,
        )
        world.record(started, failed)
        assert world.view(plan).slot("training").status == status


def test_a_waiver_that_expires_blocks_again_without_any_event() -> None:
    world = World(max_abs={"export/prefill-8": 1.0})
    world.measure_environment()
    world.agenda = Agenda(world.state, CATALOG, world.site)
    plan = world.plan()
    world.run(plan)
    gate = next(g for g in world.view(plan).gates if g.slot == "export/prefill-8")
    until = "2026-11-22T10:30:00.000000Z"
    world.record(
        GateWaived(
            gate=gate.gate, subject=gate.subject or "", author="ada", reason="so", until=until
        )
    )
    assert actions(world.agenda, world.now)
    assert world.agenda.wake == until
    world.now = "2026-11-22T10:30:00.000001Z"
    assert actions(world.agenda, world.now) == ()
    assert (
        world.agenda.view(plan, world.now).slot("conversion/prefill-8").reason.name == "GATE_CLOSED"
    )


def test_an_agenda_holds_nothing_of_plans_that_are_no_longer_wanted() -> None:
    world = _finished(0)
    agenda = world.agenda
    assert agenda is not None
    for _ in range(30):
        plan = world.plan(name="again")
        actions(agenda, world.now)
        world.record(PlanCancelled(plan=plan))
        actions(agenda, world.now)
    sizes = [len(held) for held in vars(agenda).values() if isinstance(held, (dict, list))]
    assert sizes == [0] * len(sizes)


def test_a_published_report_touches_only_those_who_rest_on_it() -> None:
    world = _finished(2)
    agenda = world.agenda
    assert agenda is not None
    plan = next(iter(world.state.requested))
    report = agenda.view(plan, world.now).slot("export/prefill-8").outputs["report"]
    before = agenda.assessed
    again = world.state.published(report)
    assert again is not None
    world.record(ArtifactPublished.model_validate(again.fact.to_json()))
    agenda.facts(world.now)
    # The export of that shape, in both plans (they share its run); nothing came out differently.
    assert agenda.assessed - before == 2
