"""The reactor over real workers: what is cancelled or takes too much ends; the lost goes on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stillhouse.phases.reactor.reactor import Reactor
from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.registry.planning.views import Reason, Status
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import (
    ArtifactPublished,
    PlanCancelled,
    PlanRequested,
    RunCancelled,
    RunRetried,
)
from stillhouse.schemas.limits import Limits
from stillhouse.schemas.plan import Made, PhaseSpec, Slot
from stillhouse.schemas.policy import Policy, Tier
from stillhouse.schemas.recipe import Recipe
from stillhouse.store.disk.hashing import hash_bytes

from .worker_parts import Registry, alive, phase_folder, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers look into /proc")


class Bench:
    """One registry with one plan, whose slots do as they are told."""

    def __init__(self, root: Path, sign: Path) -> None:
        self.registry = Registry(root)
        self.sign = sign
        self.ledger = self._ledger()
        self.reactors: list[Reactor] = []

    def _ledger(self) -> Ledger:
        return Ledger(
            self.registry.home.log, lambda: datetime.now(UTC), Actor(user="ada", host="here")
        )

    def plan(self) -> Digest:
        """Publish a policy and a recipe, and ask for the plan."""
        policy = Policy(name="p", gates={}, tiers={Tier.TIER_2: ()})
        recipe = Recipe.model_validate(
            {
                "name": "r",
                "tier": Tier.TIER_2,
                "policy": self._publish(Kind.POLICY, policy=policy.to_json()),
                "given": {"checkpoint": hash_bytes(b"weights").digest},
            }
        )
        plan = self._publish(Kind.RECIPE, recipe=recipe.to_json())
        self.ledger.append([PlanRequested(plan=plan)])
        return plan

    def _publish(self, kind: Kind, **facts: Any) -> Digest:
        digest = hash_bytes(canonical.encode(facts)).digest
        fact = ArtifactPublished(
            digest=digest, kind=kind, form="blob", size=1, origin="imported", facts=facts
        )
        self.ledger.append([fact])
        return digest

    def reactor(self, *does: dict[str, Any], **limits: Any) -> Reactor:
        """A reactor over a catalog of one phase with one slot for each thing to do."""
        slots = tuple(
            Slot(id=f"tested/{place}", params=params, needs=()) for place, params in enumerate(does)
        )
        spec = PhaseSpec(
            name="tested",
            version=1,
            slots=lambda _: slots,
            makes=(Made(role="seen", kind=Kind.CHECKPOINT),),
            tools=(),
        )
        made = Reactor(
            home=self.registry.home,
            ledger=self._ledger(),
            store=self.registry.store,
            catalog=(spec,),
            limits=lambda: Limits.model_validate({"backoff": 0, **limits}),
        )
        self.reactors.append(made)
        return made

    def pid(self) -> int:
        """The process that holds, once it does."""
        return int(until(lambda: self.sign.read_text() if self.sign.exists() else ""))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("PYTHONPATH", str(phase_folder(tmp_path / "phase")))
    monkeypatch.setenv("STILL_TEST_SIGN", str(tmp_path / "sign"))
    made = Bench(tmp_path / "still", tmp_path / "sign")
    yield made
    for reactor in made.reactors:
        reactor.stop()
        for process in reactor._launcher._let_go:
            process.kill()
            process.wait()


def _turn(reactor: Reactor, until_types: tuple[str, ...]) -> Any:
    """Tick until an event of these types is recorded; its data."""
    heard: list[Any] = []
    before = reactor.state.seq

    def seen() -> Any:
        reactor.tick()
        found = [e for e in reactor._ledger.read(before) if e.type in until_types]
        return found[-1].data if found else None

    heard.append(until(seen))
    return heard[0]


def test_a_cancellation_reaches_the_worker_and_stays(bench: Bench) -> None:
    plan = bench.plan()
    reactor = bench.reactor({"do": "hold"})
    started = _turn(reactor, ("run.started",))
    pid = bench.pid()
    bench.ledger.append([RunCancelled(run=started["run"], attempt=1, reason="wrong data")])
    ended = _turn(reactor, ("run.abandoned", "run.failed"))
    assert (ended["stopped"], alive(pid)) == (True, False)
    (slot,) = reactor.view(plan).slots
    assert (slot.status, slot.reason) == (Status.FAILED, Reason.RUN_CANCELLED)
    assert reactor.idle
    assert not reactor.tick()
    bench.ledger.append([RunRetried(run=started["run"])])
    assert _turn(reactor, ("run.started",))["attempt"] == 2


def test_a_cancelled_plan_starts_nothing_more_and_its_other_runs_go_on(bench: Bench) -> None:
    plan = bench.plan()
    reactor = bench.reactor({"do": "hold"}, {"do": "look"})
    _turn(reactor, ("run.started",))
    pid = bench.pid()
    bench.ledger.append([PlanCancelled(plan=plan)])
    reactor.tick()
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)
    _turn(reactor, ("run.abandoned",))
    assert not reactor.tick()
    assert len(reactor.state.runs) == 1


def test_a_run_that_takes_too_long_is_ended_and_waits_for_a_person(bench: Bench) -> None:
    plan = bench.plan()
    reactor = bench.reactor({"do": "hold"}, phases={"tested": {"seconds": 0.2}})
    failed = _turn(reactor, ("run.failed", "run.abandoned"))
    assert (failed["code"], failed["transient"]) == ("run.time_limit", False)
    assert "config.toml" in failed["remedy"]
    assert failed["log"] is not None
    assert not reactor.tick()
    assert reactor.view(plan).slots[0].reason is Reason.RUN_FAILED


def test_a_run_that_holds_too_much_is_ended(bench: Bench) -> None:
    bench.plan()
    limit = 120 * 2**20
    reactor = bench.reactor(
        {"do": "take", "bytes": 2 * limit}, phases={"tested": {"memory": limit}}
    )
    failed = _turn(reactor, ("run.failed", "run.abandoned"))
    assert failed["code"] == "run.memory_limit"
    assert str(limit) in failed["message"]


def test_a_failure_from_outside_is_tried_again_up_to_the_limit(bench: Bench) -> None:
    plan = bench.plan()
    reactor = bench.reactor({"do": "StorageError"}, attempts=2)
    assert _turn(reactor, ("run.failed",))["attempt"] == 1
    assert _turn(reactor, ("run.failed",))["attempt"] == 2
    assert not reactor.tick()
    assert reactor.view(plan).slots[0].status is Status.FAILED


def test_a_lost_run_waits_before_it_is_tried_again(bench: Bench) -> None:
    bench.plan()
    reactor = bench.reactor({"do": "hold"}, backoff=30)
    _turn(reactor, ("run.started",))
    os.kill(bench.pid(), signal.SIGKILL)
    assert not _turn(reactor, ("run.abandoned",))["stopped"]
    assert not reactor.tick()
    assert not reactor.idle
    pause = reactor.pause()
    assert pause is not None
    assert 0 < pause <= 30


def test_a_phase_runs_no_more_often_at_once_than_it_may(bench: Bench) -> None:
    bench.plan()
    holds = [{"do": "hold", "place": place} for place in range(3)]
    reactor = bench.reactor(*holds, workers=3, phases={"tested": {"workers": 2}})
    while reactor.tick():
        pass
    assert len(reactor.state.running()) == 2


def test_a_limit_that_is_raised_counts_at_once(bench: Bench) -> None:
    bench.plan()
    phases: dict[str, Any] = {"tested": {"seconds": 0.1}}
    reactor = bench.reactor({"do": "hold"}, phases=phases)
    key = _turn(reactor, ("run.failed",))["run"]
    phases["tested"] = {"seconds": 1000}
    bench.ledger.append([RunRetried(run=key)])
    _turn(reactor, ("run.started",))
    bench.sign.unlink(missing_ok=True)
    pid = bench.pid()
    reactor.tick()
    assert alive(pid)


def test_a_start_that_no_event_can_hold_fails_alone(bench: Bench) -> None:
    plan = bench.plan()
    reactor = bench.reactor({"do": "look", "long": "x" * 70_000}, {"do": "look"}, workers=2)
    failed = _turn(reactor, ("run.failed",))
    assert failed["code"] == "run.unrecordable"
    assert _turn(reactor, ("run.succeeded",))["slot"] == "tested/1"
    assert [slot.status for slot in reactor.view(plan).slots] == [Status.FAILED, Status.FILLED]
    assert reactor.idle


def test_a_lock_that_someone_looks_at_delays_a_start_and_does_not_lose_it(bench: Bench) -> None:
    bench.plan()
    reactor = bench.reactor({"do": "look"})
    while not reactor._todo().facts(reactor.now()) and reactor.record_environment():
        pass
    (start,) = reactor._todo().starts()
    assert start.view.key is not None
    with reactor._launcher.locked(start.view.key):
        assert not reactor.tick()
        pause = reactor.pause()
    assert pause is not None
    assert reactor.tick()


def test_what_falls_due_while_nothing_may_start_does_not_make_the_daemon_spin(
    bench: Bench,
) -> None:
    bench.plan()
    reactor = bench.reactor({"do": "hold"}, backoff=0.05)
    _turn(reactor, ("run.started",))
    os.kill(bench.pid(), signal.SIGKILL)
    _turn(reactor, ("run.abandoned",))
    reactor._todo().facts(reactor.now())
    until(lambda: (reactor._todo().wake or "9") < reactor.now())
    assert not reactor.tick(start=False)
    pause = reactor.pause()
    assert pause is not None
    assert pause >= 0.05


def test_a_run_asked_for_beside_others_returns_when_its_own_plan_rests(bench: Bench) -> None:
    plan = bench.plan()
    reactor = bench.reactor({"do": "hold"}, {"do": "look"}, workers=2)
    while len(reactor.state.running()) + len(reactor.state.filled) < 2:
        reactor.tick()
    other = bench.reactor({"do": "look"})
    view = other.advance(plan)
    assert view.slots[0].status is Status.FILLED
    assert reactor.state.running()


def test_a_plan_that_is_cancelled_while_it_is_advanced_is_left_alone(bench: Bench) -> None:
    plan = bench.plan()
    reactor = bench.reactor({"do": "hold"}, {"do": "look"})
    reactor._only = plan
    key = _turn(reactor, ("run.started",))["run"]
    bench.ledger.append([PlanCancelled(plan=plan), RunCancelled(run=key, attempt=1)])
    view = reactor.advance(plan)
    assert len(reactor.state.runs) == 1
    assert view.slots[1].status is Status.READY


def test_what_is_handed_over_is_found_and_recorded_once(bench: Bench) -> None:
    plan = bench.plan()
    first = bench.reactor({"do": "hold"})
    key = _turn(first, ("run.started",))["run"]
    pid = bench.pid()
    first.hand_over()
    second = bench.reactor({"do": "hold"})
    second.tick()
    assert alive(pid)
    assert [run.key for run in second.state.running()] == [key]
    bench.ledger.append([RunCancelled(run=key, attempt=1)])
    assert _turn(second, ("run.abandoned",))["attempt"] == 1
    first.tick()
    assert first.view(plan).slots[0].reason is Reason.RUN_CANCELLED
    ends = [e for e in bench.ledger.read() if e.type == "run.abandoned"]
    assert len(ends) == 1


def test_a_package_that_changes_under_a_daemon_is_in_the_next_runs_key(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "installed"
    installed.mkdir()
    monkeypatch.syspath_prepend(str(installed))
    bench.plan()
    reactor = bench.reactor({"do": "look"})
    while reactor.tick():
        pass
    before = reactor.site()
    metadata = installed / "torch-99.0.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 99.0.0\n")
    published = _turn(reactor, ("artifact.published",))
    assert published["kind"] == "environment"
    assert reactor.site().environment == published["digest"] != before.environment
    assert reactor.site().versions["torch"] == "99.0.0"


def test_a_start_is_not_made_when_a_cancellation_overtakes_it(bench: Bench) -> None:
    plan = bench.plan()
    reactor = bench.reactor({"do": "hold"})
    reactor.tick()  # the environment
    facts = reactor._todo().facts(reactor.now())
    assert facts == ()
    bench.ledger.append([PlanCancelled(plan=plan)])
    assert not reactor._start_some()
    assert reactor.state.runs == {}
