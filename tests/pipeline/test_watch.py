"""The daemon as a user leaves it running: a checkpoint goes in, a verified package comes out."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .still import LIMIT_SECONDS, command, environment, events, still, still_json
from .tiny import write_teacher

pytestmark = pytest.mark.slow


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """An empty registry."""
    still(tmp_path / "still", "init")
    return tmp_path / "still"


@pytest.fixture
def daemons(registry: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two daemons on one registry; whatever still lives is ended afterwards."""
    started = [_daemon(registry) for _ in range(2)]
    yield started
    for daemon in started:
        if daemon.poll() is None:
            daemon.terminate()
            daemon.wait(30)


def _daemon(registry: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(registry, "watch"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )


def _wait_for(registry: Path, type_: str, count: int, **data: str) -> list[dict[str, Any]]:
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        found = [
            event
            for event in events(registry)
            if event["type"] == type_
            and all(str(event["data"][key]).startswith(data[key]) for key in data)
        ]
        if len(found) >= count:
            return found
        time.sleep(0.5)
    raise AssertionError(
        f"{count} times {type_} {data} did not come: {still(registry, 'log').stdout}"
    )


def test_a_dropped_checkpoint_becomes_a_verified_package_although_daemons_die(
    registry: Path, daemons: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    write_teacher(tmp_path / "model")
    shutil.copytree(tmp_path / "model", registry / "inbox" / "checkpoint" / "mine")
    _wait_for(registry, "run.started", 1, phase="export")
    working = next(d for d in daemons if d.poll() is None)
    working.kill()  # whichever it was, the other one or a new one goes on
    working.wait()
    daemons.append(_daemon(registry))
    _wait_for(registry, "run.succeeded", 2, phase="verification")
    _wait_for(registry, "gate.evaluated", 2, gate="verification.numeric_fp16")
    plan = next(e for e in events(registry) if e["type"] == "plan.requested")["data"]["plan"]
    gates = still_json(registry, "gates", plan)
    assert {g["verdict"] for g in gates if g["required"]} == {"pass"}
    started = Counter(
        (e["data"]["run"], e["data"]["attempt"])
        for e in events(registry)
        if e["type"] == "run.started"
    )
    assert max(started.values()) == 1, "an attempt was started twice"
    kinds = {row["kind"] for row in still_json(registry, "ls")}
    assert "mlpackage" in kinds
    for daemon in daemons:
        if daemon.poll() is None:
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(30) == 130
    still(registry, "fsck")
