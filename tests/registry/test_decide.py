from __future__ import annotations

import copy

import pytest

from stillhouse.registry.planning.assess import assess
from stillhouse.registry.planning.views import Reason, Status
from stillhouse.registry.state.state import Published
from stillhouse.schemas.events import (
    GateWaived,
    PlanRequested,
    RunAbandoned,
    RunRetried,
    RunStarted,
    TagMoved,
)
from stillhouse.schemas.policy import Verdict

from .plan_world import CATALOG, NOW, POLICY, World, decide


def _event_types(world: World) -> list[str]:
    return [e.type for e in world.events]


def test_a_plan_runs_each_slot_once_in_order_and_is_sealed() -> None:
    world = World()
    plan = world.plan()
    view = world.run(plan)
    assert world.executed == ["training", "export/prefill-8", "conversion/prefill-8", "deployment"]
    assert view.done
    assert _event_types(world)[-1] == "release.cut"


def test_the_second_look_is_quiet() -> None:
    world = World()
    plan = world.plan()
    world.run(plan)
    before = len(world.events)
    assert decide(world.state, (plan,), CATALOG, world.site, NOW) == ()
    world.run(plan)
    assert len(world.events) == before


def test_a_closed_required_gate_blocks_what_needs_it_and_the_release() -> None:
    world = World(max_abs={"export/prefill-8": 5.0})
    view = world.run(world.plan())
    assert view.slot("conversion/prefill-8").reason is Reason.GATE_CLOSED
    assert view.slot("deployment").status is Status.BLOCKED
    assert [g.gate for g in view.closed_gates] == ["export.parity"]
    assert not view.done
    assert "release.cut" not in _event_types(world)


def test_a_waiver_opens_the_gate_and_is_in_the_release_key() -> None:
    world = World(max_abs={"export/prefill-8": 5.0})
    plan = world.plan()
    gate = world.run(plan).closed_gates[0]
    assert gate.subject is not None
    world.record(
        GateWaived(
            gate=gate.gate,
            subject=gate.subject,
            author="a",
            reason="r",
            until="2027-01-01T00:00:00Z",
        )
    )
    view = world.run(plan)
    assert view.done
    rows = view.slot("deployment").params["verdicts"]
    waived = [r["waiver_seq"] for r in rows if r["gate"] == "export.parity"]
    assert [world.events[seq - 1].data["author"] for seq in waived] == ["a"]


def test_an_expired_waiver_opens_nothing() -> None:
    world = World(max_abs={"export/prefill-8": 5.0})
    plan = world.plan()
    gate = world.run(plan).closed_gates[0]
    assert gate.subject is not None
    world.record(
        GateWaived(gate=gate.gate, subject=gate.subject, author="a", reason="r", until=NOW)
    )
    assert not world.run(plan).done


def test_a_failed_optional_shape_blocks_nothing_and_its_dependents_are_skipped() -> None:
    world = World(failing={"export/prefill-16"})
    view = world.run(world.plan(prefill=(8, 16)))
    assert view.slot("export/prefill-16").status is Status.FAILED
    assert view.slot("conversion/prefill-16").status is Status.SKIPPED
    assert view.done
    roles = [i.role for i in view.slot("deployment").inputs]
    assert roles == ["mlpackage/prefill-8"]


def test_an_optional_shape_whose_gate_is_closed_stays_out_of_the_release() -> None:
    world = World(max_abs={"export/prefill-16": 5.0})
    view = world.run(world.plan(prefill=(8, 16)))
    assert view.done
    assert [i.role for i in view.slot("deployment").inputs] == ["mlpackage/prefill-8"]


def test_a_failed_required_shape_blocks() -> None:
    world = World(failing={"export/prefill-8"})
    view = world.run(world.plan(prefill=(8, 16)))
    assert view.slot("conversion/prefill-8").reason is Reason.INPUT_FAILED
    assert view.slot("deployment").status is Status.BLOCKED
    assert not view.done


def test_a_failed_run_waits_for_a_request_or_a_retry() -> None:
    world = World(failing={"training"})
    plan = world.plan()
    world.run(plan)
    assert world.executed == ["training"]
    world.failing.clear()
    world.run(plan)
    assert world.executed == ["training"]
    world.record(PlanRequested(plan=plan))
    assert world.run(plan).done


def test_a_retry_reopens_one_run() -> None:
    world = World(failing={"training"})
    plan = world.plan()
    key = world.run(plan).slot("training").key
    assert key is not None
    world.failing.clear()
    world.record(RunRetried(run=key))
    assert world.run(plan).done
    assert world.state.runs[key].attempts == 2
    assert world.state.runs[key].failures == 0


def test_a_run_that_keeps_dying_is_given_up_after_three_attempts() -> None:
    world = World(dying={"training"})
    view = world.run(world.plan())
    assert world.executed == ["training"] * 3
    assert view.slot("training").reason is Reason.RUN_DIED
    attempts = [e.data["attempt"] for e in world.events if e.type == RunStarted.TYPE]
    assert attempts == [1, 2, 3]


def test_a_request_made_before_the_death_was_noticed_reopens_the_run() -> None:
    world = World(dying={"training"})
    plan = world.plan()
    for _ in range(5):  # each time: killed, asked for again, and only then found dead
        start = decide(world.state, (plan,), CATALOG, world.site, NOW)
        world.perform(start)
        world.record(PlanRequested(plan=plan))
        world.bury()
    world.dying.clear()
    assert world.run(plan).done


def test_a_run_that_was_stopped_on_purpose_has_not_died() -> None:
    world = World(dying={"training"}, stopping=True)
    plan = world.plan()
    for _ in range(5):
        world.perform(decide(world.state, (plan,), CATALOG, world.site, NOW))
        world.bury()
    assert world.view(plan).slot("training").status is Status.READY


def test_an_attempt_number_is_never_used_twice() -> None:
    world = World(failing={"training"})
    plan = world.plan()
    for _ in range(3):
        world.run(plan)
        world.record(PlanRequested(plan=plan))
    attempts = [e.data["attempt"] for e in world.events if e.type == RunStarted.TYPE]
    assert attempts == [1, 2, 3]


def test_a_policy_without_a_rule_for_a_start_gate_opens_nothing() -> None:
    policy = copy.deepcopy(POLICY)
    del policy["gates"]["export.parity"]
    policy["tiers"]["tier_2"] = ["environment.versions"]
    world = World()
    view = world.run(world.plan(policy=world.policy(policy)))
    assert view.slot("conversion/prefill-8").status is Status.BLOCKED
    assert "export.parity" in view.slot("conversion/prefill-8").detail


def test_a_required_gate_over_a_shape_that_was_skipped_blocks_nothing() -> None:
    policy = copy.deepcopy(POLICY)
    policy["gates"]["conversion.x"] = {
        "slots": "conversion/prefill-16",
        "checks": [{"metric": "m", "op": "<=", "value": 1}],
    }
    policy["tiers"]["tier_2"].append("conversion.x")
    world = World(failing={"export/prefill-16"})
    assert world.run(world.plan(policy=world.policy(policy), prefill=(8, 16))).done


def test_a_plan_that_shares_runs_stays_finished_after_an_upgrade() -> None:
    world = World()
    world.run(world.plan(prefill=(8,)))
    second = world.plan(prefill=(8, 16))
    world.run(second)
    world.executed.clear()
    world.upgrade("torch", "2")
    assert world.run(second).done
    assert world.executed == []


def test_a_new_threshold_judges_again_and_runs_only_the_release() -> None:
    world = World(max_abs={"export/prefill-8": 0.05})
    world.run(world.plan())
    world.executed.clear()
    stricter = copy.deepcopy(POLICY)
    stricter["gates"]["export.parity"]["checks"][0]["value"] = 0.06
    assert world.run(world.plan(policy=world.policy(stricter))).done
    assert world.executed == ["deployment"]


def test_another_plan_with_equal_inputs_reuses_runs() -> None:
    world = World()
    world.run(world.plan(prefill=(8,)))
    world.executed.clear()
    second = world.plan(prefill=(8, 16))
    view = world.run(second)
    assert world.executed == ["export/prefill-16", "conversion/prefill-16", "deployment"]
    assert view.slot("training").reason is Reason.REUSED
    assert "run.reused" in _event_types(world)


def test_an_output_that_did_not_change_cuts_off_what_follows() -> None:
    world = World()
    plan = world.plan()
    world.run(plan)
    world.executed.clear()
    world.upgrade("torch", "2")  # training and export declare it; their bytes stay the same
    world.record(PlanRequested(plan=plan))
    world.run(plan)
    assert world.executed == ["training", "export/prefill-8", "deployment"]


def test_an_upgrade_leaves_a_finished_plan_alone_until_it_is_asked_for() -> None:
    world = World()
    plan = world.plan()
    world.run(plan)
    world.executed.clear()
    world.upgrade("coremltools", "10")
    assert world.run(plan).done
    assert world.executed == []
    fresh = assess(world.state, plan, CATALOG, world.site, NOW, fresh=True)
    assert fresh.slot("training").status is Status.FILLED
    assert fresh.slot("conversion/prefill-8").status is Status.READY
    world.record(PlanRequested(plan=plan))
    world.run(plan)
    # The release names the environment that its evidence was taken in.
    assert world.executed == ["conversion/prefill-8", "deployment"]


def test_a_gate_without_a_slot_that_feeds_it_is_not_run_and_blocks() -> None:
    world = World()
    policy = copy.deepcopy(POLICY)
    policy["gates"]["evaluation.kl"] = {"checks": [{"metric": "kl", "op": "<=", "value": 1}]}
    policy["tiers"]["tier_2"].append("evaluation.kl")
    view = world.run(world.plan(policy=world.policy(policy)))
    assert [(g.gate, g.verdict) for g in view.closed_gates] == [("evaluation.kl", Verdict.NOT_RUN)]
    assert view.slot("deployment").status is Status.BLOCKED


def test_nothing_starts_in_a_refused_environment() -> None:
    world = World()
    world.measure_environment(unsupported=2)
    view = world.run(world.plan())
    assert world.executed == []
    assert view.slot("training").reason is Reason.GATE_CLOSED
    assert "environment.versions" in view.slot("training").detail
    assert view.closed_gates[0].gate == "environment.versions"


def test_a_report_that_a_person_published_is_no_evidence() -> None:
    world = World()
    plan = world.plan()
    view = world.run(plan)
    report = view.slot("export/prefill-8").outputs["report"]
    assert world.state.from_run(report) is not None
    found = world.state.artifacts[report]
    world.state.artifacts[report] = [
        Published.of(p.seq, p.ts, p.fact.model_copy(update={"origin": "imported"})) for p in found
    ]
    assert world.state.from_run(report) is None
    assert world.view(plan).closed_gates


@pytest.mark.parametrize("upto", range(1, 40, 3))
def test_folding_a_prefix_and_going_on_ends_where_folding_all_does(upto: int) -> None:
    world = World(failing={"export/prefill-16"})
    plan = world.plan(prefill=(8, 16))
    world.run(plan)
    cut = World(failing={"export/prefill-16"})
    for event in world.events[:upto]:
        cut.events.append(event)
        cut.state.apply(event)
    if plan in cut.state.requested:
        for run in cut.state.running():
            fact = run.started
            cut.record(
                RunAbandoned(
                    run=run.key,
                    phase=fact.phase,
                    plan=fact.plan,
                    slot=fact.slot,
                    attempt=fact.attempt,
                    reason="killed",
                )
            )
        assert cut.run(plan).done
        assert cut.view(plan).slot("deployment").outputs["release"]


def test_a_tag_changes_no_decision() -> None:
    world = World()
    plan = world.plan()
    world.run(plan)
    world.record(TagMoved(name="best", digest=plan))
    assert decide(world.state, (plan,), CATALOG, world.site, NOW) == ()
