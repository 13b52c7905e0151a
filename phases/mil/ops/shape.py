"""Operations that rearrange: reshape, transpose, join, split, repeat, and tensors made from sizes.

Rules: no number is changed, so nothing is rounded or counted after these (see interpreter.py). A
result may share memory with an operand: no kernel ever writes into an operand.

Source: the docstrings of coremltools/converters/mil/mil/ops/defs/iOS15/tensor_transformation.py and
tensor_operation.py, with the changes of iOS17 (reshape).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import accumulate

import torch
from torch import Tensor

from stillhouse.phases.mil.operands import axes_of, axis_of, flag, number, numbers

Kernel = Callable[..., Tensor | tuple[Tensor, ...]]


def _identity(x: Tensor) -> Tensor:
    return x


def _reshape(x: Tensor, shape: Tensor) -> Tensor:
    """As iOS17 has it: a 0 takes the size of x's axis, counted from the right, or 1 beyond x."""
    wanted = numbers(shape)
    for place in range(1, len(wanted) + 1):
        if wanted[-place] == 0:
            wanted[-place] = x.shape[-place] if place <= x.dim() else 1
    return x.reshape(wanted)


def _transpose(x: Tensor, perm: Tensor) -> Tensor:
    return x.permute(numbers(perm))


def _expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    """Axes are places in the result."""
    rank = x.dim() + axes.numel()
    for axis in sorted(axes_of(axes, rank)):
        x = x.unsqueeze(axis)
    return x


def _squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Named axes that are not 1 long stay, as in PyTorch."""
    return x.squeeze(axes_of(axes, x.dim()))


def _concat(values: tuple[Tensor, ...], axis: Tensor, interleave: Tensor | None = None) -> Tensor:
    """Scalars join to a vector; interleaving takes one slice of each tensor in turn."""
    if values[0].dim() == 0:
        return torch.stack(values)
    along = axis_of(axis, values[0].dim())
    if flag(interleave):
        return torch.stack(values, along + 1).flatten(along, along + 1)
    return torch.cat(values, along)


def _stack(values: tuple[Tensor, ...], axis: Tensor) -> Tensor:
    return torch.stack(values, axis_of(axis, values[0].dim() + 1))


def _split(
    x: Tensor,
    axis: Tensor,
    num_splits: Tensor | None = None,
    split_sizes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Pieces of `split_sizes`, or `num_splits` equal ones. Raises ValueError when they misfit."""
    along = axis_of(axis, x.dim())
    length = x.shape[along]
    if split_sizes is not None:
        sizes = numbers(split_sizes)
    else:
        count = 1 if num_splits is None else number(num_splits)
        sizes = [length // count] * count
    if sum(sizes) != length:
        raise ValueError(f"{length} does not split into {sizes}")
    ends = accumulate(sizes)
    return tuple(x.narrow(along, e - size, size) for e, size in zip(ends, sizes, strict=True))


def _tile(x: Tensor, reps: Tensor) -> Tensor:
    return x.repeat(numbers(reps))


def _reverse(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.flip(axes_of(axes, x.dim()))


def _band_part(x: Tensor, lower: Tensor | None = None, upper: Tensor | None = None) -> Tensor:
    """Zero outside a band around the last two axes' diagonal; a negative width is no limit."""
    below = -1 if lower is None else number(lower)
    above = -1 if upper is None else number(upper)
    row = torch.arange(x.shape[-2]).unsqueeze(1)
    column = torch.arange(x.shape[-1])
    band = ((below < 0) | (row - column <= below)) & ((above < 0) | (column - row <= above))
    return torch.where(band, x, torch.zeros((), dtype=x.dtype))


def _shape(x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int32)


def _fill(shape: Tensor, value: Tensor | None = None) -> Tensor:
    filler = torch.zeros(()) if value is None else value
    return filler.expand(numbers(shape))


def _fill_like(ref_tensor: Tensor, value: Tensor | None = None) -> Tensor:
    return _fill(_shape(ref_tensor), value)


def _range_1d(start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


OPS: Mapping[str, Kernel] = {
    "identity": _identity,
    "reshape": _reshape,
    "transpose": _transpose,
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "concat": _concat,
    "stack": _stack,
    "split": _split,
    "tile": _tile,
    "reverse": _reverse,
    "band_part": _band_part,
    "shape": _shape,
    "fill": _fill,
    "fill_like": _fill_like,
    "range_1d": _range_1d,
}
