"""GGUF headers: a bounded reader of our own, run before a native one sees the file.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Little-endian; magic `GGUF`,
u32 version, u64 number of tensors, u64 number of metadata entries; the entries; the tensors' names,
dimensions, types and offsets; padding to `general.alignment`; the data.
"""

from __future__ import annotations

import math
import os
import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from stillhouse.phases.untrusted.chat import check_chat_template
from stillhouse.phases.untrusted.reading import refused
from stillhouse.schemas.errors import UntrustedFileError
from stillhouse.store.disk.durable import reading

Scalar = int | float | bool | str

_VERSIONS = (2, 3)
_MAX_HEADER = 1 << 28
_MAX_TENSORS = 100_000
_MAX_ENTRIES = 100_000
_MAX_KEY = 65_535
_MAX_NAME = 1024
_MAX_TEXT = 1 << 24
_KEPT_TEXT = 1 << 20
_MAX_ELEMENTS = 1 << 24
_MAX_NESTING = 4
_MAX_RANK = 4
_MAX_DIMENSION = 2**40
_MAX_ALIGNMENT = 1 << 20

_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""Value type → struct format."""

_TENSOR_TYPES = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 40), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18),
}  # fmt: skip
"""Tensor type → (elements in a block, bytes of a block); `enum ggml_type` and its block structs."""


@dataclass(frozen=True, kw_only=True)
class GgufSummary:
    """What a file says about itself."""

    architecture: str
    """`general.architecture`: `llama`, …"""
    name: str | None
    """`general.name`."""
    tensors: int
    """How many."""
    parameters: int
    """Elements of all tensors together."""
    metadata: Mapping[str, Scalar]
    """Every entry that is no array; texts up to 1 MiB."""


def check_gguf(path: Path) -> GgufSummary:
    """Read the header of `path` and check every length and offset in it against the file.

    Raises UntrustedFileError (`gguf.malformed`, `chat_template.too_long`), InputError when it
    cannot be read.
    """
    with reading(path), path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise malformed(path, "is not a regular file")
        return _Reader(path, file, status.st_size).summary()


def malformed(path: Path, what: str) -> UntrustedFileError:
    """Make the error for a GGUF file that is damaged or was made to mislead."""
    return refused(
        path,
        what,
        code="gguf.malformed",
        remedy="Download it again, or convert the model again with a current llama.cpp.",
    )


class _Reader:
    """A cursor that never leaves the file."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self._path = path
        self._file = file
        self._size = size
        self._at = 0

    def summary(self) -> GgufSummary:
        tensors, entries = self._preamble()
        metadata = self._metadata(entries)
        alignment = self._alignment(metadata)
        spans, parameters = self._tensors(tensors)
        self._inside(spans, alignment)
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str) or not re.fullmatch(r"[a-z0-9_-]{1,64}", architecture):
            raise self._bad("has no general.architecture")
        template = metadata.get("tokenizer.chat_template")
        if isinstance(template, str):
            check_chat_template(template)
        name = metadata.get("general.name")
        return GgufSummary(
            architecture=architecture,
            name=name if isinstance(name, str) else None,
            tensors=tensors,
            parameters=parameters,
            metadata=metadata,
        )

    def _preamble(self) -> tuple[int, int]:
        if self._size < 24 or self._take(4) != b"GGUF":  # noqa: PLR2004  # the fixed preamble
            raise self._bad("is not a GGUF file")
        version = self._number("I")
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
            what = "big-endian" if swapped else f"version {version}"
            raise self._bad(f"is a GGUF file of a form that is not supported ({what})")
        tensors, entries = self._number("Q"), self._number("Q")
        if tensors > _MAX_TENSORS or entries > _MAX_ENTRIES:
            raise self._bad(f"claims {tensors} tensors and {entries} metadata entries")
        return tensors, entries

    def _metadata(self, entries: int) -> dict[str, Scalar]:
        kept: dict[str, Scalar] = {}
        seen: set[str] = set()
        for _ in range(entries):
            key = self._text(_MAX_KEY)
            if key in seen:
                raise self._bad(f"has the metadata key {key[:80]!r} twice")
            seen.add(key)
            kind = self._number("I")
            if kind == _ARRAY:
                self._skip_array(1)
            elif kind == _STRING:
                text = self._text(_MAX_TEXT)
                if len(text) <= _KEPT_TEXT:
                    kept[key] = text
            else:
                kept[key] = self._scalar(kind)
        return kept

    def _alignment(self, metadata: Mapping[str, Scalar]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment % 8 or not 0 < alignment <= _MAX_ALIGNMENT:
            raise self._bad(f"claims an alignment of {str(alignment)[:40]}")
        return alignment

    def _tensors(self, count: int) -> tuple[list[tuple[int, int, str]], int]:
        """Return (offset, bytes, name) of each tensor, and the elements of all."""
        spans: list[tuple[int, int, str]] = []
        names: set[str] = set()
        parameters = 0
        for _ in range(count):
            name = self._text(_MAX_NAME)
            if name in names:
                raise self._bad(f"names tensor {name[:80]!r} twice")
            names.add(name)
            elements, size = self._extent(name)
            parameters += elements
            spans.append((self._number("Q"), size, name))
        return spans, parameters

    def _extent(self, name: str) -> tuple[int, int]:
        """Return (elements, bytes) of the tensor whose dimensions and type come next."""
        rank = self._number("I")
        if not 1 <= rank <= _MAX_RANK:
            raise self._bad(f"gives tensor {name[:80]!r} {rank} dimensions")
        dimensions = [self._number("Q") for _ in range(rank)]
        kind = self._number("I")
        if kind not in _TENSOR_TYPES:
            raise self._bad(f"gives tensor {name[:80]!r} the unknown type {kind}")
        block, block_bytes = _TENSOR_TYPES[kind]
        if not all(0 < d < _MAX_DIMENSION for d in dimensions) or dimensions[0] % block:
            raise self._bad(f"gives tensor {name[:80]!r} the impossible dimensions {dimensions}")
        elements = math.prod(dimensions)
        return elements, elements // block * block_bytes

    def _inside(self, spans: list[tuple[int, int, str]], alignment: int) -> None:
        start = -(-self._at // alignment) * alignment
        room = max(self._size - start, 0)
        end = 0
        for offset, size, name in sorted(spans):
            if offset % alignment:
                raise self._bad(f"places tensor {name[:80]!r} at the unaligned offset {offset}")
            if offset + size > room:
                raise self._bad(
                    f"places tensor {name[:80]!r} at {offset}-{offset + size}, past the {room}"
                    " bytes of data"
                )
            if offset < end:
                raise self._bad(f"places tensor {name[:80]!r} on top of another")
            end = offset + size

    def _skip_array(self, depth: int) -> None:
        kind, count = self._number("I"), self._number("Q")
        if count > _MAX_ELEMENTS or depth > _MAX_NESTING:
            raise self._bad(f"claims an array of {count} elements, {depth} deep")
        if kind == _ARRAY:
            for _ in range(count):
                self._skip_array(depth + 1)
        elif kind == _STRING:
            for _ in range(count):
                self._skip(self._number("Q"))
        else:
            self._skip(count * struct.calcsize(self._format(kind)))

    def _scalar(self, kind: int) -> Scalar:
        form = self._format(kind)
        return cast("Scalar", struct.unpack(f"<{form}", self._take(struct.calcsize(form)))[0])

    def _format(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise self._bad(f"has metadata of the unknown type {kind}")
        return _SCALARS[kind]

    def _text(self, limit: int) -> str:
        length = self._number("Q")
        if length > limit:
            raise self._bad(f"claims a text of {length} bytes at byte {self._at}")
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            raise self._bad(f"has a text that is not UTF-8 before byte {self._at}") from error

    def _number(self, form: str) -> int:
        return int.from_bytes(self._take(struct.calcsize(form)), "little")

    def _take(self, count: int) -> bytes:
        self._advance(count)
        data = self._file.read(count)
        if len(data) != count:
            raise self._bad("became shorter while it was being read")
        return data

    def _skip(self, count: int) -> None:
        self._advance(count)
        self._file.seek(self._at)

    def _advance(self, count: int) -> None:
        if count > self._size - self._at:
            raise self._bad(f"ends inside its header, at byte {self._size}")
        self._at += count
        if self._at > _MAX_HEADER:
            raise self._bad(f"has a header of more than {_MAX_HEADER} bytes")

    def _bad(self, what: str) -> UntrustedFileError:
        return malformed(self._path, what)
