"""What a cancellation ends, and what takes away its ground."""

from __future__ import annotations

import pytest

from stillhouse.registry.planning.cancellation import Cancellation, cancellation_of
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import StillError
from stillhouse.schemas.events import PlanCancelled, RunCancelled

from .plan_world import CATALOG, World, decide

FIRST = "training"


@pytest.fixture
def world() -> World:
    """Runs of the first slot go on until somebody notices that they died."""
    return World(dying={FIRST})


def _begin(world: World, plan: Digest) -> None:
    world.perform(decide(world.state, (plan,), CATALOG, world.site, world.now))


def _cancelled(world: World, target: str, *, attempts: int = 3) -> Cancellation:
    return cancellation_of(world.state, target, world.view, attempts=attempts)


def _refused(world: World, target: str, *, attempts: int = 3) -> str:
    with pytest.raises(StillError) as refused:
        _cancelled(world, target, attempts=attempts)
    return refused.value.code


def test_a_plan_ends_with_the_runs_that_no_other_plan_needs(world: World) -> None:
    plan = world.plan()
    _begin(world, plan)
    (run,) = world.state.runs.values()
    found = _cancelled(world, plan)
    assert (found.plan, found.runs, found.spared) == (plan, (run,), ())
    world.plan(name="other")
    found = _cancelled(world, plan)
    assert (found.plan, found.runs, found.spared) == (plan, (), (run,))


def test_what_was_cancelled_before_is_not_recorded_again(world: World) -> None:
    plan = world.plan()
    _begin(world, plan)
    (run,) = world.state.runs.values()
    payloads = _cancelled(world, plan).payloads(world.state, "why")
    assert payloads == (
        PlanCancelled(plan=plan, reason="why"),
        RunCancelled(run=run.key, attempt=1, reason="why"),
    )
    world.record(*payloads)
    assert _cancelled(world, plan).payloads(world.state, "why") == ()


def test_a_start_of_the_plan_or_a_word_on_one_of_its_runs_overtakes(world: World) -> None:
    plan = world.plan()
    asked = _cancelled(world, plan)
    _begin(world, plan)
    started = world.events[-1]
    assert asked.overtaken_by(started)
    assert _cancelled(world, FIRST).overtaken_by(started)
    assert not Cancellation(plan="d" * 64).overtaken_by(started)


def test_a_run_that_would_be_tried_again_can_be_cancelled_and_one_that_would_not_can_not(
    world: World,
) -> None:
    _begin(world, world.plan())
    world.bury()
    (run,) = world.state.runs.values()
    assert _cancelled(world, run.key[:8], attempts=2).runs == (run,)
    assert _refused(world, run.key[:8], attempts=1) == "cancel.ended"


def test_a_target_without_a_run_is_refused(world: World) -> None:
    plan = world.plan()
    assert _refused(world, FIRST) == "cancel.not_started"
    assert _refused(world, "nobody") == "cancel.unknown"
    assert _refused(world, plan[:3]) == "ref.too_short"
    world.dying.clear()
    world.run(plan)
    assert _refused(world, plan) == "cancel.ended"
    assert _refused(world, FIRST) == "cancel.ended"
    world.record(PlanCancelled(plan=plan))
    assert _refused(world, plan) == "cancel.not_asked_for"
