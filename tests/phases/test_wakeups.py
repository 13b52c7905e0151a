"""Waiting: what ends it, what does not get lost, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from phases.wakeups import Wakeups

LONG = 30.0
"""Seconds that no wait of these tests takes; one that does was not woken."""


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
        assert wakeups.polling
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


def test_afterwards_nothing_is_left_behind(log: Path, inbox: Path) -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    descriptors, threads = _descriptors(), threading.active_count()
    for _ in range(3):
        with Wakeups(log, inbox=inbox) as wakeups:
            wakeups.wait(0.01)
    assert _descriptors() == descriptors
    assert threading.active_count() == threads
    assert signal.getsignal(signal.SIGCHLD) == handler
    assert signal.set_wakeup_fd(-1) == -1


STARVED = """
import os, resource, sys
from pathlib import Path
from watchfiles import _rust_notify
from phases.wakeups import Wakeups
told = []
wakeups = Wakeups(Path(sys.argv[1]), inbox=Path(sys.argv[2]), tell=told.append)
free = os.open("/dev/null", os.O_RDONLY)
resource.setrlimit(resource.RLIMIT_NOFILE, (free + int(sys.argv[3]), free + int(sys.argv[3])))
os.close(free)
with wakeups:
    assert wakeups.polling
    wakeups.wait(30)
    assert wakeups.inbox_noticed()
assert len(told) == 1 and "looked at every 2 s" in told[0], told
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
