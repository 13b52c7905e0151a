"""Element-wise operations: arithmetic, comparison, logic, functions of one number, activations.

Rules: each kernel's parameters are the operation's in MIL, by name; shapes broadcast as in NumPy.
Floats arrive and leave as fp32, integers as int32; rounding to the declared dtype is not done here.
Where Core ML's documentation does not say what integers do (true division), they are refused.

Source: the docstrings of coremltools/converters/mil/mil/ops/defs, iOS15 to iOS18.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from stillhouse.phases.mil.operands import floats_only
from stillhouse.phases.mil.tensortype import CAST_DTYPES, COMPUTE_DTYPES

Kernel = Callable[..., Tensor | tuple[Tensor, ...]]


def _unary(function: Callable[[Tensor], Tensor]) -> Kernel:
    """A function of `x` alone, of floats."""

    def kernel(x: Tensor) -> Tensor:
        floats_only(x)
        return function(x)

    return kernel


def _any_unary(function: Callable[[Tensor], Tensor]) -> Kernel:
    """A function of `x` alone, of floats or integers."""

    def kernel(x: Tensor) -> Tensor:
        return function(x)

    return kernel


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Kernel:
    """A function of `x` and `y`, broadcast."""

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y)

    return kernel


def _real_div(x: Tensor, y: Tensor) -> Tensor:
    floats_only(x, y)
    return x / y


def _floor_div(x: Tensor, y: Tensor) -> Tensor:
    return torch.div(x, y, rounding_mode="floor")


def _clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, alpha), beta)


def _threshold(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.maximum(x, alpha)


def _inverse(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    return 1.0 / (x + (1e-4 if epsilon is None else epsilon))


def _log(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    return torch.log(x + (1e-45 if epsilon is None else epsilon))


def _rsqrt(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    return 1.0 / torch.sqrt(x + (1e-12 if epsilon is None else epsilon))


def _cast(x: Tensor, dtype: str) -> Tensor:
    """Floats become integers by dropping the fraction, booleans by asking for non-zero.

    Raises KeyError for a dtype that MIL's cast does not have, ValueError for numbers that no int32
    holds: what a device makes of them is undefined.
    """
    target = COMPUTE_DTYPES[CAST_DTYPES[dtype]]
    if x.is_floating_point() and target == torch.int32:
        if not bool(((x >= -(2.0**31)) & (x < 2.0**31)).all()):
            raise ValueError(f"a cast to {dtype} of a number that no int32 holds")
        return x.trunc().to(target)
    return x.to(target)


def _gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """The three documented formulas. Raises KeyError for another mode."""
    return _GELU[mode](x)


_GELU: Mapping[str, Callable[[Tensor], Tensor]] = {
    "EXACT": lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    "TANH_APPROXIMATION": lambda x: (
        0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "SIGMOID_APPROXIMATION": lambda x: x * torch.sigmoid(1.702 * x),
}


def _leaky_relu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x >= 0, x, alpha * x)


OPS: Mapping[str, Kernel] = {
    # two operands
    "add": _binary(torch.add),
    "sub": _binary(torch.sub),
    "mul": _binary(torch.mul),
    "real_div": _real_div,
    "floor_div": _floor_div,
    "mod": _binary(torch.remainder),  # the sign of the divisor, as Python's %
    "pow": _binary(torch.pow),
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "equal": _binary(torch.eq),
    "not_equal": _binary(torch.ne),
    "less": _binary(torch.lt),
    "less_equal": _binary(torch.le),
    "greater": _binary(torch.gt),
    "greater_equal": _binary(torch.ge),
    "logical_and": _binary(torch.logical_and),
    "logical_or": _binary(torch.logical_or),
    "logical_xor": _binary(torch.logical_xor),
    # one operand
    "logical_not": _any_unary(torch.logical_not),
    "abs": _any_unary(torch.abs),
    "sign": _any_unary(torch.sign),
    "square": _any_unary(torch.square),
    "ceil": _unary(torch.ceil),
    "floor": _unary(torch.floor),
    "round": _unary(torch.round),  # halves to even, as NumPy
    "sqrt": _unary(torch.sqrt),
    "exp": _unary(torch.exp),
    "exp2": _unary(torch.exp2),
    "sin": _unary(torch.sin),
    "cos": _unary(torch.cos),
    "tanh": _unary(torch.tanh),
    "erf": _unary(torch.erf),
    "inverse": _inverse,
    "log": _log,
    "rsqrt": _rsqrt,
    "clip": _clip,
    "threshold": _threshold,
    "cast": _cast,
    # activations
    "relu": _unary(torch.relu),
    "leaky_relu": _leaky_relu,
    "sigmoid": _unary(torch.sigmoid),
    "silu": _unary(lambda x: x * torch.sigmoid(x)),
    "softplus": _unary(lambda x: torch.logaddexp(x, torch.zeros(()))),
    "gelu": _gelu,
}
