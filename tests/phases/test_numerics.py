from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stillhouse.phases.numerics import distances as numerics

torch.set_num_threads(1)
V = 23


def logits(seed: int, n: int = 5, scale: float = 3.0, vocabulary: int = V) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, vocabulary, generator=random, dtype=torch.float64)


def cached(teacher: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the cache would hold of these logits, without its rounding."""
    logprobs = teacher.log_softmax(-1)
    top = logprobs.topk(k)
    rest = logprobs.scatter(-1, top.indices, -math.inf).logsumexp(-1)
    return top.indices, top.values, rest


seeds = st.integers(0, 10**6)
scales = st.floats(0.01, 60)
ks = st.integers(1, V - 1)
temperatures = st.sampled_from([0.5, 1.0, 2.0, 7.0])
dtypes = st.sampled_from([torch.float64, torch.float32, torch.bfloat16])


@given(a=seeds, b=seeds, scale=scales, dtype=dtypes)
@settings(deadline=None)
def test_full_kl_is_never_negative_in_any_dtype(
    a: int, b: int, scale: float, dtype: torch.dtype
) -> None:
    teacher, student = logits(a, scale=scale).to(dtype), logits(b, scale=scale).to(dtype)
    value = numerics.kl_full(teacher, student)
    assert value.dtype in (torch.float32, torch.float64)
    assert bool((value >= 0).all())


@given(a=seeds, b=seeds, scale=scales, k=ks, t=temperatures, dtype=dtypes)
@settings(deadline=None)
def test_bucketed_kl_is_never_negative_in_any_dtype(
    *, a: int, b: int, scale: float, k: int, t: float, dtype: torch.dtype
) -> None:
    ids, logprobs, rest = cached(logits(a), k)
    cache = ids, logprobs.half(), rest.half()
    value = numerics.kl_topk_tail(logits(b, scale=scale).to(dtype), *cache, temperature=t)
    assert bool((value >= 0).all())
    assert bool(torch.isfinite(value).all())


@given(a=seeds, scale=scales, k=ks, t=temperatures)
@settings(deadline=None)
def test_both_are_zero_between_equals(a: int, scale: float, k: int, t: float) -> None:
    same = logits(a, scale=scale)
    assert numerics.kl_full(same, same).max() <= 1e-12
    assert numerics.kl_full(same, same + 7).max() <= 1e-9  # a constant changes no distribution
    assert numerics.kl_topk_tail(same, *cached(same, k), temperature=t).max() <= 1e-9


@given(a=seeds, b=seeds, k=ks)
@settings(deadline=None)
def test_bucketed_kl_is_at_most_full_kl(a: int, b: int, k: int) -> None:
    teacher, student = logits(a), logits(b)
    coarse = numerics.kl_topk_tail(student, *cached(teacher, k))
    assert bool((coarse <= numerics.kl_full(teacher, student) + 1e-9).all())


@given(a=seeds, b=seeds, t=temperatures)
@settings(deadline=None)
def test_with_the_whole_vocabulary_cached_it_is_full_tempered_kl(a: int, b: int, t: float) -> None:
    teacher, student = logits(a), logits(b)
    whole = numerics.kl_topk_tail(student, *cached(teacher, V), temperature=t)
    assert torch.allclose(whole, t * t * numerics.kl_full(teacher / t, student / t), atol=1e-9)


def test_full_kl_is_the_formula() -> None:
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.1, 0.1, 0.8])
    value = numerics.kl_full(torch.tensor(np.log([p])), torch.tensor(np.log([q])))
    assert value.item() == pytest.approx(float((p * np.log(p / q)).sum()), abs=1e-12)


def test_it_is_forward_kl_not_reverse() -> None:
    p, q = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    assert numerics.kl_full(p, q).item() == pytest.approx(0.3681, abs=1e-4)
    assert numerics.kl_full(q, p).item() == pytest.approx(0.5108, abs=1e-4)


def test_bucketed_kl_is_the_formula_with_the_tail_as_one_outcome() -> None:
    student = torch.tensor([[0.2, 0.3, 0.4, 0.1]], dtype=torch.float64).log()
    cache = (torch.tensor([[2, 1]]), torch.tensor([[0.6, 0.3]], dtype=torch.float64).log())
    tail = torch.tensor([0.1], dtype=torch.float64).log()
    expected = 0.6 * math.log(0.6 / 0.4) + 0.1 * math.log(0.1 / 0.3)
    value = numerics.kl_topk_tail(student, *cache, tail)
    assert value.item() == pytest.approx(expected, abs=1e-12)


def test_a_confident_students_tail_does_not_cancel_away() -> None:
    student = torch.zeros(1, V)
    student[0, 4] = 40.0  # 1 - softmax is 0 in fp32, the tail's mass is not
    teacher = (torch.tensor([[4]]), torch.tensor([[math.log(0.5)]]), torch.tensor([math.log(0.5)]))
    value = numerics.kl_topk_tail(student, *teacher)
    expected = -math.log(2) - 0.5 * (math.log(V - 1) - 40.0)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_impossible_teacher_tokens_contribute_nothing() -> None:
    teacher = torch.tensor([[0.0, 0.0, -math.inf]])
    student = torch.zeros(1, 3)
    assert numerics.kl_full(teacher, student).item() == pytest.approx(math.log(1.5))


@given(a=seeds, b=seeds, k=ks, t=temperatures)
@settings(max_examples=25, deadline=None)
def test_gradients_equal_finite_differences(a: int, b: int, k: int, t: float) -> None:
    cache = cached(logits(a, n=2), k)
    gold = torch.tensor([1, 5])

    def loss(student: Tensor) -> Tensor:
        sums = numerics.distillation_sums(student, gold, *cache, temperature=t)
        return 0.7 * sums.kl + 0.3 * sums.ce

    student = logits(b, n=2).requires_grad_()
    assert torch.autograd.gradcheck(loss, (student,), eps=1e-6, atol=1e-5)


def test_gradients_stay_finite_when_nothing_is_in_the_tail() -> None:
    student = logits(1).requires_grad_()
    loss = numerics.kl_topk_tail(student, *cached(logits(2), V)).sum()
    (gradient,) = torch.autograd.grad(loss, student)
    assert bool(torch.isfinite(gradient).all())


@given(a=seeds, b=seeds, k=ks, cut=st.integers(0, 7))
@settings(deadline=None)
def test_sums_over_parts_equal_the_sum_over_all(a: int, b: int, k: int, cut: int) -> None:
    cache, student, gold = cached(logits(a, n=7), k), logits(b, n=7), torch.arange(7)
    whole = numerics.distillation_sums(student, gold, *cache)
    ids, logprobs, rest = cache
    parts = [
        numerics.distillation_sums(student[s], gold[s], ids[s], logprobs[s], rest[s])
        for s in (slice(None, cut), slice(cut, None))
    ]
    assert sum(p.kl.item() for p in parts) == pytest.approx(whole.kl.item(), rel=1e-12)
    assert sum(p.ce.item() for p in parts) == pytest.approx(whole.ce.item(), rel=1e-12)


def test_no_position_at_all_is_zero_with_zero_gradient() -> None:
    student = torch.empty(0, V, requires_grad=True)
    cache: Any = (torch.empty(0, 3, dtype=torch.long), torch.empty(0, 3), torch.empty(0))
    sums = numerics.distillation_sums(student, torch.empty(0, dtype=torch.long), *cache)
    (gradient,) = torch.autograd.grad(sums.kl + sums.ce, student)
    assert (sums.kl.item(), sums.ce.item()) == (0.0, 0.0)
    assert gradient.shape == (0, V)


@given(a=seeds, k=ks)
@settings(deadline=None)
def test_cross_entropy_is_that_of_torch(a: int, k: int) -> None:
    student, gold = logits(a), torch.arange(5)
    sums = numerics.distillation_sums(student, gold, *cached(logits(a + 1), k))
    expected = torch.nn.functional.cross_entropy(student, gold, reduction="sum")
    assert sums.ce.item() == pytest.approx(expected.item(), rel=1e-10)
    each = numerics.negative_log_likelihood(student, gold)
    assert each.sum().item() == pytest.approx(expected.item(), rel=1e-10)


def test_agreement_compares_the_most_likely_tokens() -> None:
    teacher = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    student = torch.tensor([[0.0, 9.0, 8.0], [0.0, 0.0, 1.0]])
    assert numerics.top1_agreement(teacher, student).tolist() == [1.0, 0.0]


def test_perplexity_of_a_uniform_model_is_the_vocabulary() -> None:
    total = 4 * math.log(V)
    assert numerics.perplexity(total, 4) == pytest.approx(V)
    assert math.isnan(numerics.perplexity(0.0, 0))
    assert numerics.perplexity(1e9, 1) == math.inf


def test_the_bootstrap_is_seeded_and_covers_the_weighted_mean() -> None:
    random = np.random.default_rng(0)
    values, weights = random.normal(3, 1, 200).tolist(), random.integers(1, 9, 200).tolist()
    low, high = numerics.bootstrap_interval(values, weights, resamples=500, seed=1)
    assert (low, high) == numerics.bootstrap_interval(values, weights, resamples=500, seed=1)
    assert low < np.average(values, weights=weights) < high
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(200), rel=0.4)


def test_the_bootstrap_draws_items_so_correlated_positions_widen_it() -> None:
    together = numerics.bootstrap_interval([0.0, 1.0] * 4, [50] * 8, resamples=500, seed=1)
    apart = numerics.bootstrap_interval([0.0, 1.0] * 200, [1] * 400, resamples=500, seed=1)
    assert together[1] - together[0] > 3 * (apart[1] - apart[0])


def test_the_bootstrap_of_nothing_is_not_a_number() -> None:
    assert all(map(math.isnan, numerics.bootstrap_interval([], [], resamples=10, seed=0)))
    assert all(map(math.isnan, numerics.bootstrap_interval([1.0], [0], resamples=10, seed=0)))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (0, 0, 0.0, 1.0)],
)
def test_wilson_intervals_are_the_published_ones(
    successes: int, n: int, low: float, high: float
) -> None:
    assert numerics.wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-4)


@given(n=st.integers(1, 500), data=st.data())
@settings(deadline=None)
def test_a_wilson_interval_holds_its_share_and_stays_in_range(n: int, data: Any) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = numerics.wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1


def test_more_successes_than_trials_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="3 successes of 2"):
        numerics.wilson_interval(3, 2)
