"""What can be known of a function before a number is computed.

Rules: an operation outside the table, an operand that a kernel does not have, or a result declared
with a float dtype that none of its operands has, is an error. Nothing unknown is passed over.
"""

from __future__ import annotations

import inspect

from stillhouse.phases.mil.operations import OPS
from stillhouse.phases.mil.program import Constant, Function, Operand, Operation
from stillhouse.phases.mil.tensortype import COMPUTE_DTYPES, TensorType
from stillhouse.phases.mil.values import unsupported
from stillhouse.schemas.errors import PhaseError

OPSETS = frozenset({"CoreML7", "CoreML8"})
"""iOS17 and iOS18: the kernels follow the documentation of these."""


def unknown_ops(function: Function) -> tuple[Operation, ...]:
    """The operations of a function that the interpreter does not know."""
    return tuple(op for op in function.operations if op.type not in OPS or op.nested_blocks)


def check_function(function: Function) -> None:
    """Refuse a function that the interpreter could not run faithfully.

    Raises PhaseError: `mil.unsupported_opset`, `mil.unknown_op`, `mil.unsupported_type`,
    `mil.bad_operands`, `mil.dtype_mismatch`.
    """
    if function.opset not in OPSETS:
        raise PhaseError(
            f"Function {function.name} is written in opset {function.opset!r}.",
            remedy="Convert for iOS18: the interpreter knows CoreML7 and CoreML8.",
            code="mil.unsupported_opset",
        )
    for operation in unknown_ops(function):
        raise PhaseError(
            f"The interpreter does not know the operation {operation.type!r}, which makes "
            f"{operation.label.partition(':')[2]!r} in function {function.name!r}.",
            remedy="Add its kernel, with a test, to phases/mil; it is never skipped.",
            code="mil.unknown_op",
        )
    _check_border(function)
    types = _types(function)
    for operation in function.operations:
        _check_operands(operation)
        if operation.type != "cast":  # whose result is checked against its `dtype` when it runs
            _check_float_results(operation, types)


def bad_operands(operation: Operation, why: str) -> PhaseError:
    """The refusal of an operation that is called unlike it is documented."""
    return PhaseError(
        f"The operation {operation.label} cannot be run: {why}.",
        remedy="Convert the model again for iOS18, or extend the kernel in phases/mil.",
        code="mil.bad_operands",
    )


def mistyped(operation: Operation, why: str) -> PhaseError:
    """The refusal of a result whose declared dtype is not what the operation makes."""
    return PhaseError(
        f"The operation {operation.label} is declared with a wrong dtype: {why}.",
        remedy="The package is damaged, or written for other operations: convert it again.",
        code="mil.dtype_mismatch",
    )


def _check_border(function: Function) -> None:
    for border in (function.inputs, function.states, function.outputs):
        for kind in border.values():
            if kind.dtype not in COMPUTE_DTYPES:
                raise unsupported(kind)


def _check_operands(operation: Operation) -> None:
    try:
        inspect.signature(OPS[operation.type]).bind(**dict.fromkeys(operation.operands))
    except TypeError as error:
        raise bad_operands(operation, str(error)) from error
    for parameter, entry in operation.operands.items():
        if parameter != "values" and len(entry) != 1:
            raise bad_operands(operation, f"operand {parameter!r} has {len(entry)} values")


def _check_float_results(operation: Operation, types: dict[str, TensorType]) -> None:
    operands = [_type(o, types) for entry in operation.operands.values() for o in entry]
    floats = {kind.dtype for kind in operands if kind.is_float}
    for result in operation.results:
        if result.type.is_float and floats and result.type.dtype not in floats:
            raise mistyped(operation, f"{result.type} from {', '.join(sorted(floats))}")


def _type(operand: Operand, types: dict[str, TensorType]) -> TensorType:
    return operand.type if isinstance(operand, Constant) else types[operand]


def _types(function: Function) -> dict[str, TensorType]:
    """The declared type of every name in a function."""
    constants = {name: constant.type for name, constant in function.constants.items()}
    results = {r.name: r.type for op in function.operations for r in op.results}
    return {**function.inputs, **function.states, **constants, **results}
