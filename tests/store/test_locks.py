"""File locks: who holds one, who is told, and when it ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stillhouse.schemas.errors import StorageError
from stillhouse.store.disk import locks

LONG = 20.0
"""Seconds that nothing here takes."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


# --- by path --------------------------------------------------------------------------------------


def test_a_lock_is_held_until_its_file_is_closed(path: Path) -> None:
    with locks.try_locked(path) as ours:
        assert ours is not None
        assert locks.held(path)
        with locks.try_locked(path) as theirs:
            assert theirs is None
        assert locks.held(path), "who was refused took nothing away"
    assert not locks.held(path)


def test_a_look_makes_no_file(path: Path) -> None:
    assert not locks.held(path)
    assert not path.exists()


def test_two_who_look_see_each_other_as_nobody(path: Path) -> None:
    with locks.opened(path, locks.CREATE) as looking, locks.shared(looking):
        assert not locks.held(path)


def test_a_lock_that_can_not_be_made_tells_of_the_disk(path: Path) -> None:
    with pytest.raises(StorageError), locks.try_locked(path / "lock"):
        pass


def test_an_error_of_the_holder_is_not_told_as_one_of_the_lock(path: Path) -> None:
    with pytest.raises(IsADirectoryError), locks.try_locked(path):
        raise IsADirectoryError
    assert not locks.held(path)


def test_a_lock_that_was_handed_down_outlives_who_took_it(path: Path) -> None:
    with locks.try_locked(path) as lock:
        assert lock is not None
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,)
        )
    assert locks.held(path)
    child.communicate(b"\n")
    assert not locks.held(path)


# --- by descriptor --------------------------------------------------------------------------------


def test_shared_locks_exclude_only_an_exclusive_one(path: Path) -> None:
    with (
        locks.opened(path, locks.CREATE) as first,
        locks.opened(path) as second,
        locks.opened(path) as writer,
    ):
        with locks.shared(first):
            assert locks.try_acquire(second, shared=True)
            assert not locks.try_acquire(writer)
            locks.release(second)
        assert locks.try_acquire(writer)
        assert not locks.try_acquire(second, shared=True)


@pytest.mark.parametrize(("patience", "taken"), [(LONG, True), (0.05, False)])
def test_a_busy_lock_is_waited_for_until_the_deadline(
    path: Path, patience: float, *, taken: bool
) -> None:
    with locks.opened(path, locks.CREATE) as holder, locks.opened(path) as waiting:
        locks.acquire(holder)
        if taken:
            threading.Timer(0.05, locks.release, (holder,)).start()
        begun = time.monotonic()
        assert locks.try_acquire(waiting, until=begun + patience) is taken
        assert 0.04 < time.monotonic() - begun < LONG


def test_without_a_deadline_a_busy_lock_is_not_waited_for(path: Path) -> None:
    with locks.opened(path, locks.CREATE) as holder, locks.opened(path) as other:
        locks.acquire(holder)
        begun = time.monotonic()
        assert not locks.try_acquire(other)
        assert time.monotonic() - begun < 1


def test_a_locked_file_may_have_lost_its_name(path: Path) -> None:
    with locks.opened(path, locks.CREATE) as lock:
        assert locks.still_named(lock, path)
        path.rename(path.with_name("moved"))
        assert not locks.still_named(lock, path)
        path.touch()
        assert not locks.still_named(lock, path)
        assert locks.still_named(lock, path.with_name("moved"))


# --- what is ours from the first moment -----------------------------------------------------------


def maker(folder: Path, *, removed: int = 0) -> Callable[[], str]:
    """Makes folders, of which a sweep takes the first ones before they are even opened."""
    numbers = iter(range(100))

    def make() -> str:
        number = next(numbers)
        made = folder / str(number)
        made.mkdir()
        if number < removed:
            made.rmdir()
        return str(made)

    return make


def test_what_a_sweep_takes_before_it_is_opened_is_made_anew(tmp_path: Path) -> None:
    claimed, lock = locks.claim(maker(tmp_path, removed=2))
    assert (claimed.name, locks.held(claimed)) == ("2", True)
    os.close(lock)


def test_what_a_sweep_takes_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = locks.acquire

    def too_late(descriptor: int) -> None:
        first = tmp_path / "0"
        if first.exists():
            first.rmdir()
        acquire(descriptor)

    monkeypatch.setattr(locks, "acquire", too_late)
    claimed, lock = locks.claim(maker(tmp_path))
    assert (claimed.name, locks.held(claimed)) == ("1", True)
    os.close(lock)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Descriptors that were not locked, as a network file system does with folders."""
    seen: list[int] = []

    def refuse(descriptor: int) -> None:
        seen.append(descriptor)
        raise OSError(errno.EBADF, "no locks here")

    monkeypatch.setattr(locks, "acquire", refuse)
    return seen


def test_a_file_system_without_locks_is_told(tmp_path: Path, refused: list[int]) -> None:
    with pytest.raises(OSError, match="no locks here"):
        locks.claim(maker(tmp_path))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(refused[0])


@pytest.mark.usefixtures("refused")
def test_where_no_lock_is_required_a_file_system_without_them_will_do(tmp_path: Path) -> None:
    claimed, lock = locks.claim(maker(tmp_path), required=False)
    assert claimed == tmp_path / "0"
    os.close(lock)
