from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from stillhouse.phases.workers.job import Job
from stillhouse.phases.workers.launch import Launcher
from stillhouse.phases.workers.main import _ahead

from .worker_parts import PATIENCE, Registry, a_job, alive, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PARENT = """
import sys, time
from pathlib import Path
from stillhouse.phases.workers.job import Job
from stillhouse.phases.workers.launch import Launcher
from stillhouse.registry.home import Home
launcher = Launcher(Home(Path(sys.argv[1])))
launcher.warm()
worker = launcher._warm
print(worker.process.pid, flush=True)
while len(sys.argv) > 2 and not worker.ready():
    time.sleep(0.01)
print("ready", flush=True)
if len(sys.argv) > 2 and sys.argv[2]:
    job = Job.model_validate_json(sys.argv[2])
    with launcher.locked(job.run) as lock:
        launcher.prepare(job)
        launcher.start(job, lock)
    print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture
def launcher(registry: Registry) -> Iterator[Launcher]:
    launcher = Launcher(registry.home, grace=0.2)
    yield launcher
    launcher.stop_all()


def warmed(launcher: Launcher) -> int:
    """Warm a worker and wait until it waits; its process id."""
    launcher.warm()
    worker = launcher._warm
    assert worker is not None
    until(worker.ready)
    return worker.process.pid


def begun(registry: Registry, launcher: Launcher, job: Job) -> int:
    """Start a job; the worker's process id."""
    registry.begin(launcher, job)
    return launcher._children[job.run].popen.pid


def parent(registry: Registry, *arguments: str) -> tuple[subprocess.Popen[str], int]:
    """Another process that warms a worker; the worker's process id."""
    started = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(registry.home.root), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{Path(__file__).parents[2]}:{os.environ['PYTHONPATH']}"},
    )
    assert started.stdout is not None
    return started, int(started.stdout.readline())


def state(pid: int) -> tuple[str, int]:
    """A process's state, and the clock ticks that it has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return fields[0], int(fields[11]) + int(fields[12])


def one_log(seen: Any) -> Any:
    """What a phase saw, as if all attempts wrote into the same log."""
    return str(seen).replace("log.2", "log.1")


def test_a_warm_worker_differs_from_a_cold_one_in_nothing_that_a_phase_can_see(
    registry: Registry, launcher: Launcher
) -> None:
    first, second = a_job("look"), a_job("look", attempt=2)
    registry.begin(launcher, first)
    cold = registry.seen(launcher, first)
    pid = warmed(launcher)
    assert begun(registry, launcher, second) == pid
    assert one_log(registry.seen(launcher, second)) == one_log(cold)
    assert cold["leads"] == [True, True]
    assert cold["standard"][1:] == [str(launcher.log(first.run, 1).resolve())] * 2


@pytest.mark.slow
def test_a_warm_worker_computes_the_same_numbers(
    registry: Registry, launcher: Launcher, tmp_path: Path
) -> None:
    for name in ("numpy", "torch"):
        (tmp_path / "phase" / f"{name}.py").unlink()
    first, second = a_job("numbers"), a_job("numbers", attempt=2)
    registry.begin(launcher, first)
    cold = registry.seen(launcher, first)
    pid = warmed(launcher)
    assert begun(registry, launcher, second) == pid
    assert registry.seen(launcher, second) == cold


def test_a_warm_worker_does_one_job_and_is_gone(registry: Registry, launcher: Launcher) -> None:
    pid = warmed(launcher)
    job, other = a_job("count"), a_job("count", again=True)
    assert begun(registry, launcher, job) == pid
    registry.seen(launcher, job)
    assert not alive(pid)
    assert begun(registry, launcher, other) != pid
    registry.seen(launcher, other)
    assert warmed(launcher) != pid


def test_a_waiting_worker_sleeps_and_holds_no_lock(launcher: Launcher) -> None:
    job = a_job("count")
    with launcher.locked(job.run):
        pid = warmed(launcher)
        until(lambda: state(pid)[0] == "S")
        held = [os.fspath(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    assert not [name for name in held if name.endswith("lock")]
    assert len([name for name in held if name.startswith("socket:")]) == 1
    assert len(held) == 4, held


def test_a_worker_killed_while_it_waits_is_replaced_by_a_cold_one(
    registry: Registry, launcher: Launcher
) -> None:
    pid = warmed(launcher)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid))
    job = a_job("count")
    assert begun(registry, launcher, job) != pid
    assert registry.seen(launcher, job) == {"count": "x"}


def test_a_worker_killed_with_a_job_on_its_way_is_replaced_and_the_lock_stays_held(
    registry: Registry, launcher: Launcher
) -> None:
    pid = warmed(launcher)
    os.kill(pid, signal.SIGSTOP)  # what is sent now is not received
    until(lambda: state(pid)[0] == "T")
    killer = threading.Timer(0.1, os.kill, (pid, signal.SIGKILL))
    killer.start()
    job = a_job("count")
    assert begun(registry, launcher, job) != pid
    assert not alive(pid)
    assert registry.seen(launcher, job) == {"count": "x"}
    assert launcher.ended(job.run)


def test_a_worker_that_does_not_take_its_job_never_does_it_later(
    registry: Registry, launcher: Launcher
) -> None:
    pid = warmed(launcher)
    os.kill(pid, signal.SIGSTOP)
    job = a_job("count")
    assert begun(registry, launcher, job) != pid
    assert not alive(pid), "two workers have the same job"
    assert registry.seen(launcher, job) == {"count": "x"}


def test_the_lock_of_a_run_is_held_from_its_start_to_the_kill_of_its_warm_worker(
    registry: Registry, launcher: Launcher, tmp_path: Path
) -> None:
    pid = warmed(launcher)
    job = a_job("hold")
    assert begun(registry, launcher, job) == pid
    other = Launcher(registry.home)
    until((tmp_path / "sign").exists)
    assert not other.ended(job.run)
    os.kill(pid, signal.SIGKILL)
    until(lambda: other.ended(job.run))
    assert registry.finish(launcher, job) is None
    assert launcher.cause(job.run, 1) == "killed by SIGKILL"


def test_a_worker_that_was_given_a_job_and_killed_at_once_frees_the_lock(
    registry: Registry, launcher: Launcher
) -> None:
    pid = warmed(launcher)
    job = a_job("hold")
    assert begun(registry, launcher, job) == pid
    os.kill(pid, signal.SIGKILL)
    assert registry.finish(launcher, job) is None


def test_a_warm_worker_ends_when_its_parent_is_killed_while_it_imports(registry: Registry) -> None:
    other, pid = parent(registry)
    with other:
        assert alive(pid)
        other.kill()
    until(lambda: not alive(pid))


def test_a_warm_worker_ends_when_its_parent_is_killed_while_it_waits(registry: Registry) -> None:
    other, pid = parent(registry, "")
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        other.kill()
    until(lambda: not alive(pid))


def test_a_working_warm_worker_outlives_its_killed_parent_and_is_found_again(
    registry: Registry, launcher: Launcher, tmp_path: Path
) -> None:
    job = a_job("hold")
    other, pid = parent(registry, job.model_dump_json())
    with other:
        assert other.stdout is not None
        assert [other.stdout.readline() for _ in range(2)] == ["ready\n", "started\n"]
        until((tmp_path / "sign").exists)
        other.kill()
    assert alive(pid)
    assert not launcher.ended(job.run)
    os.kill(pid, signal.SIGKILL)
    until(lambda: launcher.ended(job.run))


def test_a_warm_worker_is_not_used_when_the_environment_has_changed(
    registry: Registry, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = warmed(launcher)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    job = a_job("look")
    assert begun(registry, launcher, job) != pid
    assert registry.seen(launcher, job)["environment"]["OMP_NUM_THREADS"] == "1"
    assert not alive(pid)


def test_a_warm_worker_is_not_used_when_the_folder_has_changed(
    registry: Registry, launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = warmed(launcher)
    monkeypatch.chdir(tmp_path)
    job = a_job("look")
    assert begun(registry, launcher, job) != pid
    assert registry.seen(launcher, job)["cwd"] == str(tmp_path)


def test_workers_that_die_of_what_they_import_are_not_made_for_ever(
    registry: Registry, launcher: Launcher, tmp_path: Path
) -> None:
    (tmp_path / "phase" / "torch.py").write_text("raise SystemExit", encoding="utf-8")
    made = set()
    for _ in range(5):
        launcher.warm()
        if (worker := launcher._warm) is not None:
            made.add(worker.process.pid)
            worker.process.wait(PATIENCE)
    assert len(made) == 3
    job = a_job("count")
    registry.begin(launcher, job)
    assert registry.seen(launcher, job) == {"count": "x"}


@pytest.mark.parametrize(("lived", "made"), [(0.0, 3), (4.0, 3), (60.0, 5)])
def test_workers_that_die_as_soon_as_they_are_ready_are_not_made_for_ever(
    registry: Registry, lived: float, made: int
) -> None:
    now = 0.0
    launcher = Launcher(registry.home, clock=lambda: now)
    pids = set()
    for _ in range(5):
        launcher.warm()
        if (worker := launcher._warm) is not None:
            until(worker.ready)
            launcher.warm()
            pids.add(worker.process.pid)
            worker.process.kill()
            worker.process.wait()
        now += lived
    launcher.cool()
    assert len(pids) == made


def test_letting_the_waiting_worker_go_leaves_no_process(launcher: Launcher) -> None:
    pid = warmed(launcher)
    launcher.cool()
    assert not alive(pid)


def test_what_a_warm_worker_imports_ahead_is_there() -> None:
    """It passes over what it cannot import, so a wrong name would only make runs start late."""
    assert [module for module in _ahead() if find_spec(module) is None] == []
