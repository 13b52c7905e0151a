"""kill -9 at random moments: whatever dies, a plain re-run goes on; nothing is lost or doubled."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from .still import command, environment, events, still
from .tiny import write

pytestmark = pytest.mark.slow

KILLS = 20


def _workers(registry: Path) -> list[int]:
    """Process ids of this registry's live workers, from /proc."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"phases.worker" in words and str(registry.resolve()).encode() in words:
            found.append(int(folder.name))
    return found


def _kill_somebody(registry: Path, run: subprocess.Popen[bytes], chance: random.Random) -> str:
    workers = _workers(registry)
    if workers and chance.random() < 0.5:
        os.kill(workers[0], signal.SIGKILL)
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
        run = subprocess.Popen(
            command(registry, "run", str(recipe)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        deadline = time.monotonic() + chance.uniform(0.2, 6.0)
        while run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if run.poll() is not None:
            assert run.returncode == 0, "a run that was left alone must finish"
            break
        killed[_kill_somebody(registry, run, chance)] += 1
        run.kill()
        run.wait()
        now = log.read_bytes()
        whole = before[: before.rfind(b"\n") + 1]
        assert now.startswith(whole), "an event that had been there was lost"
        before = now
    still(registry, "run", str(recipe))
    assert set(killed) == {"worker", "reactor"}
    _check(registry)


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
