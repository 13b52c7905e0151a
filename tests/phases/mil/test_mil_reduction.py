"""Reductions, normalisation, softmax and running sums against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder

pytestmark = pytest.mark.coreml

mb: Any = Builder
"""Its operations are registered at run time, where no type checker sees them."""

rng = np.random.default_rng(11)
A = rng.standard_normal((2, 3, 4)).astype(np.float32) * 2
INTS = rng.integers(-9, 9, (3, 4)).astype(np.int32)
GAMMA = rng.standard_normal(4).astype(np.float32)
BETA = rng.standard_normal(4).astype(np.float32)
WIDE_GAMMA = rng.standard_normal((3, 4)).astype(np.float32)


def on(op: str, tag: str, oracle: Any, x: Any = A, **options: Any) -> Any:
    return (f"{op}_{tag}", op, {"x": x}, lambda x: getattr(mb, op)(x=x, **options), oracle)


def layer_norm(x: Any, axes: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    mean = x.mean(axes, keepdims=True)
    variance = ((x - mean) ** 2).mean(axes, keepdims=True)
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def softmax(x: Any, axis: int) -> Any:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def exclusive(x: Any, axis: int) -> Any:
    return np.cumsum(x, axis) - x


CASES = [
    on("reduce_sum", "last", lambda x: x.sum(-1), axes=[-1]),
    on("reduce_sum", "all", lambda x: x.sum()),
    on("reduce_sum", "int", lambda x: x.sum(0, keepdims=True), INTS, axes=[0], keep_dims=True),
    on("reduce_mean", "kept", lambda x: x.mean(2, keepdims=True), axes=[-1], keep_dims=True),
    on("reduce_mean", "two", lambda x: x.mean((0, 2)), axes=[2, 0]),
    on("reduce_max", "middle", lambda x: x.max(1), axes=[-2]),
    on("reduce_max", "int", lambda x: x.max(1), INTS, axes=[1]),
    on("reduce_min", "all_kept", lambda x: x.min(keepdims=True), keep_dims=True),
    on("reduce_prod", "two", lambda x: x.prod((1, 2)), axes=[1, 2]),
    on("reduce_sum_square", "last", lambda x: (x**2).sum(-1), axes=[-1]),
    on("reduce_l1_norm", "last", lambda x: abs(x).sum(-1), axes=[-1]),
    on("reduce_l2_norm", "last", lambda x: np.sqrt((x**2).sum(-1)), axes=[-1]),
    on("reduce_log_sum_exp", "last", lambda x: np.log(np.exp(x).sum(-1)), axes=[-1]),
    on("reduce_argmax", "default", lambda x: x.argmax(-1)),
    on("reduce_argmax", "kept", lambda x: x.argmax(1, keepdims=True), axis=1, keep_dims=True),
    on("reduce_argmin", "front", lambda x: x.argmin(0), axis=-3),
    on("softmax", "last", lambda x: softmax(x, -1)),
    on("softmax", "first", lambda x: softmax(x, 0), axis=0),
    on(
        "layer_norm",
        "last",
        lambda x: layer_norm(x, (-1,), GAMMA, BETA, 1e-3),
        axes=[-1],
        gamma=GAMMA,
        beta=BETA,
        epsilon=np.float32(1e-3),
    ),
    on(
        "layer_norm",
        "two_axes",
        lambda x: layer_norm(x, (1, 2), WIDE_GAMMA, 0, 1e-5),
        axes=[1, 2],
        gamma=WIDE_GAMMA,
        beta=np.zeros((3, 4), np.float32),
    ),
    on("cumsum", "first", lambda x: np.cumsum(x, 0)),
    on("cumsum", "int", lambda x: np.cumsum(x, 1), INTS, axis=-1),
    on("cumsum", "exclusive", lambda x: exclusive(x, 1), axis=1, exclusive=True),
    on(
        "cumsum",
        "reverse",
        lambda x: np.flip(np.cumsum(np.flip(x, 2), 2), 2),
        axis=2,
        reverse=True,
    ),
    on(
        "cumsum",
        "both",
        lambda x: np.flip(exclusive(np.flip(x, 2), 2), 2),
        axis=2,
        reverse=True,
        exclusive=True,
    ),
]


@pytest.fixture(scope="module")
def found(answers: Any) -> Any:
    return answers(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_kernel_agrees_with_its_documentation(found: Any, case: Any) -> None:
    name, _, inputs, _, oracle = case
    expected = np.asarray(oracle(*inputs.values()))
    answer = found[f"{name}_out0"].numpy()
    assert answer.shape == expected.shape
    np.testing.assert_allclose(answer, expected, rtol=3e-6, atol=3e-6)
