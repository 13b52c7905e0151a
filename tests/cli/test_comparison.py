"""The verbs `diff` and `blame`: nearest cause first, and which event changed a metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillhouse.registry.planning.views import PlanView
from stillhouse.session import Session

from .conftest import Still
from .recorded import Recorder

ONE_SHAPE: dict[str, Any] = {"prefill": [8], "primary": 8}
FEWER_THREADS = ONE_SHAPE | {"threads": 1}


@pytest.fixture
def recorder(session: Session, tmp_path: Path) -> Recorder:
    return Recorder(session=session, scratch=tmp_path / "scratch")


@pytest.fixture
def first(recorder: Recorder, policy: Path) -> PlanView:
    return recorder.run(recorder.plan(policy, export=ONE_SHAPE))


@pytest.fixture
def second(recorder: Recorder, policy: Path, first: PlanView) -> PlanView:  # noqa: ARG001  # it is the later one
    """The same with one parameter of the export changed, which made it worse."""
    recorder.measured = {"export/prefill-8": {"parity.max_abs": 0.09, "archive.max_abs": 0.0}}
    return recorder.run(recorder.plan(policy, export=FEWER_THREADS))


def made(view: PlanView, slot: str, role: str) -> str:
    return view.slot(slot).outputs[role]


def causes(told: Any) -> list[tuple[int, list[str], str, str, str, str]]:
    return [tuple(c.values()) for c in told["causes"]]


# -- diff ---------------------------------------------------------------------------------------

THREADS = ("parameter", "threads", "2", "1")


def test_the_cause_is_found_behind_whatever_followed_from_it(
    still: Still, first: PlanView, second: PlanView
) -> None:
    for slot, role, path in (
        ("export/prefill-8", "export", []),
        ("conversion/prefill-8", "mlpackage", ["contract"]),
        ("verification/prefill-8", "report", ["contract"]),
        ("deployment", "release", ["contract/prefill-8"]),
    ):
        told = still("diff", made(first, slot, role), made(second, slot, role), "--json").json
        assert causes(told) == [(len(path), path, *THREADS)]
        assert path in [c["path"] for c in told["consequences"]] or not path


def test_two_plans_differ_in_their_recipes_and_in_what_filled_their_slots(
    still: Still, first: PlanView, second: PlanView
) -> None:
    told = still("diff", first.plan, second.plan, "--json").json
    assert causes(told) == [(0, [], "recipe", "export.threads", "2", "1")]
    assert [c["name"] for c in told["consequences"]] == [
        "export/prefill-8",
        "conversion/prefill-8",
        "verification/prefill-8",
        "deployment",
    ]
    (changed,) = [m for m in told["metrics"] if m["name"] == "parity.max_abs"]
    assert (changed["before"]["value"], changed["after"]["value"]) == (0.01, 0.09)
    assert changed["change"] == pytest.approx(0.08)


def test_runs_are_compared_by_their_keys(still: Still, first: PlanView, second: PlanView) -> None:
    slot = "export/prefill-8"
    one, other = first.slot(slot).key, second.slot(slot).key
    assert one
    assert other
    told = still("diff", one[:10], other[:10], "--json").json
    assert told["a"] == {"kind": f"run of {slot}", "digest": one}
    assert causes(told) == [(0, [], *THREADS)]
    mixed = still("diff", one[:10], made(second, slot, "export"))
    assert mixed.code == 2
    assert "one is a run" in mixed.err


def test_metrics_and_gates_stand_side_by_side(
    still: Still, recorder: Recorder, policy: Path, first: PlanView
) -> None:
    recorder.measured = {"export/prefill-8": {"parity.max_abs": 0.5}}
    worse = recorder.run(recorder.plan(policy, export=FEWER_THREADS))
    slot = "export/prefill-8"
    rows = still("diff", made(first, slot, "export"), made(worse, slot, "export")).rows
    assert ["metric", slot, "parity.max_abs", "was 0.01 (n = 8), then 0.5 (n = 8)", "+0.49"] in rows
    assert ["gate", slot, "export.parity", "was pass, then fail"] in rows
    assert [r[0] for r in rows] == sorted((r[0] for r in rows), key=ORDER.index)
    plans = still("diff", first.plan, worse.plan).rows
    assert ["gate", slot, "export.parity", "was pass, then fail"] in plans
    still(
        "waive",
        "export.parity",
        made(worse, slot, "export"),
        "--reason",
        "r",
        "--until",
        "2099-01-01",
    )
    rows = still("diff", made(first, slot, "report"), made(worse, slot, "report")).rows
    assert ["gate", slot, "export.parity", "was pass, then fail, waived"] in rows


def test_metrics_whose_interval_alone_moved_do_not_hide_the_one_that_changed(
    still: Still, recorder: Recorder, policy: Path
) -> None:
    slot = "export/prefill-8"
    told = {"parity.max_abs": 0.01, "a": 1.0, "b": 2.0}
    recorder.measured, recorder.intervals = {slot: told}, {"a": (0.5, 1.5), "b": (1.0, 3.0)}
    before = recorder.run(recorder.plan(policy, export=ONE_SHAPE))
    recorder.measured = {slot: told | {"parity.max_abs": 0.02}}
    recorder.intervals = {"a": (0.6, 1.5), "b": (1.0, 2.9)}
    after = recorder.run(recorder.plan(policy, export=FEWER_THREADS))
    ends = made(before, slot, "report"), made(after, slot, "report")
    rows = [row for row in still("diff", *ends).rows if row[0] == "metric"]
    assert [row[2] for row in rows] == ["parity.max_abs", "2 more"]
    whole = still("diff", *ends, "--json").json["metrics"]
    assert {m["name"]: (m["differs"], m["moved"]) for m in whole} == {
        "parity.max_abs": (True, True),
        "a": (True, False),
        "b": (True, False),
    }


ORDER = ["compared", "cause", "beside", "follows", "metric", "gate"]


def test_a_changed_policy_is_told_by_its_thresholds(
    still: Still, recorder: Recorder, policy: Path, first: PlanView
) -> None:
    policy.write_text(policy.read_text(encoding="utf-8").replace("0.1 }", "0.2 }"), "utf-8")
    looser = recorder.run(recorder.plan(policy, export=ONE_SHAPE))
    told = still("diff", first.plan, looser.plan, "--json").json
    assert causes(told) == [
        (1, ["policy"], "policy", "gates.export.parity.checks.0.value", "0.1", "0.2")
    ]
    releases = (made(view, "deployment", "release") for view in (first, looser))
    assert causes(still("diff", *releases, "--json").json) == causes(told)


def test_the_same_thing_is_identical_to_itself(still: Still, first: PlanView) -> None:
    for ref in (first.plan, first.slot("deployment").key, "release@latest"):
        answer = still("diff", str(ref), str(ref))
        assert (answer.code, answer.out) == (0, "identical\n")
        told = still("diff", str(ref), str(ref), "--json").json
        assert told["identical"]
        assert not told["causes"]
        assert not any(row["differs"] for row in told["metrics"] + told["gates"])


def test_artifacts_of_two_kinds_or_of_two_slots_say_so(
    still: Still, recorder: Recorder, policy: Path
) -> None:
    view = recorder.run(recorder.plan(policy))
    slots = [f"export/prefill-{length}" for length in (8, 16)]
    told = still("diff", *(made(view, slot, "export") for slot in slots), "--json").json
    assert causes(told)[0] == (0, [], "slot", "", *slots)
    assert [m["slot"] for m in told["metrics"]] == [" · ".join(slots)]
    same = still("diff", made(view, slots[0], "export"), made(view, slots[0], "report"), "--json")
    assert causes(same.json) == [(0, [], "output", "", "export", "report")]
    kinds = still("diff", view.plan, "policy@latest", "--json").json
    assert causes(kinds) == [(0, [], "kind", "", "recipe", "policy")]


@pytest.mark.usefixtures("first")
def test_a_reference_that_names_nothing_is_refused(still: Still) -> None:
    answer = still("diff", "release@latest", "nothing", "--json")
    assert (answer.code, answer.out) == (2, "")


# -- blame --------------------------------------------------------------------------------------


@pytest.fixture
def third(recorder: Recorder, policy: Path, second: PlanView) -> PlanView:  # noqa: ARG001  # it is the later one
    """Another key, the same value as the second."""
    return recorder.run(recorder.plan(policy, export=ONE_SHAPE | {"threads": 3}))


def test_blame_names_the_event_that_changed_the_metric_and_why(
    still: Still, first: PlanView, second: PlanView, third: PlanView
) -> None:
    slot = "export/prefill-8"
    (series,) = still("blame", made(third, slot, "report"), "parity.max_abs", "--json").json
    assert [m["metric"]["value"] for m in series["history"]] == [0.01, 0.09, 0.09]
    assert [m["run"] for m in series["history"]] == [
        view.slot(slot).key for view in (first, second, third)
    ]
    assert [m["plans"] for m in series["history"]] == [[v.plan] for v in (first, second, third)]
    assert series["history"][0]["releases"] == [made(first, "deployment", "release")]
    assert series["history"][0]["actor"]["user"]
    assert series["changed_by"] == series["history"][1]["event"]
    assert tuple(series["because"].values()) == (0, [], *THREADS)
    rows = still("blame", made(third, slot, "report"), "parity.max_abs").rows
    assert [r[0] for r in rows] == ["", "changed", "", "because"]
    assert rows[-1] == ["because", "0", "", "parameter threads", "was 2, then 1"]


def test_blame_of_what_was_measured_of_a_plan_and_of_a_release_is_that_of_its_reports(
    still: Still, first: PlanView, second: PlanView
) -> None:
    slot = "export/prefill-8"
    right = still("blame", made(second, slot, "report"), "parity.max_abs", "--json").json
    for ref in (
        made(second, slot, "export"),
        second.plan,
        made(second, "deployment", "release"),
        str(second.slot(slot).key),
    ):
        assert still("blame", ref, "parity.max_abs", "--json").json == right
    earlier = still("blame", first.plan, "parity.max_abs", "--json").json
    assert [len(s["history"]) for s in earlier] == [1], "what came later is not its history"
    assert earlier[0]["changed_by"] is None
    assert "unchanged" in still("blame", first.plan, "parity.max_abs").out


def test_blame_tells_each_slot_or_the_one_that_is_asked_for(
    still: Still, recorder: Recorder, policy: Path
) -> None:
    view = recorder.run(recorder.plan(policy))
    told = still("blame", view.plan, "parity.max_abs", "--json").json
    assert [s["slot"] for s in told] == ["export/prefill-8", "export/prefill-16"]
    one = still("blame", view.plan, "parity.max_abs", "--slot", "export/prefill-16", "--json")
    assert one.json == told[1:]


@pytest.mark.usefixtures("first")
def test_recipes_of_another_name_are_another_history(
    still: Still, recorder: Recorder, policy: Path
) -> None:
    other = recorder.run(recorder.plan(policy, name="other", export=FEWER_THREADS))
    (series,) = still("blame", other.plan, "parity.max_abs", "--json").json
    assert len(series["history"]) == 1


def test_blame_of_what_was_not_measured_lists_what_was(still: Still, first: PlanView) -> None:
    answer = still("blame", first.plan, "parity.max", "--json")
    assert (answer.code, answer.out) == (2, "")
    assert "blame.unknown_metric" in answer.err
    assert "fp32.kl, io.mismatches, parity.max_abs" in answer.err
    for ref in ("policy@latest", "checkpoint@latest"):
        assert "blame.no_report" in still("blame", ref, "parity.max_abs", "--json").err
    assert still("blame", first.plan, "fp32.kl", "--slot", "dataset").code == 2
