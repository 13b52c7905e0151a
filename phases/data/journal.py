"""Finished work, kept record by record, so that a kill loses at most the record in flight.

One file of frames: payload length (u32), CRC-32 of the payload (u32), payload; little-endian. A
payload is a 32-byte key, then the value. Each frame is durable before the next piece of work
begins. Whatever does not read back whole ends the file: it is the frame that was being written.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from stillhouse.schemas.digest import Digest
from stillhouse.store.disk.durable import sync, writing

_FRAME = struct.Struct("<II")
_KEY = 32


class Journal:
    """Values by digest, in one append-only file."""

    def __init__(self, path: Path) -> None:
        """Open `path`, made if need be, and cut off a torn tail. Raises StorageError."""
        self._path = path
        self._values: dict[Digest, bytes] = {}
        with writing(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            end = 0
            for end, payload in _frames(path.read_bytes()):  # noqa: B007  # its last value is the end
                self._values[payload[:_KEY].hex()] = payload[_KEY:]
            os.ftruncate(self._descriptor, end)
            os.lseek(self._descriptor, end, os.SEEK_SET)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def get(self, key: Digest) -> bytes | None:
        """The value kept under `key`, or None."""
        return self._values.get(key)

    def keep(self, key: Digest, value: bytes) -> None:
        """Keep a value; it survives a kill once this returns. Raises StorageError."""
        payload = bytes.fromhex(key) + value
        frame = _FRAME.pack(len(payload), zlib.crc32(payload)) + payload
        with writing(self._path):
            written = os.write(self._descriptor, frame)
            if written != len(frame):
                raise OSError(f"wrote {written} of {len(frame)} bytes")
            sync(self._descriptor)
        self._values[key] = value


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each whole frame's end and payload."""
    start = 0
    while start + _FRAME.size <= len(data):
        length, checksum = _FRAME.unpack_from(data, start)
        begin, end = start + _FRAME.size, start + _FRAME.size + length
        payload = data[begin:end]
        if length < _KEY or len(payload) < length or zlib.crc32(payload) != checksum:
            return
        yield end, payload
        start = end
