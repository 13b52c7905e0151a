"""The one table of operations that the interpreter knows. What is not here is an error.

Two families differ in what follows a kernel. Operations that compute make new numbers: their float
results are measured, and rounded in declared arithmetic. Operations that move hand on numbers that
were measured and rounded when they were made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from stillhouse.phases.mil.ops import elementwise as ops_elementwise
from stillhouse.phases.mil.ops import indexing as ops_indexing
from stillhouse.phases.mil.ops import linear as ops_linear
from stillhouse.phases.mil.ops import reduction as ops_reduction
from stillhouse.phases.mil.ops import shape as ops_shape
from stillhouse.phases.mil.ops import state as ops_state

Kernel = Callable[..., Tensor | tuple[Tensor, ...]]

COMPUTING: Mapping[str, Kernel] = {
    **ops_elementwise.OPS,
    **ops_linear.OPS,
    **ops_reduction.OPS,
}
MOVING: Mapping[str, Kernel] = {
    **ops_indexing.OPS,
    **ops_shape.OPS,
    **ops_state.OPS,
}
OPS: Mapping[str, Kernel] = {**COMPUTING, **MOVING}
