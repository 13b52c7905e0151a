"""The ledger among processes that die, and on disks that refuse."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.schemas.errors import StorageError
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import TagMoved

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SOMEONE = Actor(user="ada", host="still-1")


def run_writers(log: Path, *, seconds: float, kills: int, writers: int) -> None:
    script = Path(__file__).with_name("writers.py")
    command = [sys.executable, str(script), str(log), str(seconds), str(kills), str(writers)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)


def acknowledged(log: Path) -> list[tuple[int, str]]:
    """(seq, batch) of every acknowledged event; a last note cut by a kill is left out."""
    found = []
    for notes in log.parent.glob(f"{log.name}.*.acks"):
        for note in notes.read_text().splitlines(keepends=True):
            if note.endswith("\n"):
                seq, batch = note.split()
                found.append((int(seq), batch))
    return found


def tag(name: str) -> TagMoved:
    return TagMoved(name=name, digest="ab" * 32)


def test_sixteen_writers_make_one_gapless_chain(tmp_path: Path) -> None:
    log = tmp_path / "events.log"
    run_writers(log, seconds=1.5, kills=0, writers=16)
    audit = Ledger(log, lambda: NOON, SOMEONE).audit()
    acks = acknowledged(log)
    assert (audit.fault, audit.torn) == (None, 0)
    assert sorted(seq for seq, _ in acks) == list(range(1, audit.events + 1))
    assert len(list(tmp_path.glob("*.acks"))) == 16


def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    log = tmp_path / "events.log"
    run_writers(log, seconds=3, kills=12, writers=3)
    ledger = Ledger(log, lambda: NOON, SOMEONE)
    ledger.append([tag("afterwards")])
    recorded = {event.seq: event.batch for event in ledger.read()}
    acks = acknowledged(log)
    assert len(acks) > 50
    assert [note for note in acks if recorded.get(note[0]) != note[1]] == []
    assert (ledger.audit().fault, ledger.audit().torn) == (None, 0)


def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "events.log", lambda: NOON, SOMEONE)
    ledger.append([tag("before")])
    whole = ledger.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 1000, hard))
    try:
        with pytest.raises(StorageError, match="Free space") as caught:
            ledger.append([tag("a"), tag("b" * 500), tag("c" * 500)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code == "ledger.not_written"
    assert ledger.path.read_bytes() == whole
    assert ledger.append([tag("after")])[0].seq == 2


def test_a_disk_that_stays_full_refuses_each_append() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    ledger = Ledger(full, lambda: NOON, SOMEONE)
    for _ in range(2):
        with pytest.raises(StorageError):
            ledger.append([tag("x")])


def test_after_a_failed_sync_nothing_more_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    ledger = Ledger(tmp_path / "events.log", lambda: NOON, SOMEONE)
    ledger.append([tag("good")])
    with monkeypatch.context() as broken_disk:
        broken_disk.setattr(os, "fdatasync", refuse)
        with pytest.raises(StorageError, match="synced"):
            ledger.append([tag("lost")])
    with pytest.raises(StorageError) as caught:
        ledger.append([tag("more")])
    assert caught.value.code == "ledger.poisoned"


def test_the_name_of_a_new_ledger_is_durable_before_its_first_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, pwrite = os.fsync, os.pwrite

    def noted_fsync(fd: int) -> None:
        order.append("folder")
        fsync(fd)

    def noted_pwrite(fd: int, data: bytes, offset: int) -> int:
        order.append("write")
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "pwrite", noted_pwrite)
    ledger = Ledger(tmp_path / "events.log", lambda: NOON, SOMEONE)
    ledger.append([tag("a")])
    ledger.append([tag("b")])
    assert order == ["folder", "write", "write"]
