"""Operations on states: the only memory that a Core ML model keeps between predictions.

Rules: a state is read as a copy of what was last written, and written as a whole. coremltools'
`coreml_update_state` is saved as a write followed by a read. A cell lives for one run: what is in
it at the end is the run's result, the caller's tensors are never changed.

Source: iOS18/states.py and backend/mil/load.py of coremltools.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

Kernel = Callable[..., Tensor | tuple[Tensor, ...]]


@dataclass(kw_only=True)
class StateCell:
    """One state during a run."""

    tensor: Tensor


def _read_state(input: StateCell) -> Tensor:  # noqa: A002  # MIL's name of the operand
    return input.tensor


def _write_state(input: StateCell, data: Tensor) -> tuple[Tensor, ...]:  # noqa: A002  # MIL's name
    if data.shape != input.tensor.shape:
        raise ValueError(f"a state of shape {tuple(input.tensor.shape)} gets {tuple(data.shape)}")
    input.tensor = data
    return ()


OPS: Mapping[str, Kernel] = {
    "read_state": _read_state,
    "write_state": _write_state,
}
