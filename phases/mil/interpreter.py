"""Runs a function of a saved package on this machine, to check its numbers without a Mac.

Two kinds of arithmetic:

- `fp32`: every float is an fp32 number. What differs from the original model is the conversion or
  the weights.
- `declared`: every result is rounded to its declared dtype (fp16) after being computed, and
  accumulated, in fp32. What differs from `fp32` is fp16's precision and range.

Rules: an operation that is not in the table is an error, never skipped. Every result must have the
dtype, and the static shape, that the program declares. Nothing is bit-exact for any Apple unit: the
order of accumulation, the inside of fused operations and what the Neural Engine does are not
modelled. A pass here is necessary, not sufficient.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from stillhouse.phases.mil.checks import bad_operands, check_function, mistyped
from stillhouse.phases.mil.operations import COMPUTING, OPS
from stillhouse.phases.mil.ops.linear import ATTENTION, attention_scores
from stillhouse.phases.mil.ops.state import StateCell
from stillhouse.phases.mil.package import Package
from stillhouse.phases.mil.program import Constant, Function, Operand, Operation, Result
from stillhouse.phases.mil.tally import RunStats, Tally
from stillhouse.phases.mil.tensortype import CAST_DTYPES, COMPUTE_DTYPES, INTEGER_RANGES, TensorType
from stillhouse.phases.mil.values import Text, unsupported
from stillhouse.schemas.errors import PhaseError

Arithmetic = Literal["fp32", "declared"]

_VARIADIC = "values"
"""The operand of concat and stack that holds many values."""

_GIVEN_DTYPES: dict[str, frozenset[torch.dtype]] = {
    "float16": frozenset({torch.float16, torch.float32}),
    "float32": frozenset({torch.float32}),
    "int32": frozenset({torch.int32}),
    "bool": frozenset({torch.bool}),
}
"""What a caller may give for a declared dtype; fp32 numbers for fp16 are rounded when declared."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run gives back. Floats are fp32 tensors whatever their declared dtype."""

    outputs: dict[str, Tensor]
    states: dict[str, Tensor]
    """To be passed to the next run; the tensors given to this one are unchanged."""
    stats: RunStats


class Interpreter:
    """One function of a package in one arithmetic. Constants are read once, when checked."""

    def __init__(
        self, package: Package, *, arithmetic: Arithmetic = "fp32", function: str = "main"
    ) -> None:
        self._package = package
        self._arithmetic = arithmetic
        self._function = package.function(function)
        self._released = _last_uses(self._function)
        self._constants: dict[str, Tensor | Text] = {}
        self._checked = False

    def check(self) -> None:
        """Check all that can be known before a number is computed, and read the constants.

        Raises PhaseError: see phases/mil/checks.py; UntrustedFileError for constants that do not
        lie in the package, or are not what they are declared to be.
        """
        check_function(self._function)
        if not self._checked:
            self._constants = {
                name: self._package.constants.load(constant)
                for name, constant in self._function.constants.items()
            }
        self._checked = True

    def new_states(self) -> dict[str, Tensor]:
        """Every state filled with zeros, as Core ML makes them."""
        return {
            name: torch.zeros(_static(kind), dtype=COMPUTE_DTYPES[kind.dtype])
            for name, kind in self._function.states.items()
        }

    @torch.inference_mode()
    def run(
        self, inputs: Mapping[str, Tensor], states: Mapping[str, Tensor] | None = None
    ) -> RunResult:
        """Run the function once.

        `inputs` must be exactly the declared ones, with their shapes; fp16 inputs may be given in
        fp32. `states` default to zeros.

        Raises PhaseError: what `check` raises, `mil.input_mismatch`, `mil.shape_mismatch`,
        `mil.dtype_mismatch`, `mil.integer_range`, `mil.op_failed`; UntrustedFileError for constants
        that do not lie in the package.
        """
        if not self._checked:
            self.check()
        values = self._given(inputs, self._function.inputs, "input")
        held = self.new_states() if states is None else states
        cells = {
            name: StateCell(tensor=tensor)
            for name, tensor in self._given(held, self._function.states, "state").items()
        }
        tally = Tally()
        for operation, released in zip(self._function.operations, self._released, strict=True):
            self._step(operation, values, cells, tally)
            for name in released:
                del values[name]
        return RunResult(
            outputs={
                name: tensor
                for name in self._function.outputs
                if isinstance(tensor := self._value(name, values), Tensor)
            },
            states={name: cell.tensor for name, cell in cells.items()},
            stats=tally.stats(),
        )

    def _step(
        self,
        operation: Operation,
        values: dict[str, Tensor],
        cells: Mapping[str, StateCell],
        tally: Tally,
    ) -> None:
        operands = {
            parameter: self._operand(parameter, entry, values, cells)
            for parameter, entry in operation.operands.items()
        }
        _check_cast(operation, operands)
        computed = _call(operation, operands)
        if operation.type == ATTENTION:
            self._measure_scores(operation, operands, tally)
        if len(computed) != len(operation.results):
            raise bad_operands(operation, f"it makes {len(computed)} results")
        for result, raw in zip(operation.results, computed, strict=True):
            _check_result(operation, result, raw)
            values[result.name] = raw
            if operation.type in COMPUTING and raw.is_floating_point():
                rounded = self._rounded(raw, result.type)
                tally.measure(operation.label, raw, rounded, _tensors(operands.values()))
                values[result.name] = rounded
        tally.executed += 1

    def _measure_scores(
        self, operation: Operation, operands: Mapping[str, object], tally: Tally
    ) -> None:
        query, key = operands["query"], operands["key"]
        assert isinstance(query, Tensor)  # noqa: S101  # the kernel took it
        assert isinstance(key, Tensor)  # noqa: S101
        halves = self._arithmetic == "declared" and any(
            result.type.dtype == "float16" for result in operation.results
        )
        tally.measure_scores(operation.label, attention_scores(query, key), rounds=halves)

    def _operand(
        self,
        parameter: str,
        entry: tuple[Operand, ...],
        values: Mapping[str, Tensor],
        cells: Mapping[str, StateCell],
    ) -> object:
        if parameter == _VARIADIC:
            return tuple(self._value(operand, values) for operand in entry)
        (operand,) = entry
        if isinstance(operand, str) and operand in cells:
            return cells[operand]
        return self._value(operand, values)

    def _value(self, operand: Operand, values: Mapping[str, Tensor]) -> Tensor | Text:
        if isinstance(operand, Constant):
            return self._package.constants.load(operand)
        return values[operand] if operand in values else self._constants[operand]

    def _rounded(self, value: Tensor, kind: TensorType) -> Tensor:
        if self._arithmetic == "declared" and kind.dtype == "float16":
            return value.to(torch.float16).to(torch.float32)
        return value

    def _given(
        self, given: Mapping[str, Tensor], declared: Mapping[str, TensorType], what: str
    ) -> dict[str, Tensor]:
        if given.keys() != declared.keys():
            raise _mismatched_input(
                f"{what}s {sorted(given)} are given where {sorted(declared)} are declared"
            )
        for name, kind in declared.items():
            found = given[name]
            if not kind.accepts(tuple(found.shape)) or found.dtype not in _GIVEN_DTYPES.get(
                kind.dtype, ()
            ):
                raise _mismatched_input(
                    f"{what} {name} is {found.dtype}{list(found.shape)}, declared {kind}"
                )
        return {
            name: self._rounded(given[name].to(COMPUTE_DTYPES[kind.dtype]), kind)
            for name, kind in declared.items()
        }


def _call(operation: Operation, operands: Mapping[str, object]) -> tuple[Tensor, ...]:
    try:
        made = OPS[operation.type](**operands)
    except (RuntimeError, ValueError, IndexError, TypeError, KeyError) as error:
        raise PhaseError(
            f"The operation {operation.label} failed: {error}.",
            remedy="The package asks for something undefined: look at this operation's operands.",
            code="mil.op_failed",
        ) from error
    return made if isinstance(made, tuple) else (made,)


def _check_cast(operation: Operation, operands: Mapping[str, object]) -> None:
    """The dtype of a cast stands twice: as an operand, and in the type of its result."""
    if operation.type == "cast":
        spelled = CAST_DTYPES.get(str(operands["dtype"]))
        if [result.type.dtype for result in operation.results] != [spelled]:
            raise mistyped(operation, f"a cast to {operands['dtype']}")


def _check_result(operation: Operation, result: Result, value: Tensor) -> None:
    kind = result.type
    if kind.dtype not in COMPUTE_DTYPES:
        raise unsupported(kind)
    if value.dtype != COMPUTE_DTYPES[kind.dtype]:
        raise mistyped(operation, f"{value.dtype} is computed for {kind}")
    if not kind.accepts(tuple(value.shape)):
        raise PhaseError(
            f"The operation {operation.label} makes shape {list(value.shape)}, declared {kind}.",
            remedy="The package contradicts itself: convert the model again.",
            code="mil.shape_mismatch",
        )
    if kind.dtype in INTEGER_RANGES and value.numel():
        low, high = INTEGER_RANGES[kind.dtype]
        if not low <= int(value.min()) <= int(value.max()) <= high:
            raise PhaseError(
                f"The operation {operation.label} makes {int(value.min())} … {int(value.max())}, "
                f"which no {kind.dtype} holds.",
                remedy="What a device does then is undefined: give inputs in range.",
                code="mil.integer_range",
            )


def _last_uses(function: Function) -> tuple[tuple[str, ...], ...]:
    """Per operation: the values that nothing needs after it, so that memory can be given back."""
    last = {
        name: place
        for place, operation in enumerate(function.operations)
        for name in (*_operand_names(operation), *(r.name for r in operation.results))
    }
    kept = {*function.outputs, *function.states, *function.constants}
    released: list[list[str]] = [[] for _ in function.operations]
    for name, place in last.items():
        if name not in kept:
            released[place].append(name)
    return tuple(tuple(names) for names in released)


def _operand_names(operation: Operation) -> Iterator[str]:
    return (o for entry in operation.operands.values() for o in entry if isinstance(o, str))


def _tensors(operands: Iterable[object]) -> Iterator[Tensor]:
    for operand in operands:
        if isinstance(operand, Tensor):
            yield operand
        elif isinstance(operand, tuple):
            yield from operand


def _static(kind: TensorType) -> tuple[int, ...]:
    sizes = tuple(size for size in kind.shape if size is not None)
    if len(sizes) != len(kind.shape) or kind.dtype not in COMPUTE_DTYPES:
        raise unsupported(kind)
    return sizes


def _mismatched_input(what: str) -> PhaseError:
    return PhaseError(
        f"The inputs do not fit the function: {what}.",
        remedy="Give exactly the inputs and states that `package.signature()` lists.",
        code="mil.input_mismatch",
    )
