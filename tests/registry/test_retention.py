"""Retention: every reason for keeping bytes, and that nothing else keeps them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from stillhouse.registry.keeping.retention import Keep, Kept, retention
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import (
    ArtifactEvicted,
    ArtifactRestored,
    PlanCancelled,
    PlanRequested,
    TagMoved,
)

from .plan_world import CATALOG, Record, World, decide

LATER = "2026-12-22T10:00:00.000000Z"
GRACE = timedelta(days=14)


def _kept(world: World) -> dict[Digest, Kept]:
    return retention(world.state, LATER, GRACE)


def _output(world: World, plan: Digest, slot: str, role: str) -> Digest:
    return world.view(plan).slot(slot).outputs[role]


def _tagged(world: World) -> Digest:
    plan = world.plan()
    world.run(plan)
    world.state.releases.clear()
    found = _output(world, plan, "conversion/prefill-8", "mlpackage")
    world.record(TagMoved(name="best", digest=found))
    return found


def _released(world: World) -> Digest:
    plan = world.plan()
    return world.run(plan).slot("deployment").outputs["release"]


def _running(world: World) -> Digest:
    plan = world.plan()
    world.dying = {"conversion/prefill-8"}
    while not world.dead:
        actions = decide(world.state, (plan,), CATALOG, world.site, world.now)
        if isinstance(actions[0], Record):
            world.record(*actions[0].payloads)
        else:
            world._execute(actions[0], notice=False)
    return _output(world, plan, "export/prefill-8", "export")


def _asked_for(world: World) -> Digest:
    plan = world.plan()
    world.run(plan)
    world.state.releases.clear()
    world.now = LATER
    world.record(PlanRequested(plan=plan))
    return _output(world, plan, "conversion/prefill-8", "mlpackage")


def _young(world: World) -> Digest:
    world.now = LATER
    return world._publish(Kind.DATASET, b"rows")


def _shaped(world: World) -> Digest:
    plan = world.plan()
    world.run(plan)
    return _output(world, plan, "training", "checkpoint")


def _judged(world: World) -> Digest:
    plan = world.plan()
    world.run(plan)
    return _output(world, plan, "export/prefill-8", "report")


CASES: dict[Keep, Callable[[World], Digest]] = {
    Keep.TAGGED: _tagged,
    Keep.RELEASED: _released,
    Keep.RUNNING: _running,
    Keep.ASKED_FOR: _asked_for,
    Keep.YOUNG: _young,
    Keep.SHAPED: _shaped,
    Keep.JUDGED: _judged,
}


@pytest.mark.parametrize("reason", list(Keep))
def test_every_reason_keeps(reason: Keep) -> None:
    world = World()
    digest = CASES[reason](world)
    assert _kept(world)[digest].reason is reason
    assert _kept(world)[digest].detail


def test_what_nothing_points_at_is_not_kept_once_it_is_old() -> None:
    world = World()
    plan = world.plan()
    world.run(plan)
    world.state.releases.clear()
    stray = world._publish(Kind.DATASET, b"rows")
    assert retention(world.state, world.now, GRACE)[stray].reason is Keep.YOUNG
    assert _kept(world) == {}


def test_what_was_brought_back_lately_is_young_again_with_all_that_shaped_it() -> None:
    """Whoever waited for a rewind must find its bytes after the next collection."""
    world = World()
    plan = world.plan()
    world.run(plan)
    world.state.releases.clear()
    made = _output(world, plan, "conversion/prefill-8", "mlpackage")
    (publication,) = world.state.artifacts[made]
    assert publication.run is not None
    world.now = "2026-12-21T10:00:00.000000Z"
    world.record(
        ArtifactEvicted(digest=made, run=publication.run, size=1),
        ArtifactRestored(digest=made, how="run"),
    )
    kept = _kept(world)
    assert kept[made] == Kept(reason=Keep.YOUNG, detail=world.now)
    assert _output(world, plan, "export/prefill-8", "export") in kept
    assert retention(world.state, "2027-01-05T10:00:00.000000Z", GRACE) == {}


def test_a_plan_that_is_at_work_keeps_all_it_has_made_however_long_it_takes() -> None:
    """Slots that come later may need what the run that goes on now does not."""
    world = World()
    _running(world)
    (run,) = world.state.running()
    report = _output(world, run.started.plan, "export/prefill-8", "report")
    assert _kept(world)[report].reason is Keep.ASKED_FOR


def test_a_cancelled_plan_keeps_nothing() -> None:
    world = World()
    plan = world.plan()
    world.run(plan)
    world.state.releases.clear()
    made = _output(world, plan, "conversion/prefill-8", "mlpackage")
    world.now = LATER
    world.record(PlanRequested(plan=plan))
    assert made in _kept(world)
    world.record(PlanCancelled(plan=plan))
    assert made not in _kept(world)


def test_all_that_shaped_a_release_is_kept_with_it() -> None:
    world = World()
    plan = world.plan(prefill=(8, 16))
    release = world.run(plan).slot("deployment").outputs["release"]
    kept = _kept(world)
    waiting = [release]
    while waiting:
        digest = waiting.pop()
        assert digest in kept
        for found in world.state.artifacts[digest]:
            waiting += [p.digest for p in found.fact.parents if p.digest in world.state.artifacts]
    assert {plan, world.state.recipe(plan).policy} <= set(kept)
    assert sum(one.reason is Keep.SHAPED for one in kept.values()) > 4


def test_a_grace_of_a_thousand_years_keeps_what_is_young() -> None:
    world = World()
    young = world._publish(Kind.DATASET, b"rows")
    kept = retention(world.state, LATER, timedelta(days=400_000))
    assert kept[young].reason is Keep.YOUNG
