"""What a run measures: how large numbers grew, and where the first non-finite one was born.

Rules: only float results of operations that compute are measured; constants, inputs and moved
numbers are not. Every NaN counts, in each result that holds it. An infinity counts where it is
born: in a result none of whose operands holds an infinity of the same sign. So a causal mask of
-inf is no finding; an overflow to +inf beside it is, and so is what turns it into NaN. (An overflow
to -inf in the very operation that adds such a mask is not seen.) Attention's scores, which no
result shows, are measured by themselves: each that fp16 cannot hold counts as one born there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

FLOAT16_MAX = 65504.0
"""The largest finite fp16 number. Above it (from 65520 on) rounding gives infinity."""


@dataclass(frozen=True, kw_only=True)
class RunStats:
    """Measurements of one run."""

    executed: int
    """Operations run, constants not counted."""
    max_abs: float
    """Largest finite |x| of any measured result, before it was rounded to its declared dtype."""
    max_abs_op: str
    """Which operation made it, as `type:result`; empty when nothing was measured."""
    nonfinite: int
    """Non-finite elements: every NaN, and infinities where they are born."""
    first_nonfinite_op: str | None
    """The first operation that made one."""
    attention_peak: float | None
    """Largest |score| inside of an attention, before its mask; None without attention."""


class Tally:
    """Collects the statistics of one run."""

    def __init__(self) -> None:
        self.executed = 0
        self._max_abs = 0.0
        self._max_abs_op = ""
        self._nonfinite = 0
        self._first: str | None = None
        self._attention_peak: float | None = None

    def measure(self, label: str, raw: Tensor, rounded: Tensor, operands: Iterable[Tensor]) -> None:
        """Take one float result into account: as computed, and as rounded to its dtype."""
        if raw.numel() == 0:
            return
        peak = _peak(raw)
        if not math.isfinite(peak):
            finite = raw[raw.isfinite()]
            self._grow(label, _peak(finite) if finite.numel() else 0.0)
        else:
            self._grow(label, peak)
        if not peak <= FLOAT16_MAX:  # also when it is NaN
            self._count(label, rounded, operands)

    def measure_scores(self, label: str, scores: Tensor, *, rounds: bool) -> None:
        """Take the scores inside of an attention into account.

        `rounds`: whether the operation is declared in fp16 and run so; only then a score may be too
        large.
        """
        if scores.numel() == 0:
            return
        peak = _peak(scores)
        self._attention_peak = _larger(self._attention_peak, peak)
        if rounds and not peak <= FLOAT16_MAX:
            # NaN was counted where it was born, or is in the attention's result.
            self._born(label, int((scores.abs() > FLOAT16_MAX).sum()))

    def stats(self) -> RunStats:
        """The measurements so far."""
        return RunStats(
            executed=self.executed,
            max_abs=self._max_abs,
            max_abs_op=self._max_abs_op,
            nonfinite=self._nonfinite,
            first_nonfinite_op=self._first,
            attention_peak=self._attention_peak,
        )

    def _grow(self, label: str, peak: float) -> None:
        if peak > self._max_abs:
            self._max_abs, self._max_abs_op = peak, label

    def _count(self, label: str, result: Tensor, operands: Iterable[Tensor]) -> None:
        floats = [operand for operand in operands if operand.is_floating_point()]
        born = int(result.isnan().sum()) + sum(
            int(infinite(result).sum())
            for infinite in (torch.isposinf, torch.isneginf)
            if not any(bool(infinite(operand).any()) for operand in floats)
        )
        self._born(label, born)

    def _born(self, label: str, count: int) -> None:
        self._nonfinite += count
        if count and self._first is None:
            self._first = label


def _larger(one: float | None, other: float) -> float:
    """The larger of both, where NaN is larger than any number."""
    return other if one is None or math.isnan(other) or other > one else one


def _peak(values: Tensor) -> float:
    """Largest |x|; NaN or infinity when there is one."""
    low, high = values.aminmax()
    return max(-float(low), float(high)) if not torch.isnan(low) else math.nan
