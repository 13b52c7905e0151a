"""Operations along axes: reductions, normalisation, softmax, running sums.

Rules: sums are taken in fp32, in the order torch chooses: how a device accumulates inside one
operation is not modelled. Means of integers are refused: the documentation does not say how they
round.

Source: the docstrings of coremltools/converters/mil/mil/ops/defs/iOS15/reduction.py,
normalization.py, activation.py, tensor_operation.py, and iOS17/reduction.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from stillhouse.phases.mil.operands import axes_of, axis_of, flag, floats_only, number
from stillhouse.phases.mil.tensortype import CAST_DTYPES, COMPUTE_DTYPES

Kernel = Callable[..., Tensor | tuple[Tensor, ...]]
Reducer = Callable[[Tensor, list[int], bool], Tensor]


def _reduction(reduce: Reducer) -> Kernel:
    """A reduction over `axes` (all when absent); reduced axes stay as 1 with `keep_dims`."""

    def kernel(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
        return reduce(x, axes_of(axes, x.dim()), flag(keep_dims)).to(x.dtype)

    return kernel


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001  # a Reducer
    floats_only(x)
    return x.mean(axes, keepdim=keep)


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001  # a Reducer
    for axis in sorted(axes, reverse=True):  # torch multiplies along one axis at a time
        x = x.prod(axis, keepdim=keep)
    return x


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001  # a Reducer
    floats_only(x)
    return torch.logsumexp(x, axes, keepdim=keep)


def _l2_norm(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001  # a Reducer
    floats_only(x)
    return x.square().sum(axes, keepdim=keep).sqrt()


def _extremum(find: Callable[..., Tensor]) -> Kernel:
    """The index of an extreme value along one axis."""

    def kernel(
        x: Tensor,
        axis: Tensor | None = None,
        keep_dims: Tensor | None = None,
        output_dtype: str = "int32",
    ) -> Tensor:
        along = axis_of(-1 if axis is None else axis, x.dim())
        dtype = COMPUTE_DTYPES[CAST_DTYPES[output_dtype]]
        return find(x, dim=along, keepdim=flag(keep_dims)).to(dtype)

    return kernel


def _softmax(x: Tensor, axis: Tensor | None = None) -> Tensor:
    along = axis_of(-1 if axis is None else axis, x.dim())
    return torch.softmax(x, dim=along)


def _layer_norm(
    x: Tensor,
    axes: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | None = None,
) -> Tensor:
    """`gamma * (x - E[x]) / sqrt(Var[x] + epsilon) + beta`; gamma and beta span the axes."""
    along = axes_of(axes, x.dim())
    spread = [size if axis in along else 1 for axis, size in enumerate(x.shape)]
    centred = x - x.mean(along, keepdim=True)
    variance = centred.square().mean(along, keepdim=True)
    normal = centred / torch.sqrt(variance + (1e-5 if epsilon is None else epsilon))
    scaled = normal if gamma is None else normal * gamma.reshape(spread)
    return scaled if beta is None else scaled + beta.reshape(spread)


def _cumsum(
    x: Tensor,
    axis: Tensor | None = None,
    exclusive: Tensor | None = None,
    reverse: Tensor | None = None,
) -> Tensor:
    """Running sums; `exclusive` leaves the element itself out, `reverse` runs from the end."""
    along = axis_of(0 if axis is None else number(axis), x.dim())
    run = x.flip(along) if flag(reverse) else x
    total = run.cumsum(along).to(x.dtype)
    if flag(exclusive):
        nothing = torch.zeros_like(run.narrow(along, 0, 1))
        total = torch.cat([nothing, total.narrow(along, 0, run.shape[along] - 1)], along)
    return total.flip(along) if flag(reverse) else total


OPS: Mapping[str, Kernel] = {
    "reduce_sum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "reduce_mean": _reduction(_mean),
    "reduce_max": _reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "reduce_min": _reduction(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "reduce_prod": _reduction(_prod),
    "reduce_sum_square": _reduction(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
    "reduce_l1_norm": _reduction(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "reduce_l2_norm": _reduction(_l2_norm),
    "reduce_log_sum_exp": _reduction(_log_sum_exp),
    "reduce_argmax": _extremum(torch.argmax),
    "reduce_argmin": _extremum(torch.argmin),
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "cumsum": _cumsum,
}
