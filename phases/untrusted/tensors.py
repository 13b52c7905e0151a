"""Safetensors headers: what is in the file, and whether all of it is inside the file.

Format: https://github.com/huggingface/safetensors#format. Eight bytes, the little-endian length N
of the header; N bytes of JSON, `{name: {dtype, shape, data_offsets: [begin, end]}}` with an
optional `__metadata__` of texts; then the data, which the tensors cover without gap or overlap.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from stillhouse.phases.untrusted.reading import refused
from stillhouse.schemas import canonical
from stillhouse.schemas.canonical import Json
from stillhouse.schemas.errors import InputError, UntrustedFileError
from stillhouse.store.disk.durable import reading

TensorFact = tuple[str, tuple[int, ...]]
"""(dtype as the file writes it, shape)."""

MAX_HEADER = 100_000_000
"""Bytes; the limit of the format's own reader."""
_MAX_RANK = 16
_MAX_DIMENSION = 2**48

_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SafetensorsSummary:
    """What a file holds."""

    tensors: Mapping[str, TensorFact]
    """By name."""
    parameters: int
    """Elements of all tensors together."""
    metadata: Mapping[str, str]
    """The texts of `__metadata__`."""


def check_safetensors(path: Path) -> SafetensorsSummary:
    """Read the header of `path` and check every claim in it against the file's length.

    Raises UntrustedFileError (`safetensors.malformed`), InputError when it cannot be read.
    """
    with reading(path), path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _malformed(path, "is not a regular file")
        header, payload = _header(path, file, status.st_size)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _malformed(path, "has `__metadata__` that is not a table of texts")
    spans: list[tuple[int, int, str]] = []
    tensors: dict[str, TensorFact] = {}
    for name, entry in header.items():
        begin, end, tensors[name] = _tensor(path, name, entry)
        spans.append((begin, end, name))
    _cover(path, spans, payload)
    return SafetensorsSummary(
        tensors=tensors,
        parameters=sum(math.prod(shape) for _, shape in tensors.values()),
        metadata=metadata,
    )


def _header(path: Path, file: BinaryIO, size: int) -> tuple[Json, int]:
    """Return the header and the number of bytes after it."""
    prefix = file.read(8)
    if len(prefix) < 8:  # noqa: PLR2004  # the format's fixed prefix
        raise _malformed(path, "is too short to be a safetensors file")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER or 8 + length > size:
        raise _malformed(path, f"claims a header of {length} bytes in a file of {size}")
    data = file.read(length)
    if len(data) != length or not data.startswith(b"{"):
        raise _malformed(path, "has no JSON header")
    try:
        return canonical.decode(data), size - 8 - length
    except InputError as error:
        raise _malformed(path, f"has a header that cannot be read ({error.message})") from error


def _tensor(path: Path, name: str, entry: Any) -> tuple[int, int, TensorFact]:  # noqa: ANN401  # JSON
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _malformed(path, f"describes tensor {name!r} without dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _malformed(path, f"gives tensor {name!r} the unknown dtype {str(dtype)[:40]!r}")
    if not _naturals(shape) or len(shape) > _MAX_RANK:
        raise _malformed(path, f"gives tensor {name!r} a shape that is not one")
    if not _naturals(offsets) or len(offsets) != 2:  # noqa: PLR2004  # begin and end
        raise _malformed(path, f"gives tensor {name!r} data_offsets that are not two offsets")
    begin, end = offsets
    bits = math.prod(shape) * _BITS[dtype]
    if bits % 8 or end - begin != bits // 8:
        raise _malformed(
            path,
            f"gives tensor {name!r} {end - begin} bytes; {dtype} {shape} needs {bits / 8:.10g}",
        )
    return begin, end, (dtype, tuple(shape))


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < _MAX_DIMENSION for item in value
    )


def _cover(path: Path, spans: list[tuple[int, int, str]], payload: int) -> None:
    position = 0
    for begin, end, name in sorted(spans):
        if end > payload:
            raise _malformed(
                path, f"places tensor {name!r} at {begin}-{end}, past its {payload} bytes"
            )
        if begin != position:
            what = "overlapping" if begin < position else "after a gap before"
            raise _malformed(path, f"places tensor {name!r} {what} byte {position}")
        position = end
    if position != payload:
        raise _malformed(path, f"has {payload - position} bytes that belong to no tensor")


def _malformed(path: Path, what: str) -> UntrustedFileError:
    return refused(
        path,
        what,
        code="safetensors.malformed",
        remedy="Download or export it again; it is damaged or was made to mislead.",
    )
