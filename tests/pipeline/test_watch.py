"""The daemon as a user leaves it running: a checkpoint goes in, a verified package comes out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stillhouse import recipes
from stillhouse.publish import publish_policy
from stillhouse.registry.home import Home
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.events import ArtifactPublished
from stillhouse.schemas.recipe import Recipe
from stillhouse.session import open_registry

from .still import LIMIT_SECONDS, command, environment, events, still, still_json
from .tiny import POLICY, write_teacher

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


def _daemon(registry: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(registry, "watch", *arguments),
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
            assert daemon.wait(30) == 0
    still(registry, "fsck")


# -- stopping while a worker works --------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Held:
    """A daemon with one live worker that stands still until it is let go."""

    daemon: subprocess.Popen[bytes]
    run: str
    worker: int

    def let_go(self) -> None:
        os.kill(self.worker, signal.SIGCONT)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Daemons to be ended afterwards."""
    daemons: list[subprocess.Popen[bytes]] = []
    yield daemons
    for daemon in daemons:
        if daemon.poll() is None:
            daemon.terminate()
            daemon.terminate()
            daemon.wait(30)


def _ask(registry: Path, name: str) -> None:
    """Ask for a plan whose one run fails: what it is to export is no checkpoint."""
    session = open_registry(Home(registry))
    policy = registry.parent / "policy.toml"
    policy.write_text(POLICY, encoding="utf-8")
    # Large, so that the worker still reads it when it is told to stand still.
    weights = session.store.put_bytes(f"weights of {name}".encode() + bytes(2**27)).digest
    checkpoint = ArtifactPublished(
        digest=weights, kind=Kind.CHECKPOINT, form="blob", size=0, origin="imported"
    )
    session.ledger.append([checkpoint])
    recipe = {
        "name": name,
        "policy": publish_policy(session, policy).digest,
        "given": {"checkpoint": weights},
        "export": {"prefill": [8], "primary": 8, "decode_capacity": None},
        "conversion": {},
        "verification": {},
    }
    plan = recipes.resolve_recipe(session, Recipe.model_validate(recipe), base=None)
    recipes.request(session, plan)


@pytest.fixture
def hold(registry: Path, started: list[subprocess.Popen[bytes]]) -> Callable[..., Held]:
    """Start a daemon with these arguments, and hold its first worker still."""

    def go(*arguments: str) -> Held:
        _ask(registry, "first")
        started.append(_daemon(registry, *arguments))
        (event,) = _wait_for(registry, "run.started", 1)
        note = registry / "runs" / event["data"]["run"] / "worker.json"
        _until(note.exists)
        worker = json.loads(note.read_bytes())["process"]["pid"]
        os.kill(worker, signal.SIGSTOP)
        _until(lambda: b") T " in Path(f"/proc/{worker}/stat").read_bytes())
        return Held(daemon=started[-1], run=event["data"]["run"], worker=worker)

    return go


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.001)


def _told(registry: Path) -> list[str]:
    return [e["type"] for e in events(registry) if e["type"].startswith("run.")]


def test_sigterm_leaves_the_worker_to_the_next_daemon(
    registry: Path, hold: Callable[..., Held], started: list[subprocess.Popen[bytes]]
) -> None:
    held = hold()
    held.daemon.terminate()
    assert held.daemon.wait(30) == 0
    assert _told(registry) == ["run.started"]
    started.append(_daemon(registry))
    time.sleep(2)  # a daemon that took the run for dead would say so by now
    assert _told(registry) == ["run.started"]
    held.let_go()
    (failed,) = _wait_for(registry, "run.failed", 1)
    assert failed["data"]["attempt"] == 1
    assert _told(registry) == ["run.started", "run.failed"]


@pytest.mark.parametrize("arguments", [("--drain",), ("--drain", "--once")])
def test_draining_ends_what_runs_and_starts_nothing_new(
    registry: Path,
    hold: Callable[..., Held],
    started: list[subprocess.Popen[bytes]],
    arguments: tuple[str, ...],
) -> None:
    held = hold("--drain")
    held.daemon.terminate() if arguments == ("--drain",) else held.daemon.kill()
    daemon = held.daemon
    if "--once" in arguments:
        daemon.wait(30)
        daemon = _daemon(registry, *arguments)
        started.append(daemon)
    _ask(registry, "second")
    time.sleep(1)
    assert daemon.poll() is None, "a run is going on"
    held.let_go()
    assert daemon.wait(30) == 0
    assert _told(registry) == ["run.started", "run.failed"]


@pytest.mark.parametrize(
    ("arguments", "signals"),
    [((), [signal.SIGINT]), (("--drain",), [signal.SIGTERM, signal.SIGTERM])],
)
def test_ctrl_c_and_a_second_signal_end_the_worker_too(
    registry: Path,
    hold: Callable[..., Held],
    started: list[subprocess.Popen[bytes]],
    arguments: tuple[str, ...],
    signals: list[signal.Signals],
) -> None:
    held = hold(*arguments)
    for number in signals:
        held.daemon.send_signal(number)
        time.sleep(0.5)
    held.let_go()  # into the signal that waits for it
    assert held.daemon.wait(30) == 130
    assert not Path(f"/proc/{held.worker}").exists()
    started.append(_daemon(registry))
    (abandoned,) = _wait_for(registry, "run.abandoned", 1)
    assert abandoned["data"]["stopped"] is True
    (failed,) = _wait_for(registry, "run.failed", 1)
    assert failed["data"]["attempt"] == 2
