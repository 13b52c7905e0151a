"""Waiting: what ends it, what does not get lost, and that nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from stillhouse.phases.reactor import waiting
from stillhouse.phases.reactor.waiting import Wakeups

LONG = 30.0
"""Seconds that no wait of these tests takes; one that does was not woken."""

STILL = 1.5
"""Seconds after which no notice of what was done before comes; the inbox's are gathered for 1 s."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "events.log"
    path.write_bytes(b"1\n")
    return path


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    (folder / "source").mkdir(parents=True)
    return folder


def _ended_early(wakeups: Wakeups) -> bool:
    begun = time.monotonic()
    wakeups.wait(LONG)
    return time.monotonic() - begun < LONG / 2


def _append(log: Path) -> None:
    with log.open("ab") as file:
        file.write(b"2\n")


def _descriptors() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def _until_still(wakeups: Wakeups, seconds: float = STILL) -> None:
    """Hear what there is to hear of what was done so far."""
    heard = True
    while heard:
        begun = time.monotonic()
        wakeups.wait(seconds)
        heard = wakeups.inbox_noticed() or time.monotonic() - begun < seconds


def _soon(action: Callable[[], object]) -> None:
    threading.Timer(0.1, action).start()


@pytest.mark.parametrize("poll", [None, 0.05])
def test_a_longer_log_ends_the_wait(log: Path, poll: float | None) -> None:
    with Wakeups(log, poll=poll) as wakeups:
        _soon(lambda: _append(log))
        assert _ended_early(wakeups)


@pytest.mark.parametrize("poll", [None, 0.05])
def test_what_was_appended_between_two_waits_is_not_missed(log: Path, poll: float | None) -> None:
    with Wakeups(log, poll=poll) as wakeups:
        wakeups.wait(0.01)
        _append(log)
        assert _ended_early(wakeups)


def test_the_time_ends_it_when_nothing_happens(log: Path, inbox: Path) -> None:
    with Wakeups(log, inbox=inbox) as wakeups:
        wakeups.wait(0.01)
        assert not wakeups.inbox_noticed()


@pytest.mark.parametrize("deep", ["", "a/b/c"])
def test_a_change_anywhere_in_the_inbox_ends_it_and_is_told_once(
    log: Path, inbox: Path, deep: str
) -> None:
    folder = inbox / "source" / deep
    folder.mkdir(parents=True, exist_ok=True)
    with Wakeups(log, inbox=inbox) as wakeups:
        _soon(lambda: (folder / "new").write_text("x"))
        assert _ended_early(wakeups)
        assert wakeups.inbox_noticed()
        assert not wakeups.inbox_noticed()


def test_polling_looks_into_the_inbox_now_and_then(log: Path, inbox: Path) -> None:
    with Wakeups(log, inbox=inbox, poll=0.05) as wakeups:
        assert _ended_early(wakeups)
        assert wakeups.inbox_noticed()


def test_the_end_of_a_child_ends_it(log: Path) -> None:
    with Wakeups(log) as wakeups:
        child = subprocess.Popen([sys.executable, "-c", "pass"])
        assert _ended_early(wakeups)
        assert child.wait() == 0


def test_a_handled_signal_ends_it(log: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with Wakeups(log) as wakeups:
            _soon(lambda: os.kill(os.getpid(), signal.SIGTERM))
            assert _ended_early(wakeups)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_a_wait_for_a_moment_that_is_months_away_is_no_fault(log: Path) -> None:
    with Wakeups(log) as wakeups:
        _append(log)
        wakeups.wait(90 * 24 * 3600.0)


def test_no_wait_is_without_an_end_and_then_the_inbox_is_worth_a_look(
    log: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LONGEST_SECONDS", 0.05)
    with Wakeups(log, inbox=inbox) as wakeups:
        wakeups.wait(None)
        assert wakeups.inbox_noticed()


def _replace(log: Path) -> None:
    copy = log.with_name("copy")
    shutil.copy(log, copy)
    copy.rename(log)


def _remove_and_copy(log: Path) -> None:
    data = log.read_bytes()
    log.unlink()
    log.write_bytes(data)


def _move_away(log: Path) -> None:
    data = log.read_bytes()
    log.rename(log.with_name("old"))
    log.write_bytes(data)


@pytest.mark.parametrize("restore", [_replace, _remove_and_copy, _move_away])
def test_a_log_that_was_restored_from_a_copy_is_listened_to(
    log: Path, restore: Callable[[Path], None]
) -> None:
    with log.open("ab"), Wakeups(log) as wakeups:  # open, as a writer's is: its inode stays
        for _ in range(2):
            restore(log)
            _until_still(wakeups, 0.1)
            _append(log)
            assert _ended_early(wakeups)


def test_a_log_that_is_gone_for_a_while_is_listened_to_when_it_is_back(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.05)
    told: list[str] = []
    with Wakeups(log, tell=told.append) as wakeups:
        log.unlink()
        wakeups.wait(0.2)
        log.write_bytes(b"1\n")
        assert _ended_early(wakeups)
        wakeups.wait(0.01)
        _append(log)
        assert _ended_early(wakeups)
    assert told == []


def _removed(inbox: Path) -> None:
    shutil.rmtree(inbox)


def _moved(inbox: Path) -> None:
    inbox.rename(inbox.with_name("old inbox"))


@pytest.mark.parametrize("away", [_removed, _moved])
@pytest.mark.parametrize("at_once", [True, False])
def test_an_inbox_that_is_made_again_is_listened_to(
    log: Path,
    inbox: Path,
    away: Callable[[Path], None],
    at_once: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.05)
    with Wakeups(log, inbox=inbox) as wakeups:
        away(inbox)
        if not at_once:
            wakeups.wait(0.2)
            wakeups.wait(0.2)
        (inbox / "source").mkdir(parents=True)
        _until_still(wakeups)
        (inbox / "source" / "new").write_text("x")
        assert _ended_early(wakeups)
        assert wakeups.inbox_noticed()


def _full_pipe() -> tuple[int, int]:
    reader, writer = PIPE()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    return reader, writer


PIPE = os.pipe


def test_a_notice_that_nobody_has_heard_for_long_is_not_the_last_one(
    log: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pipe", _full_pipe)
    monkeypatch.setattr(waiting, "_STEP_MS", 10)
    monkeypatch.setattr(waiting, "_GROUP_MS", 20)
    with Wakeups(log, inbox=inbox) as wakeups:
        (inbox / "source" / "one").write_text("x")
        time.sleep(0.3)  # until the thread has met the full pipe
        wakeups.wait(0.01)
        assert wakeups.inbox_noticed()
        (inbox / "source" / "two").write_text("x")
        assert _ended_early(wakeups)
        assert wakeups.inbox_noticed()


def test_afterwards_nothing_is_left_behind(log: Path, inbox: Path) -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    descriptors, threads = _descriptors(), threading.active_count()
    for _ in range(3):
        with Wakeups(log, inbox=inbox) as wakeups:
            wakeups.wait(0.01)
    deadline = time.monotonic() + 10
    while _descriptors() > descriptors and time.monotonic() < deadline:
        time.sleep(0.01)  # watchfiles closes its own in a thread of its own
    assert _descriptors() <= descriptors  # what other tests left open may close meanwhile
    assert threading.active_count() == threads
    assert signal.getsignal(signal.SIGCHLD) == handler
    assert signal.set_wakeup_fd(-1) == -1


STARVED = """
import os, resource, sys
from pathlib import Path
from watchfiles import _rust_notify
from stillhouse.phases.reactor.waiting import Wakeups
told = []
wakeups = Wakeups(Path(sys.argv[1]), inbox=Path(sys.argv[2]), tell=told.append)
free = os.open("/dev/null", os.O_RDONLY)
resource.setrlimit(resource.RLIMIT_NOFILE, (free + int(sys.argv[3]), free + int(sys.argv[3])))
os.close(free)
with wakeups:
    assert len(told) == 1 and "looked at every 2 s" in told[0], told
    wakeups.wait(30)
    assert wakeups.inbox_noticed()
assert len(told) == 1, told
"""


@pytest.mark.parametrize("spare", [2, 3])  # two make the pipe; then the log's, the inbox's fail
def test_where_the_system_has_no_notices_left_it_says_so_and_looks(
    log: Path, inbox: Path, spare: int
) -> None:
    subprocess.run(
        [sys.executable, "-c", STARVED, str(log), str(inbox), str(spare)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
        timeout=60,
    )
