"""What is explained at the command line: `why`, `why-not`, and waivers in `gates`."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from stillhouse.phases import environment
from stillhouse.registry.planning.remedies import REMEDIES
from stillhouse.registry.planning.views import Reason
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.events import GateWaived, PlanCancelled, RunAbandoned
from stillhouse.session import Session

from .conftest import POLICY, Still
from .recorded import Recorder

FIRST = "export/prefill-8"
ONE_SHAPE = {"prefill": [8], "primary": 8}
TOO_FAR = {FIRST: {"parity.max_abs": 0.5}}


@pytest.fixture
def recorder(session: Session, tmp_path: Path) -> Recorder:
    return Recorder(session=session, scratch=tmp_path / "scratch")


@pytest.fixture
def done(recorder: Recorder, policy: Path) -> Digest:
    """A plan that came to a release."""
    plan = recorder.plan(policy, export=ONE_SHAPE)
    assert recorder.run(plan).done
    return plan


@pytest.fixture
def closed(recorder: Recorder, policy: Path) -> Digest:
    """A plan that a closed gate keeps from its release."""
    recorder.measured = TOO_FAR
    plan = recorder.plan(policy, export=ONE_SHAPE)
    assert not recorder.run(plan).done
    return plan


@pytest.fixture
def going_on(recorder: Recorder, policy: Path) -> Digest:
    """A plan whose first run goes on."""
    recorder.going_on = {FIRST}
    plan = recorder.plan(policy, export=ONE_SHAPE)
    recorder.run(plan)
    return plan


def _waive(session: Session, still: Still, until: str) -> Digest:
    """Record a waiver over the closed gate, perhaps one that is over; its subject."""
    (failed,) = [g for g in still("gates", "--json").json if g["verdict"] == "fail"]
    session.ledger.append(
        [
            GateWaived(
                gate="export.parity",
                subject=failed["subject"],
                author="ada",
                reason="known",
                until=until,
            )
        ]
    )
    subject: Digest = failed["subject"]
    return subject


def _hold(path: Path) -> int:
    """Hold a run's lock, as its worker does; closing it is the worker's end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _only(told: list[dict[str, Any]]) -> dict[str, Any]:
    (one,) = told
    return one


def test_every_reason_says_what_can_be_done_about_it() -> None:
    assert set(REMEDIES) == {reason.code for reason in Reason}
    assert {code for code, remedy in REMEDIES.items() if not remedy} == {"succeeded", "reused"}


# -- why-not ------------------------------------------------------------------------------------


def test_why_not_goes_down_to_the_slot_that_is_the_cause(
    still: Still, session: Session, going_on: Digest
) -> None:
    run = _only(still("runs", "--json").json)["run"]
    worker = _hold(session.home.run(run) / "lock")
    answer = still("why-not", "verification/prefill-8")
    assert [row[:2] for row in answer.rows] == [
        ["verification/prefill-8", "waiting"],
        ["conversion/prefill-8", "waiting"],
        [FIRST, "running"],
    ]
    assert f"still logs {run[:SHORT]} --follow" in answer.err
    told = _only(still("why-not", "verification/prefill-8", "--json").json)
    assert (told["reason"], told["text"]) == ("input_pending", "an input is still being made")
    assert told["cause"]["slot"] == FIRST
    assert told["cause"]["reason"] == "runs"
    assert told["cause"]["through"] == ["verification/prefill-8", "conversion/prefill-8"]
    assert session.state().wants(going_on)
    os.close(worker)
    told = _only(still("why-not", "verification/prefill-8", "--json").json)["cause"]
    assert told["reason"] == "not_advanced"
    assert told["detail"].endswith("its worker is gone")


def test_why_not_of_what_failed_far_up_says_so_and_what_to_do(
    still: Still, recorder: Recorder, policy: Path
) -> None:
    recorder.failing = {FIRST}
    plan = recorder.plan(policy, export=ONE_SHAPE)
    recorder.run(plan)
    cause = _only(still("why-not", "release", "--json").json)["cause"]
    assert (cause["slot"], cause["reason"]) == (FIRST, "run_failed")
    assert "It broke." in cause["detail"]
    assert f"still retry {cause['run'][:SHORT]}" in cause["remedy"]
    # Of a plan that nobody wants a retry alone would move nothing.
    recorder.session.ledger.append([PlanCancelled(plan=plan)])
    cause = _only(still("why-not", "release", "--json").json)["cause"]
    assert f"still run {plan[:SHORT]}" in cause["remedy"]


def test_why_not_of_what_is_ready_says_that_nobody_advances_or_that_no_worker_is_free(
    still: Still, session: Session, recorder: Recorder, policy: Path
) -> None:
    recorder.going_on = {FIRST}
    plan = recorder.plan(policy)
    recorder.going_on = {FIRST, "export/prefill-16"}
    reactor = session.reactor()
    recorder.run(plan)
    run = next(r for r in session.state().running() if r.started.slot == "export/prefill-16")
    common = {"run": run.key, "phase": "export", "plan": plan, "slot": run.started.slot}
    gone = RunAbandoned(**common, attempt=1, reason="stopped", stopped=True)
    session.ledger.append([gone])
    assert "still watch" in still("why-not", "export/prefill-16").err
    told = _only(still("why-not", "export/prefill-16", "--json").json)
    assert (told["status"], told["cause"]["reason"]) == ("ready", "not_advanced")
    with reactor.advancing() as mine:
        assert mine
        told = _only(still("why-not", "export/prefill-16", "--json").json)
        assert told["cause"]["reason"] == "workers_busy"
        session.home.config.write_text("workers = 2\n[phases.export]\nworkers = 1\n", "utf-8")
        told = _only(still("why-not", "export/prefill-16", "--json").json)
        assert told["cause"]["reason"] == "phase_busy"
        assert "[phases.export]" in told["cause"]["remedy"]


def test_why_not_of_a_plan_that_nobody_asks_for(
    still: Still, session: Session, recorder: Recorder, policy: Path
) -> None:
    plan = recorder.plan(policy, export=ONE_SHAPE)
    session.ledger.append([PlanCancelled(plan=plan)])
    told = _only(still("why-not", "deployment", "--plan", plan, "--json").json)
    assert told["cause"]["reason"] == "not_asked_for"
    assert f"still run {plan[:SHORT]}" in told["cause"]["remedy"]


def test_why_not_of_a_gate_names_the_check_and_its_numbers(still: Still, closed: Digest) -> None:
    assert closed
    answer = still("why-not", "export.parity")
    assert answer.code == 0
    (row,) = answer.rows
    assert row[:3] == ["export.parity", FIRST, "fail"]
    assert row[3] == "fail: parity.max_abs 0.5 <= 0.1 (n = 8) does not hold"
    assert "still waive export.parity" in answer.err
    told = _only(still("why-not", "release", "--json").json)["cause"]
    assert (told["reason"], told["gate"]["gate"]) == ("gate_closed", "export.parity")
    assert told["gate"]["checks"][0]["threshold"] == 0.1


def test_why_not_of_a_gate_names_what_was_not_measured(
    still: Still, recorder: Recorder, policy: Path
) -> None:
    recorder.measured = {FIRST: {"other": 1.0}}
    recorder.run(recorder.plan(policy, export=ONE_SHAPE))
    told = _only(still("why-not", "export.parity", "--json").json)
    assert told["verdict"] == "not_run"
    assert told["why"] == "not_run: parity.max_abs was not measured"


def test_why_not_of_a_gate_that_has_nothing_to_judge_names_the_slot_that_feeds_it(
    still: Still, going_on: Digest
) -> None:
    assert going_on
    told = _only(still("why-not", "export.parity", "--json").json)
    assert f"{FIRST}, which feeds it, is running" in told["why"]
    assert (told["cause"]["slot"], told["cause"]["reason"]) == (FIRST, "not_advanced")
    assert still("why-not", "export.parity").rows[1][1:3] == [FIRST, "running"]


def test_why_not_of_a_gate_that_no_slot_feeds_says_what_the_recipe_lacks(
    still: Still, recorder: Recorder, place: Path
) -> None:
    first = '"environment.versions", '
    gates = POLICY.replace(first, first + '"evaluation.kl", ')
    gates += '[gates."evaluation.kl"]\nchecks = [{ metric = "kl", op = "<=", value = 1 }]\n'
    (place / "other.toml").write_text(gates, encoding="utf-8")
    recorder.run(recorder.plan(place / "other.toml", export=ONE_SHAPE))
    told = _only(still("why-not", "evaluation.kl", "--json").json)
    assert "its recipe has no [evaluation]" in told["why"]
    decode = _only(still("why-not", "export.prefill_decode", "--json").json)
    assert "none is named like 'export/decode-*'" in decode["why"]
    assert "evaluation.kl" in still("why-not", "release").out


def test_why_not_of_a_gate_over_a_skipped_shape(
    still: Still, recorder: Recorder, place: Path
) -> None:
    gates = POLICY + (
        '[gates."conversion.x"]\nslots = "conversion/prefill-16"\n'
        'checks = [{ metric = "io.mismatches", op = "<=", value = 1 }]\n'
    )
    (place / "other.toml").write_text(gates, encoding="utf-8")
    recorder.failing = {"export/prefill-16"}
    recorder.run(recorder.plan(place / "other.toml"))
    told = _only(still("why-not", "conversion.x", "--json").json)
    assert "conversion/prefill-16 was skipped" in told["why"]


def test_why_not_of_what_ran_says_what_would_make_it_run_again(
    still: Still, done: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert done
    told = _only(still("why-not", "conversion", "--json").json)
    assert (told["cause"]["reason"], told["again"], told["cause"]["remedy"]) == (
        "succeeded",
        "",
        "",
    )
    real = environment.probe()
    packages = {**real.packages, "coremltools": "99"}
    monkeypatch.setattr(
        "stillhouse.phases.environment.probe",
        lambda: environment.Environment(**{**vars(real), "packages": packages}),
    )
    told = _only(still("why-not", "conversion", "--json").json)
    assert told["status"] == "filled"
    assert told["again"].startswith("asked for now, conversion/prefill-8 would run anew: tool core")
    assert told["again"].endswith("now it is 99")
    assert told["again"] in still("why-not", "conversion").out
    assert _only(still("why-not", "export", "--json").json)["again"] == ""


def test_why_ends_in_the_same_cause_as_why_not(
    still: Still, recorder: Recorder, policy: Path
) -> None:
    recorder.failing = {FIRST}
    recorder.run(recorder.plan(policy, export=ONE_SHAPE))
    told = _only(still("why", "deployment", "--json").json)["cause"]
    assert told["slot"] == FIRST
    assert told == _only(still("why-not", "release", "--json").json)["cause"]
    answer = still("why", "deployment")
    assert answer.rows[-1][1:4] == ["cause", FIRST, "failed"]
    assert "still retry" in answer.err


def test_why_not_of_a_tier_or_a_capability_names_the_first_gate_that_it_lacks(
    still: Still, recorder: Recorder, place: Path
) -> None:
    recorder.measured = TOO_FAR
    claims = '[capabilities]\nexact = ["export.causality", "export.parity"]\n'
    claims += 'causal = ["export.causality"]\nstreams = ["export.prefill_decode"]\n'
    (place / "other.toml").write_text(POLICY + claims, encoding="utf-8")
    recorder.run(recorder.plan(place / "other.toml", export=ONE_SHAPE))
    for target in ("tier_2", "exact"):
        told = still("why-not", target, "--json").json
        assert (told["lacks"]["gate"], told["lacks"]["verdict"]) == ("export.parity", "fail")
        assert "parity.max_abs 0.5 <= 0.1" in still("why-not", target).out
    assert still("why-not", "causal", "--json").json["lacks"] is None
    assert "none is named like" in still("why-not", "streams", "--json").json["lacks"]["why"]


def test_a_waiver_lets_a_tier_through_and_grants_no_capability(
    still: Still, session: Session, recorder: Recorder, place: Path
) -> None:
    recorder.measured = TOO_FAR
    claims = '[capabilities]\nexact = ["export.parity"]\n'
    (place / "other.toml").write_text(POLICY + claims, encoding="utf-8")
    recorder.run(recorder.plan(place / "other.toml", export=ONE_SHAPE))
    _waive(session, still, "2999-01-01T00:00:00Z")
    assert still("why-not", "tier_2", "--json").json["lacks"] is None
    assert still("why-not", "exact", "--json").json["lacks"]["gate"] == "export.parity"


@pytest.mark.parametrize("verb", ["why", "why-not"])
def test_the_environment_is_explained_by_the_gates_over_it(
    still: Still, done: Digest, verb: str
) -> None:
    assert done
    told = _only(still(verb, "environment", "--json").json)
    assert (told["gate"], told["open"]) == ("environment.versions", True)


def test_why_not_of_nothing_known_names_slots_and_gates(
    still: Still, recorder: Recorder, policy: Path
) -> None:
    plan = recorder.plan(policy, export=ONE_SHAPE, deployment=None)
    recorder.run(plan)
    answer = still("why-not", "exprot")
    assert answer.code == 2
    assert FIRST in answer.err
    assert "export.parity" in answer.err
    none = still("why-not", "release")
    assert none.code == 2
    assert "[deployment]" in none.err


@pytest.mark.usefixtures("home")
def test_why_not_without_any_plan_names_the_next_step(still: Still) -> None:
    assert "still run RECIPE" in still("why-not", "training").err


# -- why ----------------------------------------------------------------------------------------


def test_why_of_a_run_to_come_says_what_of_its_key_is_new(
    still: Still, recorder: Recorder, policy: Path, done: Digest
) -> None:
    assert done
    recorder.plan(policy, export=ONE_SHAPE | {"threads": 1})
    told = _only(still("why", "export", "--json").json)
    assert told["status"] == "ready"
    assert told["ran"]["because"] == "parameter threads was 2, then 1"
    assert "is to run because" in still("why", "export").out


def test_why_of_a_reused_slot_says_which_run_of_which_plan(
    still: Still, recorder: Recorder, policy: Path, done: Digest
) -> None:
    recorder.run(recorder.plan(policy, export=ONE_SHAPE, name="other"))
    told = _only(still("why", FIRST, "--json").json)
    assert (told["reason"], told["from"]["plan"], told["from"]["name"]) == ("reused", done, "small")
    (row,) = [row for row in still("why", FIRST).rows if row[1] == "from"]
    assert told["from"]["run"] in row[2]
    assert done in row[3]


def test_why_of_a_gate_that_passed_shows_the_numbers(still: Still, done: Digest) -> None:
    assert done
    (row,) = still("why", "export.parity").rows
    assert row == [
        "export.parity",
        FIRST,
        "pass",
        "it passed: parity.max_abs 0.01 <= 0.1 (n = 8)",
    ]


def test_why_of_a_run_says_how_it_ended(still: Still, recorder: Recorder, policy: Path) -> None:
    recorder.failing = {FIRST}
    recorder.run(recorder.plan(policy, export=ONE_SHAPE))
    key = _only(still("runs", "--status", "failed", "--json").json)["run"]
    assert still("why", key).rows[0][1:] == ["failed", f"run {key}", "it failed: It broke"]
    assert still("why", key, "--json").json["status"] == "failed"


# -- waivers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("until", "state"), [("2001-01-01T00:00:00Z", "expired"), ("2999-01-01T00:00:00Z", "active")]
)
def test_waivers_are_shown_with_author_reason_end_and_whether_they_hold(
    still: Still, session: Session, closed: Digest, until: str, state: str
) -> None:
    assert closed
    subject = _waive(session, still, until)
    (gate,) = [g for g in still("gates", "--json").json if g["waivers"]]
    assert gate["gate"] == "export.parity"
    told = _only(gate["waivers"])
    assert told.pop("seq") == session.ledger.head().seq
    assert told == {"state": state, "author": "ada", "reason": "known", "until": until}
    assert bool(gate["waiver"]) == (state == "active")
    (row,) = [row for row in still("gates").rows if row[0] == "export.parity"]
    assert row[-1] == f"{state}: by ada until {until}: known"
    over = {g["gate"]: g["waivers"] for g in still("gates", subject, "--json").json}
    assert [w["state"] for w in over["export.parity"]] == [state]
    assert over["export.causality"] == []
    assert row[-1] in still("gates", subject).out


def test_a_gate_whose_waiver_expired_blocks_and_says_whose_it_was(
    still: Still, session: Session, closed: Digest
) -> None:
    _waive(session, still, "2001-01-01T00:00:00Z")
    told = _only(still("why-not", "export.parity", "--json").json)
    assert not told["open"]
    assert told["why"].endswith("its waiver is expired: by ada until 2001-01-01T00:00:00Z: known")
    assert still("manifest", closed[:8]).code == 1
    _waive(session, still, "2999-01-01T00:00:00Z")
    told = _only(still("why-not", "export.parity", "--json").json)
    assert told["open"]
    assert "active: by ada" in told["why"]
    assert [w["state"] for w in told["waivers"]] == ["expired", "active"]
