"""Pouring a file past the page cache: whatever its length, and whatever the disk says to that."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from stillhouse.store.disk.hashing import Hasher, hash_bytes
from stillhouse.store.disk.kernel import bypass_cache
from stillhouse.store.disk.streaming import PIECE, pour

Write = Callable[[int, bytes | memoryview], int]

LENGTHS = [PIECE - 1, PIECE, PIECE + 1, PIECE + 4096, 2 * PIECE, 2 * PIECE + 4095]


def poured(folder: Path, data: bytes) -> tuple[bytes, str]:
    """What arrived, and the digest of what was read."""
    source, target = folder / "source", folder / "target"
    source.write_bytes(data)
    hasher = Hasher(expected=len(data))
    with source.open("rb") as reader, target.open("xb") as writer:
        count = pour(
            reader.fileno(),
            writer.fileno(),
            size=len(data),
            hasher=hasher,
            guard=nullcontext,
            cached=False,
        )
    assert count == len(data)
    return target.read_bytes(), hasher.result().digest


def bypasses(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & getattr(os, "O_DIRECT", 0))


@pytest.mark.parametrize("length", LENGTHS)
def test_a_file_of_any_length_arrives_whole(tmp_path: Path, length: int) -> None:
    data = os.urandom(length)
    assert poured(tmp_path, data) == (data, hash_bytes(data).digest)


def test_large_files_go_past_the_cache_where_the_file_system_lets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "probe").open("xb") as probe:
        wanted = bypass_cache(probe.fileno(), bypass=True)
    seen: list[tuple[int, bool]] = []
    write: Write = os.write

    def note(descriptor: int, part: bytes | memoryview) -> int:
        seen.append((len(part), bypasses(descriptor)))
        return write(descriptor, part)

    monkeypatch.setattr(os, "write", note)
    poured(tmp_path, os.urandom(PIECE + 4097))
    assert (
        seen == [(PIECE, wanted), (4096, True), (1, False)]
        if wanted
        else not any(past for _, past in seen)
    )


def test_a_disk_with_larger_blocks_is_written_to_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(PIECE + 4097)
    refused = 0
    write: Write = os.write

    def larger_blocks(descriptor: int, part: bytes | memoryview) -> int:
        nonlocal refused
        if bypasses(descriptor):
            refused += 1
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return write(descriptor, part)

    monkeypatch.setattr(os, "write", larger_blocks)
    assert poured(tmp_path, data)[0] == data
    assert refused <= 1  # asked once at most: a tmpfs has no such writes at all


@pytest.mark.parametrize("most", [4096, PIECE // 2, 1_000_000, PIECE // 2 + 4096 + 1])
def test_a_disk_that_takes_a_part_at_a_time_gets_every_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    data = os.urandom(PIECE + 4097)
    write: Write = os.write
    monkeypatch.setattr(os, "write", lambda fd, part: write(fd, part[:most]))
    # A device takes whole blocks only, so an odd count comes from a file system that copies.
    assert poured(tmp_path, data)[0] == data


def test_another_error_is_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _part: bytes | memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        poured(tmp_path, bytes(2 * PIECE))
