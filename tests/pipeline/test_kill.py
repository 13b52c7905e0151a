"""kill -9 at random moments: whatever dies, a plain re-run goes on; nothing is lost or doubled."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from .still import LIMIT_SECONDS, command, environment, events, still, workers
from .tiny import RECIPE, write

pytestmark = pytest.mark.slow

KILLS = 20

T = TypeVar("T")


def _working(registry: Path) -> list[int]:
    return [pid for pid, has_run in workers(registry).items() if has_run]


def _waiting(registry: Path) -> list[int]:
    return [pid for pid, has_run in workers(registry).items() if not has_run]


def _kill_somebody(registry: Path, run: subprocess.Popen[bytes], chance: random.Random) -> str:
    working = _working(registry)
    if working and chance.random() < 0.5:
        os.kill(working[0], signal.SIGKILL)
        return "worker"
    run.kill()
    run.wait()
    return "reactor"


def test_twenty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    recipe = write(tmp_path / "input")
    registry = tmp_path / "still"
    still(registry, "init")
    chance = random.Random(2026)  # which moment, not a secret
    killed: Counter[str] = Counter()
    log = registry / "events.log"
    before = b""
    while killed.total() < KILLS:
        with _going(registry, "run", str(recipe)) as run:
            deadline = time.monotonic() + chance.uniform(0.2, 6.0)
            while run.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            if run.poll() is not None:
                assert run.returncode == 0, "a run that was left alone must finish"
                break
            killed[_kill_somebody(registry, run, chance)] += 1
        now = log.read_bytes()
        whole = before[: before.rfind(b"\n") + 1]
        assert now.startswith(whole), "an event that had been there was lost"
        before = now
    still(registry, "run", str(recipe))
    assert set(killed) == {"worker", "reactor"}
    _check(registry)


def test_a_killed_daemon_leaves_only_the_worker_that_has_a_run_and_the_next_one_takes_it_up(
    tmp_path: Path,
) -> None:
    recipe = write(tmp_path / "input")
    recipe.write_text(RECIPE.partition("[student]")[0], encoding="utf-8")  # the data set is enough
    registry = tmp_path / "still"
    still(registry, "init")
    with _going(registry, "watch") as daemon:
        _until(lambda: _waiting(registry), "a worker waits warm")
        with _going(registry, "run", str(recipe)):
            working = _until(lambda: _working(registry), "the daemon starts the run")
        _until(lambda: _waiting(registry), "the daemon warms another worker")
        daemon.kill()
        daemon.wait()
        assert "run.succeeded" not in _types(registry), "the kill came too late to show anything"
    _until(lambda: not _waiting(registry), "the warm worker is gone")
    with _going(registry, "watch") as daemon:
        _until(lambda: "run.succeeded" in _types(registry), "the run succeeds")
        daemon.kill()
        daemon.wait()
    _until(lambda: not workers(registry), "no process is left")
    assert len(working) == 1
    assert Counter(_types(registry))["run.started"] == 1, "the run was not taken up, but begun anew"
    assert "run.abandoned" not in _types(registry)


@contextmanager
def _going(registry: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command in the background; whatever is left of it is killed."""
    process = subprocess.Popen(
        command(registry, *arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _until(met: Callable[[], T], what: str) -> T:
    """Wait until something holds."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        found = met()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"it did not come to pass that {what}")


def _types(registry: Path) -> list[str]:
    return [event["type"] for event in events(registry)]


def _check(registry: Path) -> None:
    still(registry, "fsck")
    found = events(registry)
    assert [e["seq"] for e in found] == list(range(1, len(found) + 1))
    ends = ("run.succeeded", "run.failed", "run.abandoned")
    series = Counter(
        (e["data"]["run"], e["actor"].get("run"), e["type"])
        for e in found
        if e["type"] == "run.succeeded"
    )
    assert max(series.values()) == 1, "a run succeeded twice"
    open_runs: set[str] = set()
    for event in found:
        if event["type"] == "run.started":
            assert event["data"]["run"] not in open_runs, "started while it was going on"
            open_runs.add(event["data"]["run"])
        elif event["type"] in ends:
            assert event["data"]["run"] in open_runs, "ended without having been started"
            open_runs.remove(event["data"]["run"])
    assert not open_runs
    assert sum(e["type"] == "release.cut" for e in found) == 1
    published = Counter(
        (e["data"]["digest"], e["data"].get("run"))
        for e in found
        if e["type"] == "artifact.published" and e["data"]["origin"] == "run"
    )
    assert max(published.values()) == 1, "an outcome was recorded twice"
