"""Matrix products and attention against NumPy in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder

pytestmark = pytest.mark.coreml

mb: Any = Builder
"""Its operations are registered at run time, where no type checker sees them."""

rng = np.random.default_rng(17)


def normal(*shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def attention(q: Any, k: Any, v: Any, mask: Any = None) -> Any:
    q, k, v = (t.astype(np.float64) for t in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = np.where(mask > 0, scores, -np.inf) if mask.dtype == np.int32 else scores + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


WEIGHT, BIAS = normal(5, 4), normal(5)
Q, K, V = normal(1, 2, 3, 4), normal(1, 2, 6, 4), normal(1, 2, 6, 5)
CAUSAL = np.tril(np.ones((3, 6), np.int32), 2)
ATTEND = mb.scaled_dot_product_attention
CASES: Any = [
    ("linear_biased", "linear", {"x": normal(2, 3, 4)},
     lambda x: mb.linear(x=x, weight=WEIGHT, bias=BIAS), lambda x: x @ WEIGHT.T + BIAS),
    ("linear_vector", "linear", {"x": normal(4)},
     lambda x: mb.linear(x=x, weight=WEIGHT), lambda x: x @ WEIGHT.T),
    ("matmul_batched", "matmul", {"x": normal(10, 4, 3), "y": normal(5, 1, 3, 2)},
     lambda x, y: mb.matmul(x=x, y=y), lambda x, y: x @ y),
    ("matmul_transposed", "matmul", {"x": normal(2, 3, 4), "y": normal(2, 5, 3)},
     lambda x, y: mb.matmul(x=x, y=y, transpose_x=True, transpose_y=True),
     lambda x, y: x.swapaxes(1, 2) @ y.swapaxes(1, 2)),
    ("matmul_int", "matmul", {"x": np.arange(6, dtype=np.int32).reshape(2, 3),
                              "y": np.arange(6, dtype=np.int32).reshape(3, 2)},
     lambda x, y: mb.matmul(x=x, y=y), lambda x, y: x @ y),
    ("sdpa_plain", "scaled_dot_product_attention", {"q": Q, "k": K, "v": V},
     lambda q, k, v: ATTEND(query=q, key=k, value=v), attention),
    ("sdpa_float_mask", "scaled_dot_product_attention",
     {"q": Q, "k": K, "v": V, "m": normal(3, 6)},
     lambda q, k, v, m: ATTEND(query=q, key=k, value=v, attn_mask=m), attention),
    ("sdpa_bool_mask", "scaled_dot_product_attention", {"q": Q, "k": K, "v": V, "m": CAUSAL},
     lambda q, k, v, m: ATTEND(query=q, key=k, value=v, attn_mask=mb.cast(x=m, dtype="bool")),
     attention),
]  # fmt: skip


@pytest.fixture(scope="module")
def found(answers: Any) -> Any:
    return answers(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_kernel_agrees_with_its_documentation(found: Any, case: Any) -> None:
    name, _, inputs, _, oracle = case
    expected = np.asarray(oracle(*inputs.values()))
    answer = found[f"{name}_out0"].numpy()
    assert answer.shape == expected.shape
    np.testing.assert_allclose(answer, expected, rtol=2e-6, atol=2e-6)
