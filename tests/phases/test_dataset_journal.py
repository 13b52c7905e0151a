"""The journal keeps whole records through kills, and nothing else."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.phases.data.journal import Journal
from stillhouse.schemas.errors import StorageError


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def kept(path: Path, numbers: range) -> list[bytes | None]:
    with Journal(path) as journal:
        return [journal.get(key(n)) for n in numbers]


def fill(path: Path, *values: bytes) -> Path:
    with Journal(path) as journal:
        for number, value in enumerate(values):
            journal.keep(key(number), value)
    return path


def test_what_was_kept_is_there_next_time(tmp_path: Path) -> None:
    path = fill(tmp_path / "j", b"one", b"", b"three" * 9999)
    assert kept(path, range(4)) == [b"one", b"", b"three" * 9999, None]


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 120))
def test_a_torn_tail_costs_only_what_it_tore(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = fill(tmp_path_factory.mktemp("j") / "j", b"a" * 20, b"b" * 20)
    data = path.read_bytes()
    frame = len(data) // 2
    path.write_bytes(data[: len(data) - cut])
    whole = (len(data) - cut) // frame
    assert kept(path, range(2)) == [b"a" * 20 if whole > 0 else None, None]
    with Journal(path) as journal:
        journal.keep(key(7), b"after")
    assert kept(path, range(7, 8)) == [b"after"]


def test_a_flipped_bit_ends_the_journal_there(tmp_path: Path) -> None:
    path = fill(tmp_path / "j", b"a" * 20, b"b" * 20, b"c" * 20)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert kept(path, range(3)) == [b"a" * 20, None, None]


@pytest.mark.parametrize("junk", [b"\0" * 64, b"\xff" * 64, b"x"])
def test_junk_at_the_end_is_dropped(tmp_path: Path, junk: bytes) -> None:
    path = fill(tmp_path / "j", b"a")
    with path.open("ab") as file:
        file.write(junk)
    assert kept(path, range(2)) == [b"a", None]


def test_a_killed_writer_loses_nothing_that_it_had_kept(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal\n"
        "from pathlib import Path\n"
        "from stillhouse.phases.data.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for n in range(5):\n"
        "    journal.keep(f'{n:064x}', bytes([n]) * 100)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "j")],
        cwd=root,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    with Journal(tmp_path / "j") as journal:
        assert [journal.get(f"{n:064x}") for n in range(5)] == [bytes([n]) * 100 for n in range(5)]


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with Journal(tmp_path / "j") as journal:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, journal._descriptor)
        os.close(full)
        with pytest.raises(StorageError, match="full"):
            journal.keep(key(1), b"x")
        assert journal.get(key(1)) is None
