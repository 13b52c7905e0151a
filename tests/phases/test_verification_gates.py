"""What the shipped policies say of a package's figures: good ones pass, each bad one stops it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from stillhouse.schemas.policy import Policy, Verdict, judge
from stillhouse.schemas.report import Metric, metric

ROOT = Path(__file__).parents[2]
SHIPPED = (
    "examples/policies/demo.toml",
    "examples/policies/smoke.toml",
    "cli/daemon/built_in_policy.toml",
)
GOOD = {
    "fp32.top1_agreement": 1.0,
    "fp32.kl": 7e-6,
    "fp32.max_abs": 0.053,
    "fp32.cache.relative": 1.6e-3,
    "declared.top1_agreement": 0.992,
    "declared.kl": 4e-5,
    "declared.max_abs": 0.144,
    "declared.nonfinite": 0.0,
    "declared.cache.relative": 3.7e-3,
    "text.held_out": 1.0,
}
"""What the demo's 20-layer student measured."""
GATES = ("verification.numeric_fp32", "verification.numeric_fp16", "verification.caches")


def figures(wrong: Mapping[str, float] | None = None, n: int = 128) -> tuple[Metric, ...]:
    return tuple(metric(name, value, n=n) for name, value in {**GOOD, **(wrong or {})}.items())


@pytest.fixture(params=SHIPPED)
def policy(request: pytest.FixtureRequest) -> Policy:
    return Policy.model_validate(tomllib.loads((ROOT / request.param).read_text("utf-8")))


@pytest.mark.parametrize("gate", GATES)
def test_what_the_demo_measured_passes_in_every_tier(policy: Policy, gate: str) -> None:
    assert judge(policy.gates[gate], figures())[0] is Verdict.PASS
    strictest = [tier for name, tier in policy.tiers.items() if name != "tier_3"]
    assert all(gate in tier for tier in strictest)
    assert all("verification.caches" in tier for tier in policy.tiers.values())


@pytest.mark.parametrize(
    ("gate", "wrong"),
    [
        ("verification.caches", {"fp32.cache.relative": 1.4}),
        ("verification.caches", {"declared.cache.relative": 0.02}),
        ("verification.numeric_fp32", {"fp32.max_abs": 5.0}),
        ("verification.numeric_fp16", {"declared.max_abs": 5.0}),
    ],
)
def test_one_bad_distance_fails(policy: Policy, gate: str, wrong: dict[str, float]) -> None:
    assert judge(policy.gates[gate], figures(wrong))[0] is Verdict.FAIL


@pytest.mark.parametrize("gate", GATES[:2])
def test_a_few_positions_conclude_nothing(policy: Policy, gate: str) -> None:
    assert judge(policy.gates[gate], figures(n=4))[0] is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("name", SHIPPED[:2])
def test_golden_tokens_are_not_the_text_of_a_recipe_with_a_data_set(name: str) -> None:
    policy = Policy.model_validate(tomllib.loads((ROOT / name).read_text("utf-8")))
    rule = policy.gates["verification.text"]
    assert judge(rule, figures({"text.held_out": 0}))[0] is Verdict.FAIL
    assert judge(rule, figures())[0] is Verdict.PASS
