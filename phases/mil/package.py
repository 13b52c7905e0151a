"""A saved `.mlpackage`: its files, what it tells Core ML users, and what its program says.

Rules: opening reads only what `Manifest.json` names inside `Data/`. Nothing is compiled, and no
weight is read before a number is needed. The description (for users) and the functions (the
program) are kept apart: Core ML matches them by name at run time, and nothing in coremltools
notices when they disagree.

Sources: `Model.proto` and `MIL.proto` of coremltools; the manifest as `MLModel.save` writes it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stillhouse.phases.mil.names import inner_parts
from stillhouse.phases.mil.program import Function, Operation, bad_program, read_function
from stillhouse.phases.mil.tensortype import FEATURE_DTYPES, TensorType
from stillhouse.phases.mil.values import Constants
from stillhouse.schemas import canonical
from stillhouse.schemas.errors import UntrustedFileError

_MANIFEST_LIMIT = 1 << 20
"""Bytes. A real manifest has about 800."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Names and types at a function's border, in order of appearance."""

    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]
    states: Mapping[str, TensorType]


@dataclass(frozen=True, kw_only=True)
class StateUse:
    """How often one state is touched by a function's operations."""

    reads: int
    writes: int


class Package:
    """An opened package. Functions are parsed once; weights are read lazily and shared."""

    def __init__(self, path: Path, specification: Any, functions: Mapping[str, Function]) -> None:  # noqa: ANN401  # a protobuf message
        self.path = path
        self.folder = _model_file(path).parent
        """Of `model.mlmodel`; what `@model_path` means."""
        self.specification = specification
        """The `Model` message, for coremltools' own readers."""
        self._functions = functions
        self.constants = Constants(self.folder)

    @classmethod
    def open(cls, path: Path) -> Package:
        """Read a package's manifest and program.

        Raises UntrustedFileError when the folder is not an ML program package, or is malformed:
        `mil.manifest`, `mil.bad_model`, `mil.bad_program`, `mil.bad_type`.
        """
        specification = _specification(_model_file(path))
        functions = {
            name: read_function(name, message)
            for name, message in sorted(specification.mlProgram.functions.items())
        }
        if not functions:
            raise bad_program("it has no function")
        return cls(path, specification, functions)

    @property
    def specification_version(self) -> int:
        """9 is what the iOS18 target writes."""
        return int(self.specification.specificationVersion)

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the program's functions, sorted."""
        return tuple(self._functions)

    def function(self, name: str = "main") -> Function:
        """One function of the program. Raises UntrustedFileError when there is no such."""
        if name not in self._functions:
            raise bad_program(f"it has no function {name!r}, only {', '.join(self._functions)}")
        return self._functions[name]

    def opset(self, function: str = "main") -> str:
        """The operation set a function is written in; `CoreML8` for iOS18."""
        return self.function(function).opset

    def signature(self, function: str = "main") -> Signature:
        """Inputs, outputs and states as the program itself declares them."""
        found = self.function(function)
        return Signature(inputs=found.inputs, outputs=found.outputs, states=found.states)

    def description(self, function: str = "main") -> Signature:
        """Inputs, outputs and states as the package describes them to Core ML users.

        A multifunction package describes each function; any other describes its only one at the
        top. A shape that the description leaves out (enumerated outputs) is ().
        """
        description = self.specification.description
        for described in description.functions:
            if described.name == function:
                return _described(described)
        if description.functions or function not in self._functions:
            raise bad_program(f"function {function!r} is not described")
        return _described(description)

    def ops(self, function: str = "main") -> tuple[Operation, ...]:
        """The operations of a function in program order, constants left out."""
        return self.function(function).operations

    def op_histogram(self, function: str = "main") -> dict[str, int]:
        """How many operations of each type a function has, most frequent first; with `const`."""
        counts = Counter(operation.type for operation in self.ops(function))
        counts["const"] = len(self.function(function).constants)
        return dict(counts.most_common())

    def state_use(self, function: str = "main") -> dict[str, StateUse]:
        """Per declared state: how many operations read it and write it."""
        touched = Counter(
            (operation.type, name)
            for operation in self.ops(function)
            for name in operation.operands.get("input", ())
            if operation.type in {"read_state", "write_state"} and isinstance(name, str)
        )
        return {
            state: StateUse(
                reads=touched["read_state", state], writes=touched["write_state", state]
            )
            for state in self.function(function).states
        }


def manifest_faults(package: Path) -> tuple[str, ...]:
    """What the manifest lists and is not there, and what is there and it does not list.

    Raises UntrustedFileError (`mil.manifest`), or InputError, when the manifest cannot be read.
    """
    entries = _manifest(package / "Manifest.json")["itemInfoEntries"].values()
    names = [str(entry.get("path", "")) for entry in entries]
    listed = [PurePosixPath("Data", *inner_parts(name)) for name in names if inner_parts(name)]
    found = sorted(f.relative_to(package) for f in package.rglob("*") if f.is_file())
    return (
        *(f"{name!r} is listed and not inside Data/" for name in names if not inner_parts(name)),
        *(f"{item} is listed and missing" for item in listed if not (package / item).exists()),
        *(
            f"{file} is not listed"
            for file in map(PurePosixPath, found)
            if file != PurePosixPath("Manifest.json")
            and not any(file.is_relative_to(item) for item in listed)
        ),
    )


@contextmanager
def quiet_coremltools() -> Iterator[None]:
    """Hold back what coremltools logs while it is imported.

    Off macOS it warns of each missing Core ML library and of untested torch versions. Its errors
    still come through, and afterwards its logger is as before.
    """
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _specification(file: Path) -> Any:  # noqa: ANN401  # a protobuf message
    with quiet_coremltools():
        from coremltools.proto import Model_pb2
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    specification: Any = Model_pb2.Model()
    try:
        specification.ParseFromString(file.read_bytes())
    except (OSError, DecodeError) as error:
        raise UntrustedFileError(
            f"{file.name} cannot be read as a Core ML model: {error}.",
            remedy="Convert the model again.",
            code="mil.bad_model",
        ) from error
    if specification.WhichOneof("Type") != "mlProgram":
        raise bad_program(f"the model is a {specification.WhichOneof('Type')}, not an ML program")
    return specification


def _model_file(package: Path) -> Path:
    """The root model that the manifest names."""
    manifest = _manifest(package / "Manifest.json")
    entry = manifest["itemInfoEntries"].get(str(manifest.get("rootModelIdentifier")), {})
    name = entry.get("path")
    parts = inner_parts(name) if isinstance(name, str) else ()
    if not parts:
        raise _bad_manifest(f"its root model is {name!r}, which is not inside Data/")
    return package.joinpath("Data", *parts)


def _manifest(file: Path) -> Mapping[str, Any]:
    try:
        with file.open("rb") as opened:
            text = opened.read(_MANIFEST_LIMIT)
    except OSError as error:
        raise _bad_manifest(f"it cannot be read ({error.strerror})") from error
    manifest = canonical.decode(text)
    entries = manifest.get("itemInfoEntries")
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise _bad_manifest("it lists no items")
    return manifest


def _described(message: Any) -> Signature:  # noqa: ANN401  # a protobuf message
    return Signature(
        inputs={feature.name: _feature_type(feature.type) for feature in message.input},
        outputs={feature.name: _feature_type(feature.type) for feature in message.output},
        states={feature.name: _feature_type(feature.type) for feature in message.state},
    )


def _feature_type(message: Any) -> TensorType:  # noqa: ANN401  # a protobuf message
    kind = message.WhichOneof("Type")
    if kind not in {"multiArrayType", "stateType"}:
        raise bad_program(f"its description has a feature of type {kind}")
    array = message.stateType.arrayType if kind == "stateType" else message.multiArrayType
    if array.dataType not in FEATURE_DTYPES:
        raise bad_program(f"its description has array type {array.dataType}")
    return TensorType(
        dtype=FEATURE_DTYPES[array.dataType], shape=tuple(int(size) for size in array.shape)
    )


def _bad_manifest(what: str) -> UntrustedFileError:
    return UntrustedFileError(
        f"Manifest.json of this package does not serve: {what}.",
        remedy="Give a folder that coremltools saved as .mlpackage.",
        code="mil.manifest",
    )
