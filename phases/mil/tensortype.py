"""The types of MIL values: dtype names, static shapes, and how they are read from protobuf.

Rules: dtypes have NumPy's names everywhere (`float16`, not `fp16` or `FLOAT16`). A dimension that
the program does not fix is None. Type numbers are those of `MIL.proto` and `FeatureTypes.proto` of
coremltools; they are spelled out here so that a changed enum can not silently change a meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from stillhouse.schemas.errors import UntrustedFileError

Shape = tuple[int | None, ...]
"""Sizes per axis; None where the program leaves the size open."""

MIL_DTYPES: dict[int, str] = {
    1: "bool",
    2: "string",
    10: "float16",
    11: "float32",
    12: "float64",
    13: "bfloat16",
    21: "int8",
    22: "int16",
    23: "int32",
    24: "int64",
    25: "int4",
    31: "uint8",
    32: "uint16",
    33: "uint32",
    34: "uint64",
    35: "uint4",
    36: "uint2",
    37: "uint1",
    38: "uint6",
    39: "uint3",
    40: "float8_e4m3fn",
    41: "float8_e5m2",
}
"""`DataType` of MIL.proto."""

FEATURE_DTYPES: dict[int, str] = {
    65552: "float16",
    65568: "float32",
    65600: "float64",
    131080: "int8",
    131104: "int32",
}
"""`ArrayFeatureType.ArrayDataType` of FeatureTypes.proto."""

CAST_DTYPES: dict[str, str] = {
    "bool": "bool",
    "fp16": "float16",
    "fp32": "float32",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "uint8": "uint8",
    "uint16": "uint16",
}
"""What MIL's own `dtype` operands say, and what it is called here."""

COMPUTE_DTYPES: dict[str, torch.dtype] = {
    "bool": torch.bool,
    "float16": torch.float32,
    "float32": torch.float32,
    "int8": torch.int32,
    "int16": torch.int32,
    "int32": torch.int32,
    "uint8": torch.int32,
    "uint16": torch.int32,
}
"""How a MIL dtype is held while interpreting: floats in fp32, integers in int32, in both modes."""

INTEGER_RANGES: dict[str, tuple[int, int]] = {
    "int8": (-128, 127),
    "int16": (-32768, 32767),
    "uint8": (0, 255),
    "uint16": (0, 65535),
}
"""Integers narrower than the int32 they are held in: results must fit."""


@dataclass(frozen=True, kw_only=True)
class TensorType:
    """The declared type of one MIL value. A scalar has shape ()."""

    dtype: str
    shape: Shape

    @property
    def is_float(self) -> bool:
        """Whether the value holds floating-point numbers."""
        return self.dtype in {"float16", "float32"}

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of `shape` is one of this type (open dimensions take any size)."""
        return len(shape) == len(self.shape) and all(
            want is None or want == have for want, have in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.dtype}[{sizes}]"


def tensor_type(value_type: Any) -> TensorType:  # noqa: ANN401  # a protobuf message
    """The TensorType of a `ValueType` message.

    Raises UntrustedFileError for lists, tuples, dictionaries, tensors of open rank, and ranks that
    contradict their dimensions.
    """
    if value_type.WhichOneof("type") != "tensorType":
        raise _bad_type(f"a value of kind {value_type.WhichOneof('type')!r} is not a tensor")
    tensor = value_type.tensorType
    dtype = MIL_DTYPES.get(tensor.dataType)
    if dtype is None:
        raise _bad_type(f"data type {tensor.dataType} is unknown")
    if tensor.rank != len(tensor.dimensions):
        raise _bad_type(f"rank {tensor.rank} has {len(tensor.dimensions)} dimensions")
    return TensorType(dtype=dtype, shape=tuple(_size(d) for d in tensor.dimensions))


def _size(dimension: Any) -> int | None:  # noqa: ANN401  # a protobuf message
    if dimension.WhichOneof("dimension") == "constant":
        return int(dimension.constant.size)
    if dimension.unknown.variadic:
        raise _bad_type("the rank of a tensor is open")
    return None


def _bad_type(what: str) -> UntrustedFileError:
    return UntrustedFileError(
        f"The MIL program has a type we do not read: {what}.",
        remedy="Convert the model again with coremltools for iOS18.",
        code="mil.bad_type",
    )
