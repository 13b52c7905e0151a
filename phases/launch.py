"""Workers from outside: starting one, and finding out how it ended.

The lock of a run's folder says whether its worker lives. The reactor takes it *before* it records
`run.started` and hands the open descriptor down, so there is no moment in which a run is recorded,
not finished, and unlocked; a worker outlives the reactor that started it and is found again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phases.job import Job, Outcome, read_outcome, read_progress
from registry.home import Home
from schemas import canonical
from schemas.digest import Digest
from store.durable import replace_durably, writing

# -P: the user's current folder must not shadow our modules.
_WORKER = (sys.executable, "-P", "-m", "phases.worker")

_LOG_TAIL = 400
"""Characters of a dead worker's log that its `run.abandoned` quotes."""


class Launcher:
    """Starts workers for one registry, and knows the ones it started."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._children: dict[Digest, subprocess.Popen[bytes]] = {}

    @contextmanager
    def locked(self, key: Digest) -> Iterator[int | None]:
        """The lock of a run's folder as an open descriptor; None when a live worker has it."""
        folder = self._home.run(key)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield descriptor
        finally:
            os.close(descriptor)

    def prepare(self, job: Job) -> None:
        """Lay out a run's folder for the next attempt. The caller holds its lock.

        Raises StorageError.
        """
        folder = self._home.run(job.run)
        shutil.rmtree(folder / "inputs", ignore_errors=True)
        with writing(folder):
            for stale in ("outcome.json", "progress.json", "stopped"):
                (folder / stale).unlink(missing_ok=True)
        replace_durably(folder / "job.json", canonical.encode(job.to_json()))

    def start(self, job: Job, lock: int) -> None:
        """Start a worker on a prepared job; it inherits the lock, and so does nobody else.

        Raises StorageError.
        """
        folder = self._home.run(job.run)
        with writing(folder), (folder / f"log.{job.attempt}").open("ab") as log:
            self._children[job.run] = subprocess.Popen(
                [*_WORKER, str(self._home.root.resolve()), job.run],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),
                env=_environment(lock),
                start_new_session=True,
            )

    def ended(self, key: Digest) -> bool:
        """Whether no live worker has this run."""
        child = self._children.get(key)
        if child is not None and child.poll() is None:
            return False
        with self.locked(key) as lock:
            return lock is not None

    def outcome(self, key: Digest, attempt: int) -> Outcome | None:
        """What the ended worker left, if it came that far."""
        return read_outcome(self._home.run(key), attempt)

    def progress(self, key: Digest) -> Mapping[str, Any] | None:
        """What the live worker last said."""
        return read_progress(self._home.run(key))

    def log(self, key: Digest, attempt: int) -> Path:
        """The attempt's log; may not exist."""
        return self._home.run(key) / f"log.{attempt}"

    def cause(self, key: Digest, attempt: int) -> str:
        """How a worker without an outcome ended, in words, with the end of its log."""
        child = self._children.pop(key, None)
        how = "its process is gone"
        if child is not None and child.returncode is not None:
            code = child.returncode
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        log = self.log(key, attempt)
        if not log.is_file():
            return how
        text = log.read_text(encoding="utf-8", errors="replace").strip()
        return f"{how}; its log ends: {text[-_LOG_TAIL:]}" if text else how

    def stopped(self, key: Digest) -> bool:
        """Whether this run's worker was ended on purpose."""
        return (self._home.run(key) / "stopped").exists()

    def clear(self, key: Digest) -> None:
        """Remove what a recorded run no longer needs: scratch and input links."""
        self._children.pop(key, None)
        folder = self._home.run(key)
        for name in ("work", "inputs"):
            shutil.rmtree(folder / name, ignore_errors=True)

    def stop_all(self) -> None:
        """End the workers that this process started; their runs can be taken up again."""
        for key, child in self._children.items():
            if child.poll() is None:
                (self._home.run(key) / "stopped").touch()
                child.terminate()
        for child in self._children.values():
            child.wait()


def _environment(lock: int) -> dict[str, str]:
    """The worker's environment: ours, offline, quiet, and without a second set of threads."""
    # Wherever this program was imported from, the worker must find it too.
    ours = str(Path(__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    # Knobs of numeric libraries that no run key holds.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ATEN_", "MKL_", "ONEDNN_"))}
    return kept | {
        "PYTHONPATH": os.pathsep.join([ours, inherited] if inherited else [ours]),
        "STILL_RUN_LOCK_FD": str(lock),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONUNBUFFERED": "1",
    }
