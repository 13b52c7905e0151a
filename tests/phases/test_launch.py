from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stillhouse.phases.contract import Context
from stillhouse.phases.workers.job import Ending, WorkerFile, replace
from stillhouse.phases.workers.launch import Launcher
from stillhouse.phases.workers.processes import Process, identify
from stillhouse.schemas.artifact import Kind, Product
from stillhouse.store.disk.durable import replace_durably
from stillhouse.store.objects.leases import live_leases

from .worker_parts import Registry, a_job, alive, until

Holder = Callable[[], int]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def launcher(registry: Registry) -> Iterator[Launcher]:
    launcher = Launcher(registry.home, grace=0.1)
    yield launcher
    launcher.stop_all()
    bury(launcher)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Holder]:
    """Reads the pid of the process that holds, and sees to it that it does not for ever."""
    path = tmp_path / "sign"
    yield lambda: int(until(lambda: path.read_text() if path.exists() else ""))
    if path.exists() and alive(int(path.read_text())):
        os.kill(int(path.read_text()), signal.SIGKILL)


def bury(launcher: Launcher) -> None:
    """Wait for the handed-over workers that this process is still the parent of."""
    for process in launcher._let_go:
        process.wait()


# -- what garbage collection must spare -----------------------------------------------------------


def test_a_worker_leases_the_store_from_its_first_product_on_and_not_while_it_computes(
    registry: Registry, launcher: Launcher, held: Holder, tmp_path: Path
) -> None:
    """Else a run of a day would keep all garbage of that day."""
    working, putting = a_job("hold"), a_job("put and hold")
    for job, leases in ((working, 0), (putting, 1)):
        registry.begin(launcher, job)
        pid = held()
        found = live_leases(registry.home.objects)
        assert [lease.pid for lease in found] == [pid] * leases
        launcher.end(job.run, 1, Ending.CANCELLED)
        registry.finish(launcher, job)
        (tmp_path / "sign").unlink()


def test_a_worker_leases_the_store_until_its_outcome_is_durable(
    registry: Registry, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillhouse.phases.workers import main as worker

    job = a_job("count")
    with launcher.locked(job.run):
        launcher.prepare(job)
    made = registry.home.run(job.run) / "made"
    made.write_bytes(b"{}")
    seen: list[tuple[str, int]] = []

    def phase(_name: str) -> Callable[[Context], tuple[Product, ...]]:
        return lambda context: (context.file("seen", Kind.CHECKPOINT, made),)

    def durable(place: Path, data: bytes) -> None:
        seen.append((place.name, len(live_leases(registry.home.objects))))
        replace_durably(place, data)
        seen.append((place.name, len(live_leases(registry.home.objects))))

    monkeypatch.setattr(worker, "phase_function", phase)
    monkeypatch.setattr(worker, "_check_promise", lambda *_: None)
    monkeypatch.setattr(worker, "replace_durably", durable)
    worker._perform(registry.home, job.run)
    assert seen == [("outcome.json", 1)] * 2
    assert live_leases(registry.home.objects) == []


# -- ending ----------------------------------------------------------------------------------------


def test_a_worker_that_is_told_to_end_ends_and_the_first_cause_stays(
    registry: Registry, launcher: Launcher, held: Holder
) -> None:
    job = a_job("hold")
    registry.begin(launcher, job)
    held()
    assert launcher.ending(job.run, 1) is None
    launcher.end(job.run, 1, Ending.TIME)
    launcher.end(job.run, 1, Ending.STOPPED)
    assert registry.finish(launcher, job) is None
    assert launcher.cause(job.run, 1) == "killed by SIGTERM"
    for anyone in (launcher, Launcher(registry.home)):
        assert anyone.ending(job.run, 1) is Ending.TIME
        assert anyone.ending(job.run, 2) is None
    launcher.end(job.run, 1, Ending.STOPPED)  # nothing, for it is gone


def test_what_ends_before_an_order_to_end_was_not_ended_by_it(
    registry: Registry, launcher: Launcher
) -> None:
    job = a_job("count")
    registry.begin(launcher, job)
    registry.seen(launcher, job)
    launcher.end(job.run, 1, Ending.CANCELLED)
    assert launcher.ending(job.run, 1) is None


def test_a_worker_that_does_not_heed_is_killed_after_the_grace_and_not_before(
    registry: Registry, held: Holder
) -> None:
    times = [100.0]
    launcher = Launcher(registry.home, grace=10.0, clock=lambda: times[-1])
    job = a_job("stubborn")
    registry.begin(launcher, job)
    pid = held()
    for now in (100.0, 105.0, 109.9):
        times.append(now)
        launcher.end(job.run, 1, Ending.CANCELLED)
    assert alive(pid)
    times.append(110.0)
    launcher.end(job.run, 1, Ending.CANCELLED)
    assert registry.finish(launcher, job) is None
    assert launcher.cause(job.run, 1) == "killed by SIGKILL"


def test_the_grace_goes_on_when_another_process_takes_over(
    registry: Registry, held: Holder
) -> None:
    job = a_job("stubborn")
    first = Launcher(registry.home, clock=lambda: 100.0)
    registry.begin(first, job)
    pid = held()
    first.end(job.run, 1, Ending.MEMORY)
    first.hand_over()
    second = Launcher(registry.home, clock=lambda: 200.0)
    assert not second.ended(job.run)
    second.end(job.run, 1, Ending.STOPPED)
    until(lambda: second.ended(job.run))
    until(lambda: not alive(pid))  # its lock is free a moment earlier
    assert second.ending(job.run, 1) is Ending.MEMORY
    bury(first)


def test_a_handed_over_worker_goes_on_and_can_be_ended_by_who_finds_it(
    registry: Registry, launcher: Launcher, held: Holder
) -> None:
    job = a_job("hold")
    registry.begin(launcher, job)
    pid = held()
    launcher.hand_over()
    launcher.stop_all()
    assert alive(pid)
    other = Launcher(registry.home)
    assert not other.ended(job.run)
    other.end(job.run, 1, Ending.CANCELLED)
    until(lambda: other.ended(job.run))
    until(lambda: not alive(pid))  # its lock is free a moment earlier
    assert other.cause(job.run, 1) == "its process is gone"


def test_stopping_ends_workers_that_heed_and_workers_that_do_not(
    registry: Registry, launcher: Launcher, held: Holder
) -> None:
    job = a_job("stubborn")
    registry.begin(launcher, job)
    pid = held()
    launcher.stop_all()
    assert not alive(pid)
    assert launcher.ended(job.run)
    assert launcher.ending(job.run, 1) is Ending.STOPPED


def test_a_full_disk_does_not_save_the_worker_that_is_to_end(
    registry: Registry, launcher: Launcher, held: Holder
) -> None:
    job = a_job("hold")
    registry.begin(launcher, job)
    held()
    (registry.home.run(job.run) / "ending.tmp").mkdir()  # nothing can be written there
    launcher.end(job.run, 1, Ending.MEMORY)
    assert registry.finish(launcher, job) is None
    assert launcher.ending(job.run, 1) is Ending.MEMORY


@pytest.mark.parametrize("saw_the_end", [True, False])
def test_an_attempt_that_another_process_started_is_not_taken_for_ones_own_earlier_one(
    registry: Registry, tmp_path: Path, held: Holder, saw_the_end: bool
) -> None:
    job, again = a_job("hold"), a_job("hold", attempt=2)
    first, second = Launcher(registry.home), Launcher(registry.home)
    registry.begin(first, job)
    os.kill(held(), signal.SIGKILL)
    until(lambda: (first if saw_the_end else second).ended(job.run))
    until(lambda: second.ended(job.run))
    (tmp_path / "sign").unlink()
    registry.begin(second, again)
    pid = held()
    second.hand_over()
    assert not first.ended(job.run)
    assert first.memory(job.run)
    first.end(job.run, 1, Ending.CANCELLED)  # an order that came too late
    assert alive(pid)
    first.end(job.run, 2, Ending.CANCELLED)
    until(lambda: first.ended(job.run))
    assert first.cause(job.run, 2) == "its process is gone"
    bury(second)


def test_nothing_is_kept_of_a_run_whose_end_was_recorded(
    registry: Registry, launcher: Launcher, held: Holder
) -> None:
    before = {name: len(kept) for name, kept in vars(launcher).items() if isinstance(kept, dict)}
    failing, holding = a_job("PhaseError"), a_job("hold")
    for job in (failing, holding):
        registry.begin(launcher, job)
    held()
    launcher.end(holding.run, 1, Ending.TIME)
    for job in (failing, holding):
        registry.finish(launcher, job)
        launcher.forget(job.run)
    kept = {name: len(kept) for name, kept in vars(launcher).items() if isinstance(kept, dict)}
    assert kept == before


def test_who_only_looks_whether_a_lock_is_held_does_not_keep_a_worker_from_it(
    registry: Registry,
) -> None:
    job = a_job("count")
    path = registry.home.run(job.run) / "lock"
    path.parent.mkdir(parents=True)
    with path.open("w") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        launcher = Launcher(registry.home, wait=lambda _: fcntl.flock(looked_at, fcntl.LOCK_UN))
        with launcher.locked(job.run) as lock:
            assert lock is not None


# -- strangers and children ------------------------------------------------------------------------


def test_a_stranger_with_the_id_of_a_worker_is_not_signalled(
    registry: Registry, launcher: Launcher
) -> None:
    job = a_job("hold")
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    real = identify(stranger.pid)
    assert real is not None
    earlier = Process(pid=real.pid, started=str(int(real.started) - 1))
    try:
        with launcher.locked(job.run) as lock:
            assert lock is not None
            note = registry.home.run(job.run) / "worker.json"
            replace(note, WorkerFile(attempt=1, process=earlier))
            Launcher(registry.home, grace=0).end(job.run, 1, Ending.CANCELLED)
            assert Launcher(registry.home).memory(job.run) is None
        replace(note, WorkerFile(attempt=1, process=real))  # and nobody holds the lock
        Launcher(registry.home, grace=0).end(job.run, 1, Ending.CANCELLED)
        assert launcher.ended(job.run)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        assert stranger.wait() == -signal.SIGKILL


def test_what_a_phase_spawned_is_told_to_end_with_it(
    registry: Registry, launcher: Launcher, held: Holder
) -> None:
    job = a_job("fork and hold")
    registry.begin(launcher, job)
    child = held()
    launcher.end(job.run, 1, Ending.CANCELLED)
    assert registry.finish(launcher, job) is None
    until(lambda: not alive(child))


@pytest.mark.parametrize("handed_over", [False, True])
def test_what_a_phase_left_running_is_ended_and_keeps_no_lock(
    registry: Registry, launcher: Launcher, held: Holder, handed_over: bool
) -> None:
    job = a_job("fork and leave")
    registry.begin(launcher, job)
    child = held()
    if handed_over:
        launcher.hand_over()
    assert registry.seen(launcher, job) == {}
    until(lambda: not alive(child))


@pytest.mark.parametrize("ours", [False, True])
def test_a_session_with_the_number_of_a_dead_worker_is_swept_only_if_it_is_ours(
    registry: Registry, launcher: Launcher, ours: bool
) -> None:
    sign = {"STILL_WORKER_OF": str(registry.home.root.resolve())} if ours else {}
    leader = subprocess.Popen(
        ["/bin/sh", "-c", "sleep 600 >/dev/null & echo $!; read _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | sign,
        start_new_session=True,
    )
    with leader:
        assert leader.stdout is not None
        member = int(leader.stdout.readline())
        worker = identify(leader.pid)
        assert worker is not None
    job = a_job("hold")
    with launcher.locked(job.run):
        pass
    replace(registry.home.run(job.run) / "worker.json", WorkerFile(attempt=1, process=worker))
    assert launcher.ended(job.run)
    if ours:
        until(lambda: not alive(member))
    else:
        assert alive(member)
        os.kill(member, signal.SIGKILL)


def test_the_memory_of_a_worker_is_that_of_what_it_spawned_too(
    registry: Registry, launcher: Launcher, tmp_path: Path
) -> None:
    job = a_job("take", bytes=64 * 2**20)
    registry.begin(launcher, job)
    until(lambda: len(list(tmp_path.glob("sign.*"))) == 2)
    for anyone in (launcher, Launcher(registry.home)):
        memory = anyone.memory(job.run)
        assert memory is not None
        assert 2 * 64 * 2**20 < memory < 2 * 64 * 2**20 + 2**28
    launcher.end(job.run, 1, Ending.MEMORY)
    registry.finish(launcher, job)
    assert launcher.memory(job.run) is None
    assert launcher.memory(a_job("nothing").run) is None


# -- what a worker says ----------------------------------------------------------------------------

SECRET = "sk-0123 'quoted' \u00e9"  # noqa: S105  # nobody's
HIDDEN = (
    "OPENAI_API_KEY",
    "OPENAI_API_KEY_2",
    "hf_token",
    "HF_TOKEN_READ",
    "HF_TOKEN2",
    "AWS_ACCESS_KEY_ID",
    "PGPASSWORD",
    "DB_PASSWORD_PROD",
    "MYSQL_PWD",
    "DB_PASS",
    "X_CREDENTIALS",
    "SECRET_KEY_BASE",
    "API_KEYS",
    "APIKEY_DEV",
    "PRIVATEKEY",
    "SSH_PRIVATE_KEY_PEM",
    "GITHUB_PAT",
    "GITHUB_PAT_RO",
    "CLIENTSECRET",
    "KEY",
    "DATABASE_URL",
    "REDIS_URL",
    "SLACK_WEBHOOK_URL",
    "SENTRY_DSN",
    "AZURE_STORAGE_CONNECTION_STRING",
    "SSH_AUTH_SOCK",
    "KUBECONFIG",
    "DOCKER_AUTH_CONFIG",
    "COOKIE",
    "AUTHORIZATION",
    "CI_JOB_JWT",
    "NPM_CONFIG__AUTH",
    "MASTERKEY",
    "MNEMONIC",
    "DBUS_SESSION_BUS_ADDRESS",
    "TORCH_LOGS",
    "MKL_CBWR",
    "LD_PRELOAD_OF_MINE",
)
SEEN = (
    "HF_HOME",
    "LC_TIME",
    "XDG_CACHE_HOME",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "STILL_REGISTRY",
)


@pytest.mark.parametrize("warm", [False, True])
def test_a_worker_sees_the_secrets_that_are_named_and_no_others(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, warm: bool
) -> None:
    for name in (*HIDDEN, *SEEN, "TEACHER_KEY"):
        monkeypatch.setenv(name, SECRET)
    launcher = Launcher(registry.home, secrets=("TEACHER_KEY",))
    if warm:
        launcher.warm()
        until(launcher._warm.ready)  # type: ignore[union-attr]
    job = a_job("look")
    registry.begin(launcher, job)
    seen = registry.seen(launcher, job)
    assert {name for name, value in seen["environment"].items() if value == SECRET} == {
        *SEEN,
        "TEACHER_KEY",
    }
    assert not set(HIDDEN) & set(seen["environment"])
    assert not [entry for entry in seen["given"] if entry.split("=")[0] in HIDDEN]


@pytest.fixture
def teller(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Launcher:
    monkeypatch.setenv("TEACHER_KEY", SECRET)
    return Launcher(registry.home, secrets=("TEACHER_KEY",))


def test_a_secret_that_a_failing_phase_tells_is_in_neither_its_failure_nor_its_log(
    registry: Registry, teller: Launcher
) -> None:
    job = a_job("tell", name="TEACHER_KEY")
    registry.begin(teller, job)
    outcome = registry.finish(teller, job)
    assert outcome is not None
    assert outcome.failure is not None
    assert outcome.failure.message == "No answer for ***"
    assert outcome.failure.remedy == "Ask with another than ***"
    log = teller.stored_log(job.run, 1)
    assert log is not None
    assert b"the key is ***" in log
    assert SECRET.encode() not in log


@pytest.mark.parametrize("before", [3975, 4200])
def test_an_error_is_cut_only_after_its_secrets_were_taken_out(
    registry: Registry, teller: Launcher, before: int
) -> None:
    job = a_job("tell", name="TEACHER_KEY", before="." * before)
    registry.begin(teller, job)
    outcome = registry.finish(teller, job)
    assert outcome is not None
    assert outcome.failure is not None
    assert len(outcome.failure.message) < 4100
    assert "sk-" not in outcome.failure.message


def test_a_secret_that_a_dying_worker_told_is_not_in_the_cause(
    registry: Registry, teller: Launcher
) -> None:
    job = a_job("tell and die", name="TEACHER_KEY")
    registry.begin(teller, job)
    assert registry.finish(teller, job) is None
    assert teller.cause(job.run, 1) == "killed by SIGKILL; its log ends: the key is ***"


def test_all_that_a_phase_printed_and_left_for_the_exit_is_in_its_log(
    registry: Registry, launcher: Launcher
) -> None:
    job = a_job("say")
    registry.begin(launcher, job)
    registry.seen(launcher, job)
    log = launcher.stored_log(job.run, 1)
    assert log is not None
    assert sorted(log.split()) == [b"atexit", b"print", b"puts"]


@pytest.mark.parametrize(
    ("do", "transient"),
    [("full", True), ("StorageError", True), ("BusyError", True), ("PhaseError", False)],
)
def test_a_failure_is_transient_when_its_cause_lies_outside_the_run(
    registry: Registry, launcher: Launcher, do: str, transient: bool
) -> None:
    job = a_job(do)
    registry.begin(launcher, job)
    outcome = registry.finish(launcher, job)
    assert outcome is not None
    assert outcome.failure is not None
    assert outcome.failure.transient is transient


def test_a_worker_whose_code_is_newer_than_the_plan_refuses_and_is_not_tried_again(
    registry: Registry, launcher: Launcher
) -> None:
    job = a_job("count", phase_version=2)
    registry.begin(launcher, job)
    outcome = registry.finish(launcher, job)
    assert outcome is not None
    assert outcome.failure is not None
    assert outcome.failure.code == "worker.other_version"
    assert not outcome.failure.transient
    assert not (registry.home.run(job.run) / "work" / "count").exists()


def test_progress_says_how_long_the_run_has_gone_on(
    registry: Registry, launcher: Launcher, held: Holder
) -> None:
    job = a_job("hold")
    registry.begin(launcher, job)
    held()
    note = dict(launcher.progress(job.run) or {})
    assert note.pop("at") >= 0
    assert note == {"label": "steps", "done": 1, "total": 2, "figures": {"rate": 1.5}}


# -- what is left ----------------------------------------------------------------------------------


def test_nothing_is_left_of_a_run_whose_success_was_recorded(
    registry: Registry, launcher: Launcher
) -> None:
    job = a_job("count")
    registry.begin(launcher, job)
    registry.seen(launcher, job)
    launcher.clear(job.run)
    assert not registry.home.run(job.run).exists()
    launcher.clear(job.run)
    registry.begin(launcher, job)
    assert registry.seen(launcher, job) == {"count": "x"}


def test_the_folder_of_a_live_worker_is_not_removed(
    registry: Registry, launcher: Launcher, held: Holder
) -> None:
    job = a_job("hold")
    registry.begin(launcher, job)
    held()
    Launcher(registry.home).clear(job.run)
    assert (registry.home.run(job.run) / "job.json").exists()


def test_of_the_attempts_before_only_the_last_ones_log_is_kept(
    registry: Registry, launcher: Launcher
) -> None:
    for attempt in (1, 2, 3):
        job = a_job("PhaseError", attempt=attempt)
        registry.begin(launcher, job)
        registry.finish(launcher, job)
    logs = sorted(path.name for path in registry.home.run(job.run).glob("log.*"))
    assert logs == ["log.2", "log.3"]
