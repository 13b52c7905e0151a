"""`weight.bin`: the blob file that holds a package's large constants.

Own reader of Core ML's blob storage format, version 2. The format is documented in the comments of
coremltools' `mlmodel/src/MILBlob/Blob/StorageFormat.hpp` and `BlobDataType.hpp`; the code is ours.

    storage header, 64 bytes    count u32 · version u32 (2) · 56 reserved bytes
    blob metadata,  64 bytes    sentinel u32 (0xDEADBEEF) · dtype u32 · size u64 · offset u64
                                · padding bits u64 · 32 reserved bytes
    data                        `size` bytes at `offset` from the start of the file

All little-endian; headers and data lie at multiples of 64. A constant of the program names the
offset of its metadata. The file comes from outside: nothing in it is believed before it is checked
against the size of the file.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from stillhouse.schemas.errors import UntrustedFileError

ALIGNMENT = 64
SENTINEL = 0xDEADBEEF
VERSION = 2

BLOB_DTYPES: dict[int, str] = {
    1: "float16",
    2: "float32",
    3: "uint8",
    4: "int8",
    5: "bfloat16",
    6: "int16",
    7: "uint16",
    8: "int4",
    9: "uint1",
    10: "uint2",
    11: "uint4",
    12: "uint3",
    13: "uint6",
    14: "int32",
    15: "uint32",
    16: "float8_e4m3fn",
    17: "float8_e5m2",
}
"""`BlobDataType` of BlobDataType.hpp."""

_HEADER = struct.Struct("<II")
_METADATA = struct.Struct("<IIQQ")


@dataclass(frozen=True, kw_only=True)
class Blob:
    """One entry: its dtype and its bytes, a view of the mapped file."""

    dtype: str
    data: memoryview


class WeightFile:
    """A mapped blob file. Opening checks the header, `read` checks each entry.

    Raises UntrustedFileError when the file is too short or is not blob storage version 2.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = _mapped(path)
        count, version = _HEADER.unpack_from(self._bytes)
        if version != VERSION:
            raise self._malformed(f"storage version {version} with {count} blobs")

    def read(self, offset: int) -> Blob:
        """The blob whose metadata lie at byte `offset`.

        Raises UntrustedFileError when the offset or the entry it names leaves the file, or when
        there is no entry at that offset.
        """
        self._within(offset, ALIGNMENT, "metadata")
        sentinel, code, size, start = _METADATA.unpack_from(self._bytes, offset)
        if sentinel != SENTINEL or offset % ALIGNMENT or start % ALIGNMENT:
            raise self._malformed(f"no blob begins at offset {offset}")
        if code not in BLOB_DTYPES:
            raise self._malformed(f"the blob at offset {offset} has data type {code}")
        self._within(start, size, "data")
        return Blob(dtype=BLOB_DTYPES[code], data=self._bytes[start : start + size])

    def _within(self, offset: int, size: int, what: str) -> None:
        """Python integers do not wrap, so one comparison is enough."""
        if offset < ALIGNMENT or offset + size > len(self._bytes):
            raise UntrustedFileError(
                f"{self.path.name} has {len(self._bytes)} bytes, but a constant wants {size} bytes "
                f"of {what} at offset {offset}.",
                remedy="The file is truncated or forged: convert the model again.",
                code="mil.weights_out_of_range",
            )

    def _malformed(self, what: str) -> UntrustedFileError:
        return UntrustedFileError(
            f"{self.path.name} is not a Core ML blob file: {what}.",
            remedy="Convert the model again; we read blob storage version 2.",
            code="mil.weights_malformed",
        )


def _mapped(path: Path) -> memoryview:
    """A private, writable mapping: torch refuses read-only buffers, and writes stay in memory."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:  # mmap refuses an empty file with ValueError
        raise UntrustedFileError(
            f"The weight file {path.name} cannot be read: {error}.",
            remedy="The package is incomplete: convert the model again.",
            code="mil.weights_missing",
        ) from error
    if len(mapped) < ALIGNMENT:
        raise UntrustedFileError(
            f"The weight file {path.name} has only {len(mapped)} bytes.",
            remedy="The file is truncated: convert the model again.",
            code="mil.weights_out_of_range",
        )
    return memoryview(mapped)
