"""Element-wise kernels against NumPy, as coremltools' documentation defines the operations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder

pytestmark = pytest.mark.coreml

mb: Any = Builder
"""Its operations are registered at run time, where no type checker sees them."""

rng = np.random.default_rng(7)
A = rng.standard_normal((2, 3, 4)).astype(np.float32) * 3
B = rng.standard_normal((3, 1)).astype(np.float32) * 3
POSITIVE = np.abs(A) + np.float32(0.3)
HALVES = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.2, -7.7], np.float32)
INTS = np.array([[7, -7, 0], [5, -5, 100000]], np.int32)
J = np.array([3, -2, 5], np.int32)
erf = np.vectorize(math.erf)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def binary(op: str, oracle: Any, x: Any = A, y: Any = B, tag: str = "") -> Any:
    return (f"{op}{tag}", op, {"x": x, "y": y}, getattr(mb, op), oracle)


def unary(op: str, oracle: Any, x: Any = A, tag: str = "", **options: Any) -> Any:
    return (f"{op}{tag}", op, {"x": x}, lambda x: getattr(mb, op)(x=x, **options), oracle)


CASES = [
    binary("add", lambda x, y: x + y),
    binary("add", lambda x, y: x + y, INTS, J, "_int"),
    binary("sub", lambda x, y: x - y),
    binary("mul", lambda x, y: x * y),
    binary("mul", lambda x, y: x * y, INTS, J, "_int"),
    binary("real_div", lambda x, y: x / y),
    binary("floor_div", lambda x, y: np.floor(x / y)),
    binary("floor_div", lambda x, y: x // y, INTS, J, "_int"),
    binary("mod", lambda x, y: x % y),
    binary("mod", lambda x, y: x % y, INTS, J, "_int"),
    binary("pow", lambda x, y: x**y, POSITIVE, B),
    binary("maximum", np.maximum),
    binary("maximum", np.maximum, INTS, J, "_int"),
    binary("minimum", np.minimum),
    binary("equal", lambda x, y: x == y, INTS, np.array([7, -5, 0], np.int32)),
    binary("not_equal", lambda x, y: x != y, INTS, np.array([7, -5, 0], np.int32)),
    binary("less", lambda x, y: x < y),
    binary("less_equal", lambda x, y: x <= y, INTS, INTS),
    binary("greater", lambda x, y: x > y),
    binary("greater_equal", lambda x, y: x >= y, INTS, J),
    unary("abs", np.abs, INTS, "_int"),
    unary("abs", np.abs),
    unary("sign", np.sign, INTS),
    unary("square", np.square),
    unary("ceil", np.ceil),
    unary("floor", np.floor),
    unary("round", np.round, HALVES),
    unary("sqrt", np.sqrt, POSITIVE),
    unary("exp", np.exp),
    unary("exp2", np.exp2),
    unary("sin", np.sin),
    unary("cos", np.cos),
    unary("tanh", np.tanh),
    unary("erf", erf),
    unary("inverse", lambda x: 1 / (x + 0.5), POSITIVE, epsilon=np.float32(0.5)),
    unary("log", lambda x: np.log(x + 0.5), POSITIVE, epsilon=np.float32(0.5)),
    unary("rsqrt", lambda x: 1 / np.sqrt(x + 0.5), POSITIVE, epsilon=np.float32(0.5)),
    unary("rsqrt", lambda x: 1 / np.sqrt(x), POSITIVE, "_default"),
    unary("clip", lambda x: np.clip(x, -1, 2), alpha=np.float32(-1), beta=np.float32(2)),
    unary("threshold", lambda x: np.maximum(x, 0.5), alpha=np.float32(0.5)),
    unary("cast", lambda x: x.astype(np.int32), HALVES, "_int", dtype="int32"),
    unary("cast", lambda x: x != 0, INTS, "_bool", dtype="bool"),
    unary("cast", lambda x: x.astype(np.float32), INTS, "_float", dtype="fp32"),
    unary("relu", lambda x: np.maximum(x, 0)),
    unary("leaky_relu", lambda x: np.where(x >= 0, x, 0.1 * x), alpha=np.float32(0.1)),
    unary("sigmoid", sigmoid),
    unary("silu", lambda x: x * sigmoid(x)),
    unary("softplus", lambda x: np.log1p(np.exp(x.astype(np.float64)))),
    unary("gelu", lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2)))),
    unary(
        "gelu",
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        tag="_tanh",
        mode="TANH_APPROXIMATION",
    ),
    unary("gelu", lambda x: x * sigmoid(1.702 * x), tag="_sig", mode="SIGMOID_APPROXIMATION"),
    (
        "logical",
        "logical_xor",
        {"x": INTS, "y": J},
        lambda x, y: mb.logical_xor(
            x=mb.logical_not(x=mb.logical_and(x=mb.less(x=x, y=y), y=mb.greater(x=x, y=-6))),
            y=mb.logical_or(x=mb.equal(x=x, y=7), y=mb.less(x=y, y=0)),
        ),
        lambda x, y: ~((x < y) & (x > -6)) ^ ((x == 7) | (y < 0)),
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
    np.testing.assert_allclose(answer, expected, rtol=2e-6, atol=2e-6)
