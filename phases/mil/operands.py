"""How kernels read the small operands that steer them: axes, sizes, flags.

Rules: such an operand arrives as a tensor, because MIL lets most of them be computed; kernels get
Python numbers from here. Axes are given back non-negative and in range.
"""

from __future__ import annotations

from torch import Tensor


def number(value: Tensor) -> int:
    """A scalar integer operand."""
    return int(value.item())


def numbers(value: Tensor) -> list[int]:
    """A 1-D integer operand (a scalar counts as one number)."""
    return [int(v) for v in value.reshape(-1).tolist()]


def flag(value: Tensor | None, *, default: bool = False) -> bool:
    """A scalar boolean operand."""
    return default if value is None else bool(value.item())


def flags(value: Tensor | None, rank: int) -> list[bool]:
    """A boolean per axis; all False when the operand is absent. Raises ValueError."""
    found = [False] * rank if value is None else [bool(v) for v in value.reshape(-1).tolist()]
    if len(found) != rank:
        raise ValueError(f"a mask has {len(found)} entries for rank {rank}")
    return found


def axis_of(value: Tensor | int, rank: int) -> int:
    """One axis, counted from the front. Raises IndexError when it is outside the rank."""
    axis = value if isinstance(value, int) else number(value)
    if not -rank <= axis < rank:
        raise IndexError(f"axis {axis} of a tensor of rank {rank}")
    return axis % rank


def axes_of(value: Tensor | None, rank: int) -> list[int]:
    """Axes counted from the front; every axis when the operand is absent. Raises IndexError."""
    if value is None:
        return list(range(rank))
    axes = [axis_of(axis, rank) for axis in numbers(value)]
    if len(set(axes)) != len(axes):
        raise IndexError(f"axes {axes} name an axis twice")
    return axes


def floats_only(*values: Tensor) -> None:
    """Refuse integers where the documentation does not say how they round. Raises TypeError."""
    if not all(value.is_floating_point() for value in values):
        raise TypeError("the operation is not defined for integers here")
