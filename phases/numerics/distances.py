"""Distances between next-token distributions, and the intervals around what is measured.

Pure functions over tensors and arrays. Rules: every logarithm is natural and every divergence is in
nats per position; half-precision logits are widened to fp32 before any exponential, fp64 stays;
nothing here averages over padding, because callers pass real positions only; a sum over no position
is 0, never NaN.

Words: p is the teacher, q the student; N counts positions, V the vocabulary, k the cached tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_CONFIDENCE_TAIL = 0.025
"""On each side of a 95 % interval."""
_Z = 1.959963984540054
"""The standard normal quantile of 1 - _CONFIDENCE_TAIL."""


def kl_full(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """KL(p || q) = Σ_v p_v (ln p_v - ln q_v) over the whole vocabulary, two [N, V] -> [N].

    Never negative: what rounding leaves below 0 is set to 0. A teacher logit of -inf is a token of
    probability 0 and contributes nothing.
    """
    return _kl(_widen(teacher_logits).log_softmax(-1), _widen(student_logits).log_softmax(-1))


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """A student's logits, gathered into k tokens and everything else."""

    logmass: Tensor
    """[N, k+1]: unnormalised log mass of each cached token and, last, of the tail."""
    total: Tensor
    """[N]: ln Σ_v exp(logit_v)."""


def buckets(student_logits: Tensor, top_ids: Tensor) -> Buckets:
    """Gather [N, V] logits into the [N, k] cached tokens plus one tail.

    The tail is summed over the tokens that are in it, not taken as 1 - Σ top, which cancels to
    nothing (or below) in fp32 once the student is confident.
    """
    logits = _widen(student_logits)
    top = logits.gather(-1, top_ids)
    tail = logits.scatter(-1, top_ids, -math.inf).logsumexp(-1, keepdim=True)
    logmass = torch.cat((top, tail), dim=-1)
    return Buckets(logmass=logmass, total=logmass.logsumexp(-1))


def kl_topk_tail(
    student_logits: Tensor,
    top_ids: Tensor,
    top_logprobs: Tensor,
    tail_logmass: Tensor,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Forward KL over k+1 buckets, at temperature T and multiplied by T², -> [N].

    `top_ids`, `top_logprobs` are [N, k], `tail_logmass` is [N], at temperature 1. With P the
    teacher's buckets (p_1 … p_k, 1 - Σ p_i) and Q the student's over the same tokens:

        P_T ∝ P^(1/T),  Q_T ∝ Q^(1/T),  value = T² · KL(P_T || Q_T)

    At T = 1 it is a lower bound of kl_full (data-processing inequality) and equals it when k = V.
    At T ≠ 1 the tail cannot be tempered token by token, since the cache holds only its sum; both
    sides are therefore tempered as distributions over k+1 outcomes. That is still 0 exactly when
    the buckets agree, and equals full tempered KL when k = V. T² keeps the gradient's scale as T
    grows (Hinton, Vinyals and Dean 2015). The teacher's fp16 rounding is normalised away.
    """
    mine = buckets(student_logits, top_ids)
    return _kl_buckets(mine, top_logprobs, tail_logmass, temperature)


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Sums over positions, in nats."""

    kl: Tensor
    """Σ kl_topk_tail."""
    ce: Tensor
    """Σ -ln q(gold token)."""


def distillation_sums(
    student_logits: Tensor,
    gold_ids: Tensor,
    top_ids: Tensor,
    top_logprobs: Tensor,
    tail_logmass: Tensor,
    *,
    temperature: float = 1.0,
) -> Losses:
    """Both terms of the distillation loss from one pass over the [N, V] logits.

    Sums, not means: whoever knows how many positions an optimizer step has divides by that, so that
    how the step is cut into micro-batches changes no gradient. No position: both are 0.
    """
    mine = buckets(student_logits, top_ids)
    gold = _widen(student_logits).gather(-1, gold_ids[:, None])[:, 0]
    kl = _kl_buckets(mine, top_logprobs, tail_logmass, temperature)
    return Losses(kl=kl.sum(), ce=(mine.total - gold).sum())


def top1_agreement(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """Where both say the same most likely token: two [N, V] -> [N], 0 or 1 in fp32."""
    return (teacher_logits.argmax(-1) == student_logits.argmax(-1)).float()


def negative_log_likelihood(logits: Tensor, gold_ids: Tensor) -> Tensor:
    """-ln q(gold token) of each position: [N, V], [N] -> [N]."""
    return functional.cross_entropy(_widen(logits), gold_ids, reduction="none")


def perplexity(total_nll: float, positions: int) -> float:
    """exp(total_nll / positions); NaN over no position, inf when it overflows."""
    if positions == 0:
        return math.nan
    try:
        return math.exp(total_nll / positions)
    except OverflowError:
        return math.inf


def bootstrap_interval(
    values: Sequence[float], weights: Sequence[float], *, resamples: int, seed: int
) -> tuple[float, float]:
    """95 % percentile interval of Σ w v / Σ w, resampling whole items (Efron 1979).

    `values[i]` is the mean over item i (an example), `weights[i]` its positions. Positions of one
    example depend on each other, so examples are drawn, not positions. No item: (NaN, NaN).
    """
    v, w = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if v.size == 0 or w.sum() <= 0:
        return math.nan, math.nan
    random = np.random.default_rng(seed)
    drawn = random.multinomial(v.size, np.full(v.size, 1 / v.size), size=resamples)
    mass = drawn @ w
    means = (drawn @ (w * v))[mass > 0] / mass[mass > 0]
    low, high = np.quantile(means, [_CONFIDENCE_TAIL, 1 - _CONFIDENCE_TAIL])
    return float(low), float(high)


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927), within [0, 1]; (0, 1) when n is 0."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    share, z2 = successes / n, _Z * _Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def _kl_buckets(
    student: Buckets, top_logprobs: Tensor, tail_logmass: Tensor, temperature: float
) -> Tensor:
    teacher = torch.cat((top_logprobs, tail_logmass[:, None]), dim=-1).to(student.logmass.dtype)
    log_p = (teacher / temperature).log_softmax(-1)
    log_q = (student.logmass / temperature).log_softmax(-1)
    return _kl(log_p, log_q) * temperature**2


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Σ p (ln p - ln q) of normalised log-probabilities; terms with p = 0 are 0."""
    difference = torch.where(log_p == -math.inf, 0.0, log_p - log_q)
    return (log_p.exp() * difference).sum(-1).clamp_min(0.0)


def _widen(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
