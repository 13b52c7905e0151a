"""Operations that pick and place: slices, gathers, scatters, selection, one-hot vectors.

Rules: no number is changed, so nothing is rounded or counted after these (see interpreter.py).
Since iOS17 negative or too large indices of gather and scatter are out of bounds, and what a device
then does is undefined: here they are errors. coremltools itself turns negative indices into
positive ones before a gather.

Source: the docstrings of coremltools/converters/mil/mil/ops/defs, iOS15 tensor_transformation.py
(slices), iOS17 scatter_gather.py, iOS18 tensor_transformation.py (slice_update).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from stillhouse.phases.mil.operands import axis_of, flags, number, numbers

Kernel = Callable[..., Tensor | tuple[Tensor, ...]]
Region = tuple[tuple[slice | int, ...], list[int]]
"""A place in a tensor: an index with forward steps, and the axes of the result to turn around."""


def _slice_by_index(
    *,
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    """`x[begin:end:stride, …]` as in NumPy; masked ends are open, squeezed axes are indexed."""
    index, turned = _region(
        tuple(x.shape), begin, end, stride, (begin_mask, end_mask, squeeze_mask)
    )
    return x[index].flip(turned)


def _slice_update(
    *,
    x: Tensor,
    update: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    """A copy with `x[begin:end:stride, …] = update`; the shapes are equal, nothing broadcasts."""
    index, turned = _region(
        tuple(x.shape), begin, end, stride, (begin_mask, end_mask, squeeze_mask)
    )
    changed = x.clone()
    if changed[index].shape != update.shape:
        raise ValueError(f"an update of shape {tuple(update.shape)} for another slice")
    changed[index] = update.flip(turned)
    return changed


def _region(
    shape: tuple[int, ...],
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None,
    masks: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> Region:
    """Torch has no backward steps: they become the same elements forwards, turned around after."""
    rank = len(shape)
    steps = [1] * rank if stride is None else numbers(stride)
    rows = zip(
        shape, numbers(begin), numbers(end), steps, *(flags(m, rank) for m in masks), strict=True
    )
    index: list[slice | int] = []
    turned: list[int] = []
    for size, first, last, step, open_first, open_last, squeezed in rows:
        if squeezed:
            index.append(0 if open_first else axis_of(first, size))
            continue
        span = slice(None if open_first else first, None if open_last else last, step)
        turned += [sum(isinstance(i, slice) for i in index)] if step < 0 else []
        index.append(_forwards(range(*span.indices(size))))
    return tuple(index), turned


def _forwards(places: range) -> slice:
    if not places:
        return slice(0, 0)
    return slice(min(places), max(places) + 1, abs(places.step))


def _slice_by_size(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    """`size` elements per axis from `begin`; -1 takes the rest. Raises IndexError past the end."""
    for axis, (start, length) in enumerate(zip(numbers(begin), numbers(size), strict=True)):
        first = start + x.shape[axis] if start < 0 else start
        taken = x.shape[axis] - first if length == -1 else length
        if first < 0 or taken < 0 or first + taken > x.shape[axis]:
            raise IndexError(f"{taken} elements from {first} of {x.shape[axis]}")
        x = x.narrow(axis, first, taken)
    return x


def _gather(
    x: Tensor,
    indices: Tensor,
    axis: Tensor | None = None,
    batch_dims: Tensor | None = None,
    validate_indices: Tensor | None = None,
) -> Tensor:
    """Slices of x [D] along `axis` at `indices` [N].

    The result is D[:axis] + N[batch_dims:] + D[axis+1:]: the leading `batch_dims` axes of both go
    in step.
    """
    del validate_indices  # here indices are always validated
    along = axis_of(0 if axis is None else axis, x.dim())
    batch = 0 if batch_dims is None else number(batch_dims)
    picks = _in_bounds(indices, x.shape[along])
    shape = (*x.shape[:along], *indices.shape[batch:], *x.shape[along + 1 :])
    if batch == 0:
        return x.index_select(along, picks.reshape(-1)).reshape(shape)
    rows = x.flatten(0, batch - 1)
    chosen = [
        row.index_select(along - batch, pick)
        for row, pick in zip(rows, picks.reshape(rows.shape[0], -1), strict=True)
    ]
    return torch.stack(chosen).reshape(shape)


def _gather_along_axis(
    x: Tensor,
    indices: Tensor,
    axis: Tensor | None = None,
    validate_indices: Tensor | None = None,
) -> Tensor:
    """One element of x per index, along `axis`; the shapes are equal on the other axes."""
    del validate_indices  # here indices are always validated
    along = axis_of(0 if axis is None else axis, x.dim())
    return x.gather(along, _in_bounds(indices, x.shape[along]))


def _gather_nd(
    x: Tensor,
    indices: Tensor,
    batch_dims: Tensor | None = None,
    validate_indices: Tensor | None = None,
) -> Tensor:
    """Slices of x at index vectors: the last axis of `indices` is a place in x's first axes."""
    del validate_indices  # here indices are always validated
    if batch_dims is not None and number(batch_dims):
        raise ValueError("gather_nd with batch dimensions is not interpreted")
    return x[_places(indices, x)]


def _scatter_nd(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    mode: str = "add",
    validate_indices: Tensor | None = None,
) -> Tensor:
    """A copy with slices at index vectors replaced. Only mode `update` moves numbers unchanged.

    Raises ValueError for other modes, and for index vectors that repeat: which one then wins is
    not documented.
    """
    del validate_indices  # here indices are always validated
    rows = indices.reshape(-1, indices.shape[-1]).tolist()
    if mode != "update" or len({tuple(row) for row in rows}) != len(rows):
        raise ValueError(f"scatter_nd in mode {mode!r}, or with repeated places")
    changed = data.clone()
    places = _places(indices, data)
    if changed[places].shape != updates.shape:
        raise ValueError(f"updates of shape {tuple(updates.shape)} for other places")
    changed[places] = updates
    return changed


def _places(indices: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """One index tensor per leading axis of x, from vectors in the last axis of `indices`."""
    columns = indices.unbind(-1)
    return tuple(_in_bounds(c, size) for c, size in zip(columns, x.shape, strict=False))


def _in_bounds(indices: Tensor, size: int) -> Tensor:
    """Indices as torch wants them. Raises IndexError for one outside 0 … size-1."""
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < size:
        raise IndexError(
            f"indices {int(indices.min())} to {int(indices.max())} of an axis of {size}"
        )
    return indices.long()


def _select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond, a, b)


def _one_hot(
    indices: Tensor,
    one_hot_vector_size: Tensor,
    axis: Tensor | None = None,
    on_value: Tensor | None = None,
    off_value: Tensor | None = None,
) -> Tensor:
    """`on_value` where the new axis has the index, `off_value` elsewhere."""
    size = number(one_hot_vector_size)
    along = axis_of(-1 if axis is None else axis, indices.dim() + 1)
    hits = _in_bounds(indices, size).unsqueeze(-1) == torch.arange(size)
    on = torch.ones((), dtype=torch.int32) if on_value is None else on_value
    off = torch.zeros((), dtype=torch.int32) if off_value is None else off_value
    return torch.where(hits, on, off).movedim(-1, along)


OPS: Mapping[str, Kernel] = {
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "slice_update": _slice_update,
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
    "scatter_nd": _scatter_nd,
    "select": _select,
    "one_hot": _one_hot,
}
