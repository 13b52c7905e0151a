"""How close the student is to the teacher on texts it never trains on.

Measured in the training's own precision over the cached top k + tail, as a curve. The evaluation
phase measures again, in fp32 and over the whole vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from stillhouse.phases.models import Student
from stillhouse.phases.numerics import distances as numerics
from stillhouse.phases.training.examples import Batch, Example, batches
from stillhouse.phases.training.step import answer_logits, not_finite
from stillhouse.schemas.value import Value

_RESAMPLES = 1000


class Share(Value):
    """A mean over answer positions with its 95 % interval (bootstrap over examples)."""

    mean: float
    low: float
    high: float


class HeldOut(Value):
    """One point of the held-out curve."""

    step: int
    """Optimizer steps taken before it."""
    kl: Share
    """Nats per position, cached top k + tail, temperature 1."""
    top1_agreement: Share
    nll: Share
    """Of the answer's own tokens, nats per position; perplexity is its exponential."""
    positions: int


@torch.no_grad()
def measure(
    student: Student, examples: Sequence[Example], *, step: int, batch_size: int, bf16: bool
) -> HeldOut:
    """Measure the student after `step` steps.

    Raises PhaseError when its predictions are not finite.
    """
    ordered = sorted(examples, key=lambda e: e.fed)
    rows = [_means(student, b, bf16=bf16) for b in batches(ordered, batch_size)]
    means = torch.cat(rows)
    weights = [e.cached.n for e in ordered]
    kl, agreement, nll = (_share(column.tolist(), weights, step=step) for column in means.T)
    return HeldOut(step=step, kl=kl, top1_agreement=agreement, nll=nll, positions=sum(weights))


def _means(student: Student, batch: Batch, *, bf16: bool) -> torch.Tensor:
    """Mean KL, agreement and NLL of each example, [B, 3] in fp64."""
    logits = answer_logits(student, batch, bf16=bf16)
    each = (
        numerics.kl_topk_tail(logits, batch.top_ids, batch.top_logprobs, batch.tail),
        logits.argmax(-1) == batch.top_ids[:, 0],
        numerics.negative_log_likelihood(logits, batch.gold_ids),
    )
    values = torch.stack([e.double() for e in each], dim=1)
    size = len(batch.input_ids)
    sums = torch.zeros(size, 3, dtype=torch.float64).index_add_(0, batch.rows, values)
    return sums / batch.rows.bincount(minlength=size)[:, None]


def _share(values: list[float], weights: list[int], *, step: int) -> Share:
    mean = math.fsum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
    if not math.isfinite(mean):
        raise not_finite(f"Predictions on held-out text are {mean} after {step} steps.")
    low, high = numerics.bootstrap_interval(values, weights, resamples=_RESAMPLES, seed=0)
    return Share(mean=mean, low=low, high=high)
