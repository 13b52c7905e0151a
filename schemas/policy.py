"""Policy: thresholds and required gates per tier, and the pure judgement over metrics.

A gate is named `<phase>.<what>`; its rule is a list of checks over the metrics of that phase's
report. Verdicts are a closed set. A missing metric never passes: it is `not_run`. A non-finite one
fails. Too few items is `inconclusive`.
"""

from __future__ import annotations

import math
import operator
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field, model_validator

from stillhouse.schemas.report import Metric
from stillhouse.schemas.slot import SlotId
from stillhouse.schemas.value import Value


class Verdict(StrEnum):
    """What a gate can say. `waived` is an event of its own, never a verdict."""

    PASS = "pass"  # noqa: S105  # a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NOT_RUN = "not_run"


class Tier(StrEnum):
    """The release policy level. Never the runtime budget."""

    TIER_1 = "tier_1"
    TIER_2 = "tier_2"
    TIER_3 = "tier_3"


_OPERATORS = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}


class Check(Value):
    """`metric op (value | times * than + plus)`, on at least `min_n` items."""

    metric: str
    op: Literal["<=", ">=", "<", ">", "=="]
    value: float | None = None
    """A fixed threshold …"""
    than: str | None = None
    """… or another metric of the same report, scaled and shifted:"""
    times: float = 1.0
    plus: float = 0.0
    min_n: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_threshold(self) -> Check:
        if (self.value is None) == (self.than is None):
            raise ValueError("a check has either `value` or `than`")
        return self


class Gate(Value):
    """One gate's rule: every check must pass."""

    checks: tuple[Check, ...] = Field(min_length=1)
    slots: str = "*"
    """Shell pattern over slot ids (`verification/decode-*`): which runs of the phase it judges."""


class CheckResult(Value):
    """One check, as it was judged."""

    metric: str
    verdict: Verdict
    value: float | None = None
    op: str
    threshold: float | None = None
    n: int | None = None
    reason: str = ""

    @property
    def text(self) -> str:
        """The check in words: `trained.kl 0.61 <= 0.8`."""
        if self.threshold is None or self.value is None:
            return self.reason or self.metric
        why = f", {self.reason}" if self.reason else ""
        return f"{self.metric} {self.value:.6g} {self.op} {self.threshold:.6g}{why}"

    @property
    def counted(self) -> str:
        """The same, with the items that it was measured over: `… (n = 400)`."""
        return self.text + (f" (n = {self.n})" if self.n is not None else "")


class Policy(Value):
    """Every gate's rule, and which gates a release of each tier requires."""

    name: str
    gates: dict[str, Gate]
    tiers: dict[Tier, tuple[str, ...]]
    """Required gates per tier."""
    capabilities: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Capability -> gates that must all have passed (a waiver does not grant a capability)."""

    @model_validator(mode="after")
    def _known_gates(self) -> Policy:
        for where, names in [*self.tiers.items(), *self.capabilities.items()]:
            for name in names:
                if name not in self.gates:
                    raise ValueError(f"{where} names the gate {name!r}, which has no rule")
        for name in self.gates:
            if "." not in name:
                raise ValueError(f"gate {name!r} must be named <phase>.<what>")
        return self

    def gates_over(self, slot: SlotId) -> tuple[str, ...]:
        """The gates that judge the runs of a slot."""
        return tuple(
            gate
            for gate, rule in self.gates.items()
            if phase_of(gate) == slot.phase and fnmatchcase(str(slot), rule.slots)
        )


def phase_of(gate: str) -> str:
    """The phase whose report a gate judges."""
    return gate.partition(".")[0]


def judge(rule: Gate, metrics: tuple[Metric, ...]) -> tuple[Verdict, tuple[CheckResult, ...]]:
    """The verdict of a gate over a report's metrics: its worst check.

    Order, worst first: fail, not_run, inconclusive, pass.
    """
    known = {m.name: m for m in metrics}
    results = tuple(_check(check, known) for check in rule.checks)
    found = {r.verdict for r in results}
    for worst in (Verdict.FAIL, Verdict.NOT_RUN, Verdict.INCONCLUSIVE):
        if worst in found:
            return worst, results
    return Verdict.PASS, results


def _check(check: Check, known: dict[str, Metric]) -> CheckResult:
    def result(verdict: Verdict, reason: str = "", threshold: float | None = None) -> CheckResult:
        return CheckResult(
            metric=check.metric,
            verdict=verdict,
            value=found.value if found else None,
            op=check.op,
            threshold=threshold,
            n=found.n if found else None,
            reason=reason,
        )

    found = known.get(check.metric)
    if found is None:
        return result(Verdict.NOT_RUN, f"{check.metric} was not measured", check.value)
    if found.value is None:
        return result(Verdict.FAIL, f"{check.metric} is {found.nonfinite}", check.value)
    threshold, reason = _threshold(check, known)
    if threshold is None:
        return result(Verdict.NOT_RUN, reason)
    if check.min_n and (found.n is None or found.n < check.min_n):
        return result(Verdict.INCONCLUSIVE, f"needs {check.min_n} items", threshold)
    passed = _OPERATORS[check.op](found.value, threshold)
    return result(Verdict.PASS if passed else Verdict.FAIL, "", threshold)


def _threshold(check: Check, known: dict[str, Metric]) -> tuple[float | None, str]:
    if check.value is not None:
        return check.value, ""
    assert check.than is not None  # noqa: S101  # the model's validator allows nothing else
    other = known.get(check.than)
    if other is None or other.value is None:
        return None, f"{check.than}, which it is compared with, was not measured or is not finite"
    threshold = check.times * other.value + check.plus
    if not math.isfinite(threshold):
        return None, f"{check.than}, scaled and shifted, is no finite number"
    return threshold, ""
