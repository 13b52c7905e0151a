"""Constants: from the program's immediate values and the weight file's blobs to torch tensors.

Rules: a constant's numbers must be exactly as many as its declared shape says, and of its declared
dtype. In either arithmetic floats become fp32 tensors (fp16 numbers are exact in fp32), integers
int32. A blob is read once per package and shared by every function and interpreter that uses it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stillhouse.phases.mil.names import inner_parts
from stillhouse.phases.mil.program import BlobRef, Constant
from stillhouse.phases.mil.tensortype import COMPUTE_DTYPES, TensorType
from stillhouse.phases.mil.weights import WeightFile
from stillhouse.schemas.errors import PhaseError, UntrustedFileError

Text = str
"""A string constant: a mode, or the dtype of a cast."""

MODEL_PATH = "@model_path"
"""How MIL spells the folder that holds `model.mlmodel`."""

_STORED: dict[str, torch.dtype] = {
    "float16": torch.float16,
    "float32": torch.float32,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "uint8": torch.uint8,
    "uint16": torch.uint16,
}
"""Dtypes of raw bytes, in blobs and in immediate `bytes` values."""

_LISTS: dict[str | None, frozenset[str]] = {
    "floats": frozenset({"float32"}),
    "ints": frozenset({"int32", "int16", "uint16"}),
    "bools": frozenset({"bool"}),
    None: frozenset(COMPUTE_DTYPES),
}
"""Repeated fields of TensorValue and the dtypes that travel in them; None: an empty tensor."""


class Constants:
    """Reads the constants of one package.

    `folder` is where `@model_path` points: the folder of `model.mlmodel`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, WeightFile] = {}
        self._blobs: dict[tuple[str, int, TensorType], Tensor] = {}

    def load(self, constant: Constant) -> Tensor | Text:
        """The numbers (or the text) of a constant.

        Raises UntrustedFileError when the source contradicts the declared type, or leaves the
        package or the weight file; PhaseError for dtypes that the interpreter does not compute.
        """
        source, kind = constant.source, constant.type
        if isinstance(source, BlobRef):
            key = (source.file, source.offset, kind)
            if key not in self._blobs:
                self._blobs[key] = self._blob(source, kind)
            return self._blobs[key]
        return _immediate(source, kind)

    def _blob(self, source: BlobRef, kind: TensorType) -> Tensor:
        if source.file not in self._files:
            self._files[source.file] = WeightFile(blob_path(self._folder, source.file))
        blob = self._files[source.file].read(source.offset)
        if blob.dtype != kind.dtype:
            raise _mismatch(kind, f"the blob at offset {source.offset} holds {blob.dtype}")
        return _from_bytes(blob.data, kind)


def blob_path(folder: Path, name: str) -> Path:
    """The file that a MIL blob name means.

    Raises UntrustedFileError unless the name is `@model_path/…` and stays inside `folder`.
    """
    first, *rest = inner_parts(name) or ("",)
    if first == MODEL_PATH and rest:
        return folder.joinpath(*rest)
    raise UntrustedFileError(
        f"The program reads weights from {name!r}, which is not inside its package.",
        remedy="Do not use this package: a real one names @model_path/weights/weight.bin.",
        code="mil.blob_path",
    )


def _immediate(message: Any, kind: TensorType) -> Tensor | Text:  # noqa: ANN401  # protobuf
    field = message.WhichOneof("value")
    values = getattr(message, field).values if field else ()
    if field == "bytes":
        return _from_bytes(memoryview(bytearray(values)), kind)
    if field == "strings":
        return _text(list(values), kind)
    return _from_numbers(list(values), kind, field)


def _text(values: list[str], kind: TensorType) -> Text:
    if kind.dtype != "string" or len(values) != 1:
        raise _mismatch(kind, f"it holds {len(values)} strings")
    return values[0]


def _from_numbers(values: list[float], kind: TensorType, field: str | None) -> Tensor:
    dtype, shape = _computable(kind)
    if kind.dtype not in _LISTS.get(field, ()) or len(values) != math.prod(shape):
        raise _mismatch(kind, f"it holds {len(values)} values in {field}")
    return torch.tensor(values, dtype=dtype).reshape(shape)


def _from_bytes(data: memoryview, kind: TensorType) -> Tensor:
    dtype, shape = _computable(kind)
    stored = _STORED.get(kind.dtype)
    if stored is None:
        raise unsupported(kind)
    if len(data) != math.prod(shape) * stored.itemsize:
        raise _mismatch(kind, f"it holds {len(data)} bytes")
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=stored).to(dtype, copy=True).reshape(shape)


def _computable(kind: TensorType) -> tuple[torch.dtype, tuple[int, ...]]:
    shape = tuple(size for size in kind.shape if size is not None)
    if kind.dtype not in COMPUTE_DTYPES or len(shape) != len(kind.shape):
        raise unsupported(kind)
    return COMPUTE_DTYPES[kind.dtype], shape


def unsupported(kind: TensorType) -> PhaseError:
    """The refusal of a type that the interpreter does not compute."""
    return PhaseError(
        f"The interpreter does not compute values of type {kind}.",
        remedy="Convert the model with float16 or float32 numbers and int32 indices.",
        code="mil.unsupported_type",
    )


def _mismatch(kind: TensorType, what: str) -> UntrustedFileError:
    return UntrustedFileError(
        f"A constant is declared {kind}, but {what}.",
        remedy="The package is damaged or forged: convert the model again.",
        code="mil.constant_mismatch",
    )
