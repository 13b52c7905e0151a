from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stillhouse.phases.models.static.graphs import (
    StaticDecode,
    StaticPrefill,
    expected_weights,
    rms_norm,
)
from stillhouse.schemas.errors import PhaseError

from .graph_parts import LENGTH, ids, tiny_architecture, tiny_student

FP16_MAX = torch.finfo(torch.float16).max


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def naive_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def exact_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return naive_rms_norm(x.double(), weight.double(), eps)


def decode(graph: StaticDecode, tokens: list[int]) -> Tensor:
    steps = [
        graph(torch.tensor([[t]], dtype=torch.int32), torch.tensor([i], dtype=torch.int32))
        for i, t in enumerate(tokens)
    ]
    return torch.cat(steps, dim=1)[0]


@pytest.mark.parametrize("tied", [True, False])
def test_prefill_answers_what_the_checkpoint_answers(tied: bool) -> None:
    student = tiny_student(tied=tied)
    graph = StaticPrefill(tiny_architecture(tied=tied), student.state_dict(), LENGTH)
    with torch.inference_mode():
        found = graph.compute(torch.tensor([ids()], dtype=torch.int32))[0]
        wanted = student(torch.tensor([ids()]))
    assert wanted.abs().max() > 1
    assert (found - wanted).abs().max() < 2e-5


@pytest.mark.parametrize("tied", [True, False])
def test_decode_answers_token_by_token_what_the_checkpoint_answers(tied: bool) -> None:
    student = tiny_student(tied=tied)
    graph = StaticDecode(tiny_architecture(tied=tied), student.state_dict(), LENGTH)
    with torch.inference_mode():
        found = decode(graph, ids())
        wanted = student(torch.tensor([ids()]))[0]
    assert (found.float() - wanted).abs().max() < 2e-2  # its state and its logits are fp16


def test_decode_keeps_every_row_but_the_one_it_writes() -> None:
    graph = StaticDecode(tiny_architecture(), tiny_student().state_dict(), LENGTH)
    with torch.inference_mode():
        decode(graph, ids()[:5])
        before = graph.k_cache.clone()
        graph(torch.tensor([[7]], dtype=torch.int32), torch.tensor([5], dtype=torch.int32))
    changed = (graph.k_cache != before).any(dim=-1).any(dim=0).any(dim=0)
    assert changed.nonzero().flatten().tolist() == [5]


def test_decode_goes_on_from_the_caches_that_prefill_returns() -> None:
    architecture, weights = tiny_architecture(), tiny_student().state_dict()
    prefill = StaticPrefill(architecture, weights, LENGTH)
    graph = StaticDecode(architecture, weights, LENGTH)
    with torch.inference_mode():
        logits, keys, values = prefill(torch.tensor([ids()], dtype=torch.int32))
        graph.k_cache.copy_(keys)
        graph.v_cache.copy_(values)
        last = LENGTH - 1
        found = graph(
            torch.tensor([[ids()[last]]], dtype=torch.int32),
            torch.tensor([last], dtype=torch.int32),
        )
    assert (found[0, 0].float() - logits[0, last].float()).abs().max() < 2e-2


def test_the_norm_stays_finite_and_right_in_fp16_where_the_naive_form_is_silently_zero() -> None:
    # |x| of 24,750 was measured in SmolLM2-135M; x² is 6.1e8 and fp16 ends at 65,504.
    x = torch.randn(3, 576, generator=torch.Generator().manual_seed(1))
    x[:, 11] = 24_750.0
    weight = torch.linspace(0.5, 2.0, 576)
    exact = exact_rms_norm(x.half(), weight.half(), 1e-5)

    naive = naive_rms_norm(x.half(), weight.half(), 1e-5)
    assert torch.isfinite(naive).all()
    assert naive.abs().max() == 0

    safe = rms_norm(x.half(), weight.half(), 1e-5)
    assert (safe.double() - exact).abs().max() <= 4e-3 * exact.abs().max()
    assert ((safe.double() - exact).abs() <= 4e-3 * exact.abs() + 1e-6).all()


def test_no_intermediate_of_the_norm_leaves_fp16_even_at_its_largest_number() -> None:
    seen: list[float] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.is_floating_point():
                seen.append(float(result.abs().max()))
            return result

    x = torch.full((1, 576), FP16_MAX)
    x[0, ::2] = 1e-3
    with Watch():
        rms_norm(x, torch.ones(576), 1e-6)
    assert len(seen) > 8
    assert max(seen) <= FP16_MAX


@settings(max_examples=60, deadline=None)
@given(
    exponent=st.integers(-8, 4),
    eps=st.sampled_from([1e-6, 1e-5, 1e-3]),
    spike=st.floats(0, 1000),
    seed=st.integers(0, 1000),
)
def test_the_norm_is_exact_at_every_scale(
    exponent: int, eps: float, spike: float, seed: int
) -> None:
    x = torch.randn(2, 24, generator=torch.Generator().manual_seed(seed)) * math.pow(10, exponent)
    x[0, 0] *= spike
    weight = torch.linspace(-1, 1, 24)
    found, wanted = rms_norm(x, weight, eps), exact_rms_norm(x, weight, eps)
    assert torch.allclose(found.double(), wanted, rtol=3e-6, atol=1e-12)


def test_the_norm_of_nothing_is_nothing() -> None:
    assert rms_norm(torch.zeros(1, 8), torch.ones(8), 1e-5).abs().max() == 0


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda w: w.pop("model.norm.weight"), "export.checkpoint_shape"),
        (
            lambda w: w.update({"model.norm.weight": torch.ones(31)}),
            "export.checkpoint_shape",
        ),
        (
            lambda w: w["model.layers.1.mlp.up_proj.weight"][3].fill_(math.nan),
            "export.checkpoint_nonfinite",
        ),
        (
            lambda w: w["model.embed_tokens.weight"][3].fill_(-math.inf),
            "export.checkpoint_nonfinite",
        ),
    ],
)
def test_weights_that_do_not_serve_are_refused_by_name(damage: object, code: str) -> None:
    weights = {name: tensor.clone() for name, tensor in tiny_student().state_dict().items()}
    assert callable(damage)
    damage(weights)
    with pytest.raises(PhaseError) as refused:
        StaticPrefill(tiny_architecture(), weights, LENGTH)
    assert refused.value.code == code
    assert "model." in refused.value.message


@pytest.mark.parametrize("tied", [True, False])
def test_the_expected_tensors_are_those_of_a_student(tied: bool) -> None:
    student = tiny_student(tied=tied)
    have = {name: tuple(t.shape) for name, t in student.state_dict().items()}
    assert expected_weights(tiny_architecture(tied=tied)) == have
