from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from stillhouse.phases.models import Student
from stillhouse.phases.training.examples import Example, batches
from stillhouse.phases.training.step import accumulate, learning_rate, optimizer_of, take_step
from stillhouse.schemas.errors import PhaseError
from stillhouse.schemas.recipe import TrainingSection

from .training_parts import TRAINING, a_student, an_example

torch.set_num_threads(1)


def section(**changes: Any) -> TrainingSection:
    return TrainingSection.model_validate(TRAINING | changes)


def examples(count: int) -> list[Example]:
    teacher = a_student(seed=11)
    return [an_example(teacher, seed) for seed in range(count)]


def gradients(student: Student) -> list[Tensor]:
    found = [p.grad for p in student.parameters() if p.grad is not None]
    assert len(found) == len(list(student.parameters()))
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_cutting_a_step_into_micro_batches_changes_no_gradient(size: int) -> None:
    data, whole, cut = examples(6), a_student().double(), a_student().double()
    figures = accumulate(whole, batches(data, 6), section())
    assert accumulate(cut, batches(data, size), section()) == pytest.approx(figures, rel=1e-9)
    for one, other in zip(gradients(whole), gradients(cut), strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-9)


def test_the_gradient_is_that_of_the_mean_over_positions() -> None:
    data, student = examples(3), a_student().double()
    kl, ce = accumulate(student, batches(data, 1), section(kl_weight=0.0, ce_weight=1.0))
    reference = a_student().double()
    nll, positions = torch.zeros((), dtype=torch.float64), 0
    for example in data:
        logprobs = reference(torch.tensor([example.token_ids]))[0].log_softmax(-1)
        for place in range(example.answer_start, len(example.token_ids)):
            nll = nll - logprobs[place - 1, example.token_ids[place]]
            positions += 1
    loss = nll / positions
    expected = torch.autograd.grad(loss, list(reference.parameters()))
    assert ce == pytest.approx(loss.item(), rel=1e-9)
    assert kl > 0
    for mine, theirs in zip(gradients(student), expected, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-6, atol=1e-9)


def test_weights_choose_between_teacher_and_gold() -> None:
    data = batches(examples(4), 4)
    only_kl = take_step(
        (student := a_student()),
        optimizer_of(student, section()),
        data,
        section(kl_weight=1.0, ce_weight=0.0),
        step=0,
    )
    assert only_kl.loss == only_kl.kl
    mixed = accumulate(a_student(), data, section())
    assert only_kl.kl == pytest.approx(mixed[0], rel=1e-6)
    assert only_kl.ce == pytest.approx(mixed[1], rel=1e-6)


def test_steps_bring_the_student_closer_to_the_teacher() -> None:
    student, data = a_student(), batches(examples(4), 4)
    optimizer = optimizer_of(student, section())
    losses = [take_step(student, optimizer, data, section(), step=s).kl for s in range(7)]
    assert losses[-1] < losses[0] / 2


def test_bfloat16_autocast_keeps_weights_and_gradients_in_fp32() -> None:
    student, data = a_student(), batches(examples(4), 2)
    exact = accumulate(a_student(), data, section())
    rough = accumulate(student, data, section(bf16=True))
    assert rough == pytest.approx(exact, rel=0.05)
    assert rough != exact
    assert all(g.dtype == torch.float32 for g in gradients(student))


def test_the_gradient_is_clipped_to_the_norm_that_is_asked_for() -> None:
    student, data = a_student(), batches(examples(4), 4)
    figures = take_step(
        student, optimizer_of(student, section()), data, section(clip_norm=0.01), step=0
    )
    total = math.sqrt(sum(float(g.pow(2).sum()) for g in gradients(student)))
    assert figures.gradient_norm > 0.01
    assert total == pytest.approx(0.01, rel=1e-3)


def test_a_loss_that_is_not_finite_ends_the_run_before_weights_change() -> None:
    student, data = a_student(), examples(2)
    bad = replace(data[0].cached, top_logprobs=data[0].cached.top_logprobs * math.nan)
    data[0] = replace(data[0], cached=bad)
    before = [p.clone() for p in student.parameters()]
    with pytest.raises(PhaseError, match="loss is nan at step 4 of 7") as caught:
        take_step(student, optimizer_of(student, section()), batches(data, 2), section(), step=3)
    assert "learning_rate" in caught.value.remedy
    assert all(torch.equal(a, b) for a, b in zip(before, student.parameters(), strict=True))


def test_a_gradient_that_is_not_finite_ends_the_run() -> None:
    student = a_student()
    weight = student.model.norm.weight
    weight.register_hook(lambda g: g * math.inf)  # type: ignore[no-untyped-call]
    with pytest.raises(PhaseError, match="gradient is"):
        take_step(
            student, optimizer_of(student, section()), batches(examples(2), 2), section(), step=0
        )


def test_the_learning_rate_warms_up_then_falls_to_a_tenth() -> None:
    plan = section(steps=20, warmup_steps=4, learning_rate=1.0)
    rates = [learning_rate(step, plan) for step in range(20)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[-1] == pytest.approx(0.1)
    assert all(a > b for a, b in pairwise(rates[4:]))


def test_weight_decay_spares_the_norms() -> None:
    optimizer = optimizer_of(a_student(), section(weight_decay=0.1))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert all(p.dim() == 1 for p in optimizer.param_groups[1]["params"])
