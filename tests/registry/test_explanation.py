"""Explanations as values: what they hold, and the keys that scripts know them by."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from stillhouse.registry.compare.reasons import (
    NotKeyed,
    RunReason,
    cause_of_slot,
    reason_of_slot,
    recorded_run,
)
from stillhouse.registry.planning.assess import assess
from stillhouse.registry.planning.causes import Cause, find_cause
from stillhouse.registry.planning.explanation import Explainer
from stillhouse.registry.planning.views import PlanView
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import GateWaived
from stillhouse.schemas.plain import plain

from .plan_world import CATALOG, POLICY, World

SLOT = ("slot", "status", "optional", "reason", "text", "detail", "until", "run", "seconds")
CAUSE = ("slot", "status", "reason", "text", "detail", "until", "run", "gate", "through", "remedy")
UNFED = ("gate", "slot", "verdict", "open", "why", "cause", "remedy")
GATE = (
    *("gate", "slot", "verdict", "required", "blocking", "subject", "evidence", "policy"),
    *("checks", "waiver", "waivers", "open", "why", "cause", "remedy"),
)
RUN = ("run", "slot", "plan", "nearest_earlier", "differs", "because")


def _explainer(world: World, plan: Digest) -> Explainer:
    view = world.view(plan)

    def find(slot: str) -> Cause:
        return find_cause(world.state, view, slot, admissions=(), advanced=True)

    return Explainer(state=world.state, view=view, find=find)


def _closed() -> tuple[World, Digest]:
    """A plan whose export is too far off, and a gate that no slot feeds."""
    policy = copy.deepcopy(POLICY)
    policy["gates"]["export.other"] = policy["gates"]["export.parity"] | {
        "slots": "export/decode-*"
    }
    policy["capabilities"] = {"exact": ["export.parity"], "streams": ["export.other"]}
    world = World(max_abs={"export/prefill-8": 5.0})
    plan = world.plan(policy=world.policy(policy))
    world.run(plan)
    return world, plan


def _fresh(world: World, plan: Digest) -> PlanView:
    return assess(world.state, plan, CATALOG, world.site, world.now, fresh=True)


def test_a_cause_tells_each_step_on_the_way_and_the_gate_that_ends_it() -> None:
    world, plan = _closed()
    cause = _explainer(world, plan).cause("deployment")
    (step,) = cause.steps
    assert (step.slot, step.gate) == ("deployment", "export.parity")
    assert step.gate_why == "fail: max_abs 5 <= 0.1 does not hold"
    assert cause.why == step.why
    failing = World(failing={"training"})
    plan = failing.plan()
    failing.run(plan)
    cause = _explainer(failing, plan).cause("deployment")
    assert [step.slot for step in cause.steps] == [*cause.through, cause.slot]
    assert [step.gate for step in cause.steps] == [None, None]


def test_a_cause_is_looked_for_only_where_something_waits() -> None:
    world = World()
    plan = world.plan()
    view = world.run(plan)

    def find(slot: str) -> Cause:
        pytest.fail(f"the cause of {slot} was looked for")

    done = Explainer(state=world.state, view=view, find=find)
    assert [gate.cause for gate in done.gates("export.parity")] == [None]
    assert reason_of_slot(done, view.slot("deployment")).cause is None


def test_a_waiver_lets_a_tier_through_and_grants_no_capability() -> None:
    world, plan = _closed()
    for asked in ("tier_2", "exact"):
        needs = _explainer(world, plan).needs(asked)
        assert needs is not None
        assert needs.lacks is not None
        assert needs.lacks.gate == "export.parity"
    (gate,) = _explainer(world, plan).gates("export.parity")
    subject = plain(gate)["subject"]
    world.record(
        GateWaived(
            gate=gate.gate, subject=subject, author="ada", reason="known", until="2999-01-01T00Z"
        )
    )
    found = [_explainer(world, plan).needs(asked) for asked in ("tier_2", "exact")]
    assert [needs and needs.lacks is None for needs in found] == [True, False]
    assert _explainer(world, plan).needs("moon") is None


def test_a_run_that_has_no_key_yet_has_no_reason() -> None:
    world, plan = _closed()
    explainer = _explainer(world, plan)
    waiting = reason_of_slot(explainer, explainer.view.slot("deployment"))
    assert isinstance(waiting.ran, NotKeyed)
    assert plain(waiting)["ran"] == {}
    ended = reason_of_slot(explainer, explainer.view.slot("training"))
    assert isinstance(ended.ran, RunReason)
    assert (ended.started, ended.ran.because) == (True, "it was the first run of its slot")


def test_an_upgrade_makes_a_filled_slot_run_again_and_an_empty_one_has_its_own_cause() -> None:
    world, plan = _closed()
    world.upgrade("torch", "2")
    explainer, fresh = _explainer(world, plan), _fresh(world, plan)
    again = cause_of_slot(explainer, explainer.view.slot("export/prefill-8"), fresh).again
    assert again == "asked for now, training would run anew: tool torch was 1, now it is 2"
    assert cause_of_slot(explainer, explainer.view.slot("deployment"), fresh).again == ""


def _said(value: object) -> Mapping[str, Any]:
    found: Mapping[str, Any] = plain(value)
    return found


def test_scripts_know_an_explanation_by_its_keys() -> None:
    """In this order; a key may be added at the end of each."""
    world, plan = _closed()
    explainer = _explainer(world, plan)
    slot = explainer.view.slot("deployment")
    (run, *_) = world.state.runs.values()
    needs = _said(explainer.needs("streams"))
    reason = _said(reason_of_slot(explainer, slot))
    cause = _said(cause_of_slot(explainer, slot, explainer.view))
    assert tuple(reason)[:13] == (*SLOT, "outputs", "ran", "from", "cause")
    assert tuple(cause)[:12] == (*SLOT, "outputs", "cause", "again")
    assert tuple(cause["cause"])[:10] == CAUSE
    assert tuple(cause["cause"]["gate"]) == GATE
    assert tuple(needs) == ("asked", "needs", "lacks")
    assert tuple(needs["lacks"]) == UNFED
    assert tuple(_said(recorded_run(world.state, run)))[:7] == (*RUN, "status")
