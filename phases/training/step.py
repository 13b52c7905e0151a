"""One optimizer step: the loss, its gradient over micro-batches, and the learning rate.

Rule: the loss of a step is the sum over all its answer positions divided by their number, whatever
the micro-batches are; averaging each micro-batch first would weigh a position by how much padding
its neighbours have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from stillhouse.phases.models import Student
from stillhouse.phases.numerics.distances import distillation_sums
from stillhouse.phases.training.examples import Batch
from stillhouse.schemas.errors import PhaseError
from stillhouse.schemas.recipe import TrainingSection

_FLOOR = 0.1
"""The learning rate at the last step, as a share of the highest."""


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """What one optimizer step did."""

    loss: float
    """kl_weight · kl + ce_weight · ce, nats per answer position."""
    kl: float
    """Over the cached tokens and the tail, at the training temperature, times its square."""
    ce: float
    gradient_norm: float
    """Before clipping."""


def optimizer_of(student: Student, section: TrainingSection) -> AdamW:
    """AdamW (Loshchilov and Hutter 2019); weight decay on matrices only, never on norms."""
    matrices = [p for p in student.parameters() if p.dim() > 1]
    vectors = [p for p in student.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": section.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    # Fused: one pass over weights and moments, a tenth of the time of the unfused loop here.
    return AdamW(groups, lr=section.learning_rate, fused=True)


def learning_rate(step: int, section: TrainingSection) -> float:
    """Linear warm-up, then half a cosine down to a tenth; `step` counts from 0."""
    if step < section.warmup_steps:
        return section.learning_rate * (step + 1) / section.warmup_steps
    span = max(1, section.steps - section.warmup_steps - 1)
    share = min(1.0, (step - section.warmup_steps) / span)
    return section.learning_rate * (_FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * share)))


def answer_logits(student: Student, batch: Batch, *, bf16: bool) -> Tensor:
    """Logits [N, V] at the answer positions; the head is applied nowhere else."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        hidden = student.hidden(batch.input_ids)
        return student.logits(hidden[batch.rows, batch.columns])


def accumulate(
    student: Student, batches: Sequence[Batch], section: TrainingSection
) -> tuple[float, float]:
    """Add the step's gradient to the parameters; its mean KL and CE, in nats per position."""
    positions = max(1, sum(batch.positions for batch in batches))
    kl = ce = 0.0
    for batch in batches:
        sums = distillation_sums(
            answer_logits(student, batch, bf16=section.bf16),
            batch.gold_ids,
            batch.top_ids,
            batch.top_logprobs,
            batch.tail,
            temperature=section.temperature,
        )
        loss = (section.kl_weight * sums.kl + section.ce_weight * sums.ce) / positions
        loss.backward()  # type: ignore[no-untyped-call]
        kl += sums.kl.item() / positions
        ce += sums.ce.item() / positions
    return kl, ce


def take_step(
    student: Student,
    optimizer: AdamW,
    batches: Sequence[Batch],
    section: TrainingSection,
    *,
    step: int,
) -> StepFigures:
    """Update the student once; `step` counts from 0.

    Raises PhaseError, before any weight is touched, when loss or gradient is not finite.
    """
    optimizer.zero_grad(set_to_none=True)
    kl, ce = accumulate(student, batches, section)
    loss = section.kl_weight * kl + section.ce_weight * ce
    norm = nn.utils.clip_grad_norm_(student.parameters(), section.clip_norm).item()
    for what, value in (("loss", loss), ("gradient", norm)):
        if not math.isfinite(value):
            raise not_finite(f"The {what} is {value} at step {step + 1} of {section.steps}.")
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, section)
    optimizer.step()
    return StepFigures(loss=loss, kl=kl, ce=ce, gradient_norm=norm)


def not_finite(what: str) -> PhaseError:
    """The error for numbers that training cannot go on from."""
    return PhaseError(
        what,
        remedy="Lower training.learning_rate or raise training.warmup_steps; if it is step 1, check"
        " the teacher's weights.",
        code="training.nonfinite",
    )
