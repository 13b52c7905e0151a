"""A MIL function as plain values: what `model.mlmodel` says, checked for its structure.

Rules: nothing here opens a file or computes a number. Every operand names an earlier result, an
input, a state or a constant; every name is defined once; a function outputs what it defined. What
breaks a rule is refused with `mil.bad_program`. Shapes of results are checked while running.

Source of the format: `MIL.proto` of coremltools (mlmodel/format/MIL.proto).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stillhouse.phases.mil.tensortype import TensorType, tensor_type
from stillhouse.schemas.errors import UntrustedFileError


@dataclass(frozen=True, kw_only=True)
class BlobRef:
    """A constant that lies in a blob file."""

    file: str
    """As the program spells it: `@model_path/weights/weight.bin`."""
    offset: int
    """Of its metadata, in bytes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Constant:
    """A constant, not yet read: its type and where its numbers are."""

    type: TensorType
    source: BlobRef | Any
    """A BlobRef, or the `TensorValue` message with the immediate numbers."""


Operand = str | Constant
"""The name of a value, or a constant written in place."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One result of an operation."""

    name: str
    type: TensorType


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation, except `const`, in program order."""

    type: str
    """`linear`, `write_state` …"""
    operands: Mapping[str, tuple[Operand, ...]]
    """By parameter name; most have one entry, `values` of concat has many."""
    results: tuple[Result, ...]
    nested_blocks: int
    """Control flow has some; no operation that we run does."""

    @property
    def label(self) -> str:
        """How messages and statistics name this operation: `pow:x_5_cast_fp16`."""
        named = self.results[0].name if self.results else next(self._names(), "?")
        return f"{self.type}:{named}"

    def _names(self) -> Iterator[str]:
        return (o for entry in self.operands.values() for o in entry if isinstance(o, str))


@dataclass(frozen=True, kw_only=True)
class Function:
    """One function of a program: `main`, or one per shape in a multifunction package."""

    name: str
    opset: str
    """`CoreML8` is what the iOS18 target writes."""
    inputs: Mapping[str, TensorType]
    states: Mapping[str, TensorType]
    """Inputs of state type, by name, with the type that they wrap."""
    constants: Mapping[str, Constant]
    operations: tuple[Operation, ...]
    outputs: Mapping[str, TensorType]


def read_function(name: str, message: Any) -> Function:  # noqa: ANN401  # a protobuf message
    """The Function in a `MILSpec.Function` message. Raises UntrustedFileError."""
    if message.opset not in message.block_specializations:
        raise bad_program(f"function {name} has no block for its opset {message.opset!r}")
    return _Reader(name).read(message, message.block_specializations[message.opset])


def bad_program(what: str) -> UntrustedFileError:
    """The refusal of a program whose structure is broken."""
    return UntrustedFileError(
        f"The MIL program is malformed: {what}.",
        remedy="Convert the model again with coremltools for iOS18.",
        code="mil.bad_program",
    )


class _Reader:
    """Reads one function in program order, keeping the types of all names defined so far."""

    def __init__(self, name: str) -> None:
        self._function = name
        self._types: dict[str, TensorType] = {}
        self._inputs: dict[str, TensorType] = {}
        self._states: dict[str, TensorType] = {}
        self._constants: dict[str, Constant] = {}
        self._operations: list[Operation] = []

    def read(self, message: Any, block: Any) -> Function:  # noqa: ANN401  # protobuf messages
        for named in message.inputs:
            self._input(named)
        for operation in block.operations:
            if operation.type == "const":
                self._constant(operation)
            else:
                self._operation(operation)
        return Function(
            name=self._function,
            opset=message.opset,
            inputs=self._inputs,
            states=self._states,
            constants=self._constants,
            operations=tuple(self._operations),
            outputs={name: self._type_of(name, "its outputs") for name in block.outputs},
        )

    def _define(self, name: str, kind: TensorType) -> None:
        if name in self._types:
            raise bad_program(f"{name!r} is defined twice in function {self._function}")
        self._types[name] = kind

    def _type_of(self, name: str, where: str) -> TensorType:
        if name not in self._types:
            raise bad_program(f"{where} name {name!r}, which is not defined before")
        return self._types[name]

    def _input(self, named: Any) -> None:  # noqa: ANN401  # a protobuf message
        if named.type.WhichOneof("type") == "stateType":
            kind = tensor_type(named.type.stateType.wrappedType)
            self._states[named.name] = kind
        else:
            kind = tensor_type(named.type)
            self._inputs[named.name] = kind
        self._define(named.name, kind)

    def _constant(self, operation: Any) -> None:  # noqa: ANN401  # a protobuf message
        if len(operation.outputs) != 1 or "val" not in operation.attributes:
            raise bad_program("a const has no value, or not one output")
        output = operation.outputs[0]
        constant = _constant(operation.attributes["val"])
        if constant.type != tensor_type(output.type):
            raise bad_program(
                f"const {output.name!r} is declared {tensor_type(output.type)}, "
                f"its value {constant.type}"
            )
        self._define(output.name, constant.type)
        self._constants[output.name] = constant

    def _operation(self, operation: Any) -> None:  # noqa: ANN401  # a protobuf message
        operands = {
            parameter: tuple(self._operand(b, operation.type) for b in argument.arguments)
            for parameter, argument in operation.inputs.items()
        }
        results = tuple(
            Result(name=out.name, type=tensor_type(out.type)) for out in operation.outputs
        )
        for result in results:
            self._define(result.name, result.type)
        self._operations.append(
            Operation(
                type=operation.type,
                operands=operands,
                results=results,
                nested_blocks=len(operation.blocks),
            )
        )

    def _operand(self, binding: Any, where: str) -> Operand:  # noqa: ANN401  # a protobuf message
        if binding.WhichOneof("binding") == "value":
            return _constant(binding.value)
        self._type_of(binding.name, f"operands of {where}")
        return str(binding.name)


def _constant(value: Any) -> Constant:  # noqa: ANN401  # a protobuf message
    kind = tensor_type(value.type)
    source = value.WhichOneof("value")
    if source == "blobFileValue":
        blob = BlobRef(file=value.blobFileValue.fileName, offset=value.blobFileValue.offset)
        return Constant(type=kind, source=blob)
    if source == "immediateValue" and value.immediateValue.WhichOneof("value") == "tensor":
        return Constant(type=kind, source=value.immediateValue.tensor)
    raise bad_program(f"a constant of type {kind} has no tensor value")
