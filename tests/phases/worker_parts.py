"""Real workers on a phase of the tests' own.

`phase_folder` is put on the workers' PYTHONPATH; what Python imports from there at its start adds
one row to the catalog, of a phase that does what its parameters say. Everything else is the worker
that the daemon starts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillhouse.phases.workers.job import Job, Outcome
from stillhouse.phases.workers.launch import Launcher
from stillhouse.registry.home import Home
from stillhouse.store.disk.hashing import hash_bytes
from stillhouse.store.objects.local import BlobStore

PATIENCE = 30.0
"""Seconds after which a test gives up: what it waits for takes a fraction of one."""

_START = """
import stillhouse.phases.catalog
from stillhouse.phases.catalog import PhaseSpec
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.plan import Made
from pathlib import Path

stillhouse.phases.__path__.append(str(Path(__file__).parent / "more"))
stillhouse.phases.catalog.CATALOG += (
    PhaseSpec(
        name="tested", version=1, slots=lambda recipe: (),
        makes=(Made(role="seen", kind=Kind.CHECKPOINT),), tools=(),
    ),
)
"""

_PHASE = """
import errno, hashlib, json, os, resource, signal, socket, sys, threading, time
from pathlib import Path

from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.errors import BusyError, PhaseError, StorageError


def look():
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
    )
    umask = os.umask(0)
    os.umask(umask)
    return {
        "environment": dict(os.environ),
        "given": sorted(Path("/proc/self/environ").read_text().split("\\0")),
        "cwd": os.getcwd(),
        "umask": umask,
        # From 32 on they are the C library's own.
        "signals": {n: int(status[n], 16) % 2**31 for n in ("SigBlk", "SigIgn", "SigCgt")},
        "threads": threading.active_count(),
        "limits": [resource.getrlimit(n) for n in range(10)],
        "nice": os.nice(0),
        "path": sys.path,
        "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
        "descriptors": sorted(
            (os.readlink(f"/proc/self/fd/{n}"), os.get_inheritable(int(n)))
            for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")
        ),
        "standard": [os.readlink(f"/proc/self/fd/{n}") for n in range(3)],
        "stdout": [sys.stdout.encoding, sys.stdout.line_buffering, sys.stdout.write_through],
    }


def numbers():
    import torch

    from stillhouse.phases.numerics.threads import fixed

    with fixed(2, seed=5):
        x = torch.randn(300, 257)
        y = torch.softmax((x @ x.T).tanh() @ torch.randn(300, 200), -1).sum(0)
    return {"sum": hashlib.sha256(y.numpy().tobytes()).hexdigest()}


def hold(sig=None):
    if sig is not None:
        signal.signal(sig, signal.SIG_IGN)
    Path(os.environ["STILL_TEST_SIGN"]).write_text(str(os.getpid()))
    time.sleep(600)


def fork(sig=None):
    if os.fork() == 0:
        hold(sig)


def seen(context):
    do = context.params["do"]
    context.progress("steps", 1, 2, rate=1.5)
    match do:
        case "look":
            return look()
        case "numbers":
            return numbers()
        case "count":
            with Path(context.scratch / "count").open("a") as f:
                f.write("x")
            return {"count": (context.scratch / "count").read_text()}
        case "say":
            import atexit
            import ctypes

            print("print")
            ctypes.CDLL(None).puts(b"puts")
            atexit.register(print, "atexit")
            return {}
        case "hold":
            hold()
        case "put and hold":
            path = context.scratch / "early.json"
            path.write_text("{}")
            context.file("seen", Kind.CHECKPOINT, path)
            hold()
        case "stubborn":
            hold(signal.SIGTERM)
        case "fork and hold":
            fork()
            time.sleep(600)
        case "fork and leave":
            fork(signal.SIGTERM)
            while not Path(os.environ["STILL_TEST_SIGN"]).exists():
                time.sleep(0.01)
            return {}
        case "take":
            os.fork()
            block = b"x" * context.params["bytes"]
            Path(f"{os.environ['STILL_TEST_SIGN']}.{os.getpid()}").touch()
            hold()
        case "tell":
            key, before = os.environ[context.params["name"]], context.params.get("before", "")
            print("the key is", key, flush=True)
            raise PhaseError(
                "No answer for " + before + key,
                remedy="Ask with another than " + key,
                code="tested.told",
            )
        case "tell and die":
            print("the key is", os.environ[context.params["name"]], flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        case "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        case "StorageError" | "BusyError" | "PhaseError":
            raise globals()[do]("What happened.", remedy="What to do.", code="tested.raised")


def run(context):
    path = context.scratch / "seen.json"
    path.write_text(json.dumps(seen(context)))
    return (context.file("seen", Kind.CHECKPOINT, path),)
"""


def phase_folder(folder: Path) -> Path:
    """Write the phase, and hide numeric libraries, which take long; the folder for PYTHONPATH."""
    (folder / "more").mkdir(parents=True)
    for name in ("numpy", "torch"):
        (folder / f"{name}.py").write_text("raise ImportError(__name__)", encoding="utf-8")
    (folder / "sitecustomize.py").write_text(_START, encoding="utf-8")
    (folder / "more" / "tested.py").write_text(_PHASE, encoding="utf-8")
    return folder


def a_job(do: str, *, attempt: int = 1, phase_version: int = 1, **params: Any) -> Job:
    """A job of the tested phase. Jobs that do the same have the same key."""
    wanted = {"do": do, **params}
    return Job(
        run=hash_bytes(json.dumps(wanted).encode()).digest,
        attempt=attempt,
        phase="tested",
        phase_version=phase_version,
        plan=hash_bytes(b"plan").digest,
        slot="tested",
        params=wanted,
        inputs=(),
    )


class Registry:
    """A home with a store, in which jobs are run as the reactor runs them, but for the ledger."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.store = BlobStore.create(self.home.objects)

    def begin(self, launcher: Launcher, job: Job) -> None:
        """Start a worker on a job, as the reactor does."""
        with launcher.locked(job.run) as lock:
            assert lock is not None, "a live worker has it"
            launcher.prepare(job)
            launcher.start(job, lock)

    def finish(self, launcher: Launcher, job: Job) -> Outcome | None:
        """Wait for the worker's end, and read what it left."""
        until(lambda: launcher.ended(job.run))
        return launcher.outcome(job.run, job.attempt)

    def seen(self, launcher: Launcher, job: Job) -> Any:
        """Wait for the worker's success; what the phase saw."""
        outcome = self.finish(launcher, job)
        assert outcome is not None, launcher.log(job.run, job.attempt).read_text()
        assert outcome.status == "succeeded", outcome.failure
        return json.loads(self.store.read(outcome.products[0].digest))


def until(happened: Callable[[], Any]) -> Any:
    """Look again and again; what was seen at last."""
    deadline = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
