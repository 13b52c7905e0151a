from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stillhouse.schemas.policy import Check, Gate, Policy, Verdict, judge
from stillhouse.schemas.report import Metric, metric
from stillhouse.schemas.slot import SlotId


def _verdict(*checks: Check, metrics: tuple[Metric, ...]) -> Verdict:
    return judge(Gate(checks=checks), metrics)[0]


KL = Check(metric="kl", op="<=", value=0.8)


@pytest.mark.parametrize(
    ("metrics", "verdict"),
    [
        ((metric("kl", 0.8),), Verdict.PASS),
        ((metric("kl", 0.81),), Verdict.FAIL),
        ((metric("other", 0.1),), Verdict.NOT_RUN),
        ((), Verdict.NOT_RUN),
        ((metric("kl", math.nan),), Verdict.FAIL),
        ((metric("kl", -math.inf),), Verdict.FAIL),
        ((metric("kl", -1e30),), Verdict.FAIL),
    ],
)
def test_only_a_measured_finite_value_within_the_threshold_passes(
    metrics: tuple[Metric, ...], verdict: Verdict
) -> None:
    assert _verdict(KL, metrics=metrics) is verdict


def test_too_few_items_are_inconclusive_even_when_the_value_is_good() -> None:
    check = Check(metric="slots", op=">=", value=0.5, min_n=150)
    assert _verdict(check, metrics=(metric("slots", 0.9, n=149),)) is Verdict.INCONCLUSIVE
    assert _verdict(check, metrics=(metric("slots", 0.9),)) is Verdict.INCONCLUSIVE
    assert _verdict(check, metrics=(metric("slots", 0.9, n=150),)) is Verdict.PASS


def test_a_threshold_can_be_another_metric_scaled_and_shifted() -> None:
    check = Check(metric="trained", op=">=", than="untrained", times=2, plus=0.1)
    good = (metric("trained", 0.5), metric("untrained", 0.2))
    assert _verdict(check, metrics=good) is Verdict.PASS
    assert judge(Gate(checks=(check,)), good)[1][0].threshold == pytest.approx(0.5)
    assert _verdict(check, metrics=(metric("trained", 0.5),)) is Verdict.NOT_RUN
    lost = (metric("trained", 0.5), metric("untrained", math.nan))
    assert _verdict(check, metrics=lost) is Verdict.NOT_RUN


def test_the_worst_check_decides() -> None:
    second = Check(metric="b", op="<=", value=1)
    assert _verdict(KL, second, metrics=(metric("kl", 0.1),)) is Verdict.NOT_RUN
    assert _verdict(KL, second, metrics=(metric("kl", 9.0),)) is Verdict.FAIL


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_pass_always_rests_on_a_finite_number(value: float) -> None:
    if _verdict(KL, metrics=(metric("kl", value),)) is Verdict.PASS:
        assert math.isfinite(value)
        assert value <= 0.8


def test_a_gate_judges_the_slots_of_its_phase_that_match_its_pattern() -> None:
    every, decode = Gate(checks=(KL,)), Gate(checks=(KL,), slots="verification/decode-*")
    gates = {"verification.x": decode, "verification.y": every, "export.x": every}
    policy = Policy(name="p", gates=gates, tiers={})
    for slot, judged in {
        "verification/decode-128": ("verification.x", "verification.y"),
        "verification/prefill-128": ("verification.y",),
        "export/prefill-128": ("export.x",),
        "training": (),
    }.items():
        assert policy.gates_over(SlotId.parse(slot)) == judged


@pytest.mark.parametrize(
    "document",
    [
        {"gates": {}, "tiers": {"tier_2": ["a.b"]}},
        {"gates": {"nodot": {"checks": [{"metric": "m", "op": "<=", "value": 1}]}}, "tiers": {}},
        {"gates": {"a.b": {"checks": []}}, "tiers": {}},
        {"gates": {"a.b": {"checks": [{"metric": "m", "op": "<="}]}}, "tiers": {}},
        {
            "gates": {"a.b": {"checks": [{"metric": "m", "op": "<=", "value": 1, "than": "n"}]}},
            "tiers": {},
        },
        {"gates": {}, "tiers": {"tier_9": []}},
        {"gates": {}, "tiers": {}, "capabilities": {"c": ["a.b"]}},
    ],
)
def test_a_policy_that_cannot_be_judged_by_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate({"name": "p"} | document)
