"""Workers from outside: starting one, ending one, and finding out how it ended.

The lock of a run's folder says whether its worker lives. The reactor takes the lock *before* it
records `run.started`, and hands the open descriptor down. So there is no moment in which a run is
recorded, not finished, and unlocked. A worker outlives the reactor that started it and is found
again.

A worker gets the variables of an allow-list, and the secrets that are named. What it leaves in
words (its log, its failure) passes through here on its way to the ledger and the store, and is
cleaned.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.phases.workers import logs as runlogs
from stillhouse.phases.workers import processes
from stillhouse.phases.workers.job import (
    Ending,
    EndingFile,
    Job,
    Outcome,
    read_ending,
    read_outcome,
    read_progress,
    read_worker,
    replace,
)
from stillhouse.phases.workers.processes import Process
from stillhouse.phases.workers.warm import WarmWorker
from stillhouse.registry.home import Home
from stillhouse.schemas import canonical
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.secrets import scrub, secret_values
from stillhouse.store.disk import locks
from stillhouse.store.disk.durable import replace_durably, writing

# -P: the user's current folder must not shadow our modules.
_WORKER = (sys.executable, "-P", "-m", "stillhouse.phases.workers.main")

GRACE = 10.0
"""Seconds between asking a worker to end and ending it."""

_LOG_TAIL = 400
"""Characters of a dead worker's log that its `run.abandoned` quotes."""

_LONGEST_TEXT = 4000
"""Characters of an error that an event carries; the log has the whole."""

_FALSE_STARTS = 3
"""Warm workers that may die unused, one after the other, until no more are made …"""
_STEADY = 5.0
"""… unless it was ready for so many seconds: then it was not what it imported that killed it."""

_GLANCES, _GLANCE = 25, 0.002
"""How often, and after how many seconds, a busy lock is tried again that no live worker holds:
a look at who is alive holds it for microseconds."""

_DYING_SECONDS = 0.5
"""The longest that a process whose files are closed is waited for."""

_PASSED = frozenset(
    [
        "HOME",
        "HF_HOME",
        "HF_HUB_CACHE",
        "LANG",
        "LANGUAGE",
        "LD_LIBRARY_PATH",
        "LOGNAME",
        "PATH",
        "PYTHONHASHSEED",
        "PYTHONHOME",
        "PYTHONPYCACHEPREFIX",
        "PYTHONWARNINGS",
        "SHELL",
        "TEMP",
        "TERM",
        "TMP",
        "TMPDIR",
        "TZ",
        "USER",
        "VIRTUAL_ENV",
        "XDG_CACHE_HOME",
    ]
)
_PASSED_BY_BEGINNING = ("CUDA_", "GOMP_", "KMP_", "LC_", "NVIDIA_", "OMP_", "OPENBLAS_", "STILL_")
"""Names of variables that a worker sees, and how others begin.

An allow-list: credentials have any name (DATABASE_URL, SSH_AUTH_SOCK, KUBECONFIG). Knobs that
change numbers and that no run key holds (ATEN_, MKL_, ONEDNN_, TORCH_) are not on it.
"""

_SIGN = "STILL_WORKER_OF"
"""The variable that says of a process which registry's worker it is, or was spawned by."""


@dataclass(frozen=True, kw_only=True)
class _Child:
    """A worker that this process started."""

    attempt: int
    popen: subprocess.Popen[bytes]
    process: Process


@dataclass(frozen=True, kw_only=True)
class _Exit:
    """How a worker that this process started ended."""

    attempt: int
    code: int
    """As in Popen.returncode."""


class Launcher:
    """Starts workers for one registry, and knows the ones it started."""

    def __init__(
        self,
        home: Home,
        *,
        secrets: Collection[str] = (),
        grace: float = GRACE,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """`secrets`: variables that workers may see, and whose values are hidden in what they say.

        `clock`: seconds, the same for all processes of one boot. `wait`: sleeps so many seconds.
        """
        self._home, self._grace, self._clock, self._wait = home, grace, clock, wait
        self._root = str(home.root.resolve())
        self._secrets = frozenset(secrets)
        self._hidden = secret_values(os.environ, secrets)
        self._children: dict[Digest, _Child] = {}
        self._exits: dict[Digest, _Exit] = {}
        self._endings: dict[Digest, EndingFile] = {}
        self._let_go: list[subprocess.Popen[bytes]] = []
        self._warm: WarmWorker | None = None
        self._warm_since: float | None = None
        self._false_starts = 0

    # -- starting ------------------------------------------------------------------------------

    @contextmanager
    def locked(self, key: Digest) -> Iterator[int | None]:
        """The lock of a run's folder as an open descriptor; None when a live worker has it."""
        path = self._home.run_lock(key)
        with ExitStack() as closed:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = closed.enter_context(locks.opened(path, locks.CREATE))
            yield descriptor if self._taken(key, descriptor, path) else None

    def prepare(self, job: Job) -> None:
        """Lay out a run's folder for the next attempt. The caller holds its lock.

        Of the attempts before only the last one's log is kept. Raises StorageError.
        """
        self.forget(job.run)
        folder = self._home.run(job.run)
        shutil.rmtree(folder / "inputs", ignore_errors=True)
        with writing(folder):
            for stale in ("outcome.json", "progress.json", "worker.json", "ending.json"):
                (folder / stale).unlink(missing_ok=True)
            runlogs.remove(folder, before=job.attempt - 1)
        replace_durably(folder / "job.json", canonical.encode(job.to_json()))

    def start(self, job: Job, lock: int) -> None:
        """Start a worker on a prepared job; it inherits the lock, and so does nobody else.

        Raises StorageError.
        """
        folder = self._home.run(job.run)
        with writing(folder), (folder / f"log.{job.attempt}").open("ab") as log:
            popen = self._start_warm(job.run, lock, log.fileno())
            if popen is None:
                popen = self._start_cold(job.run, lock, log.fileno())
        process = processes.identify(popen.pid) or Process(pid=popen.pid, started="0")
        self._children[job.run] = _Child(attempt=job.attempt, popen=popen, process=process)
        self._let_go = [other for other in self._let_go if other.poll() is None]

    def warm(self) -> None:
        """See to it that a worker waits that has imported everything. `start` uses it up.

        Costs its memory. When such workers keep dying unused, none are made any more.
        """
        if self._warm is not None and not self._warm.alive():
            since, now = self._warm_since, self._clock()
            steady = since is not None and now - since >= _STEADY
            self._false_starts = 0 if steady else self._false_starts + 1
            self._end_warm()
        if self._warm is not None and self._warm_since is None and self._warm.ready():
            self._warm_since = self._clock()
        if self._warm is None and self._false_starts < _FALSE_STARTS:
            try:
                self._warm = WarmWorker((*_WORKER, "--warm", self._root), self._environment())
            except OSError:  # no memory, no descriptors: work comes first
                self._false_starts += 1

    def cool(self) -> None:
        """Let the waiting worker go: what it imported is not what is installed now, or we leave."""
        self._false_starts = 0
        self._end_warm()

    # -- watching ------------------------------------------------------------------------------

    def ended(self, key: Digest) -> bool:
        """Whether no live worker has this run. What a dead one had spawned is ended."""
        ours = key in self._children
        if self._live_child(key) is not None:
            return False
        if not ours:
            self._end_left_over(key)  # what it forked may hold the lock
        with self.locked(key) as lock:
            if lock is not None and not ours:
                self._end_left_over(key, dying=True)  # again: it may have died only since
            return lock is not None

    def outcome(self, key: Digest, attempt: int) -> Outcome | None:
        """What the ended worker left, if it came that far, as it can be recorded."""
        found = read_outcome(self._home.run(key), attempt)
        if found is None or found.failure is None:
            return found
        said = {
            "message": self._recordable(found.failure.message),
            "remedy": self._recordable(found.failure.remedy),
        }
        return found.model_copy(update={"failure": found.failure.model_copy(update=said)})

    def progress(self, key: Digest) -> Mapping[str, Any] | None:
        """What the live worker last said."""
        return read_progress(self._home.run(key))

    def memory(self, key: Digest) -> int | None:
        """Bytes that the live worker and what it spawned hold; None when that is not known."""
        process = self._process(key)
        return processes.resident(process) if process else None

    def cause(self, key: Digest, attempt: int) -> str:
        """How a worker without an outcome ended, in words, with the end of its log."""
        exit_ = self._exits.get(key)
        how = "its process is gone"
        if exit_ is not None and exit_.attempt == attempt:
            code = exit_.code
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        text = runlogs.end_of(self.log(key, attempt), _LOG_TAIL, self._hidden)
        return f"{how}; its log ends: {text}" if text else how

    # -- logs ----------------------------------------------------------------------------------

    def log(self, key: Digest, attempt: int) -> Path:
        """The attempt's log; may not exist."""
        return self._home.run(key) / f"log.{attempt}"

    def shorten_log(self, key: Digest, attempt: int) -> bool:
        """Keep a live worker's log within bounds; whether anything was to do.

        Raises StorageError.
        """
        return runlogs.rotate(self.log(key, attempt))

    def stored_log(self, key: Digest, attempt: int) -> bytes | None:
        """What is to be stored of an ended worker's log, free of secrets; None without a log."""
        log = self.log(key, attempt)
        return runlogs.whole(log, self._hidden) if log.is_file() else None

    # -- ending --------------------------------------------------------------------------------

    def end(self, key: Digest, attempt: int, why: Ending) -> None:
        """Signal a live worker, of any starter, to end; asked again after the grace, kill it.

        The first cause is the one that stays. Does nothing when the worker is gone.
        """
        if self.ended(key):
            return
        ending = self._noted_ending(key, attempt, why)
        process = self._process(key, attempt)
        if process is not None:
            late = self._clock() - ending.at >= self._grace
            processes.signal_group(process, signal.SIGKILL if late else signal.SIGTERM)

    def ending(self, key: Digest, attempt: int) -> Ending | None:
        """Why this attempt's worker has to end, if it has to."""
        found = self._ending(key, attempt)
        return found.why if found else None

    def stop_all(self) -> None:
        """End the workers that this process started; their runs can be taken up again."""
        self.cool()
        live = {k: c for k, c in self._children.items() if c.popen.poll() is None}
        for key, child in live.items():
            self.end(key, child.attempt, Ending.STOPPED)
        deadline = self._clock() + self._grace
        for key, child in live.items():
            try:
                child.popen.wait(max(0.0, deadline - self._clock()))
            except subprocess.TimeoutExpired:
                self.end(key, child.attempt, Ending.STOPPED)
                child.popen.wait()

    def hand_over(self) -> None:
        """Forget the workers that this process started; the next advancer finds them."""
        self.cool()
        self._let_go += [child.popen for child in self._children.values()]
        self._children.clear()

    def forget(self, key: Digest) -> None:
        """How a run's worker ended was recorded: what is known of that is not needed again."""
        self._exits.pop(key, None)
        self._endings.pop(key, None)

    def clear(self, key: Digest) -> None:
        """Remove the folder of a run whose success was recorded: nothing there is needed again."""
        self.forget(key)
        folder = self._home.run(key)
        if folder.exists():
            with self.locked(key) as lock:
                if lock is not None:
                    shutil.rmtree(folder, ignore_errors=True)

    # -- steps ---------------------------------------------------------------------------------

    def _start_warm(self, run: Digest, lock: int, log: int) -> subprocess.Popen[bytes] | None:
        warm = self._warm
        if warm is None or not warm.ready():
            return None
        if not warm.fits(self._environment()):
            self._end_warm()
            return None
        self._warm = self._warm_since = None
        if not warm.take(run, lock, log):
            return None
        self._false_starts = 0
        return warm.process

    def _end_warm(self) -> None:
        if self._warm is not None:
            self._warm.end()
        self._warm = self._warm_since = None

    def _start_cold(self, run: Digest, lock: int, log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*_WORKER, self._root, run, str(lock)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            env=self._environment(),
            start_new_session=True,
        )

    def _environment(self) -> dict[str, str]:
        return _environment(self._root, self._secrets)

    def _taken(self, key: Digest, descriptor: int, path: Path) -> bool:
        """Lock the open file, unless a live worker has it."""
        for _ in range(_GLANCES):
            if locks.try_acquire(descriptor) and locks.still_named(descriptor, path):
                return True
            process = self._process(key)
            if process is not None and processes.exists(process):
                return False
            self._wait(_GLANCE)
        return False

    def _live_child(self, key: Digest) -> _Child | None:
        """The run's worker, if this process started it and it lives: then it has the run's lock.

        One whose end is seen here is forgotten, but for how it ended: the next attempt may be
        another process's.
        """
        child = self._children.get(key)
        if child is None or (code := child.popen.poll()) is None:
            return child
        del self._children[key]
        self._exits[key] = _Exit(attempt=child.attempt, code=code)
        processes.end_left_over(child.process, None)  # it just died: its session is its own
        return None

    def _process(self, key: Digest, attempt: int | None = None) -> Process | None:
        """The worker of an attempt, else of the latest one, dead or alive."""
        if (child := self._live_child(key)) is not None:
            return child.process if attempt in (None, child.attempt) else None
        noted = read_worker(self._home.run(key), attempt)
        return noted.process if noted else None

    def _end_left_over(self, key: Digest, *, dying: bool = False) -> None:
        """`dying`: its lock is free, which a process gives up a moment before it is gone."""
        process = self._process(key)
        until = time.monotonic() + (_DYING_SECONDS if dying else 0)
        while process and processes.exists(process) and time.monotonic() < until:
            time.sleep(0.005)
        if process is not None and not processes.exists(process):
            # It may have died long ago, so there must be a sign that this is ours.
            processes.end_left_over(process, (_SIGN, self._root))

    def _recordable(self, text: str) -> str:
        """What of an error fits into an event. Cut last, for half a secret is not recognised."""
        clean = scrub(text, self._hidden)
        return clean if len(clean) <= _LONGEST_TEXT else f"{clean[:_LONGEST_TEXT]} …"

    def _ending(self, key: Digest, attempt: int) -> EndingFile | None:
        found = self._endings.get(key)
        if found is not None and found.attempt == attempt:
            return found
        return read_ending(self._home.run(key), attempt)

    def _noted_ending(self, key: Digest, attempt: int, why: Ending) -> EndingFile:
        found = self._ending(key, attempt)
        if found is None:
            found = EndingFile(attempt=attempt, why=why, at=self._clock())
            self._endings[key] = found
            with suppress(OSError):  # a full disk must not save the worker that fills it
                replace(self._home.run(key) / "ending.json", found)
        return found


def _environment(root: str, secrets: Collection[str]) -> dict[str, str]:
    """A worker's environment: offline, quiet, without a second set of threads; `secrets` pass."""
    # Wherever this program was imported from, the worker must find it too.
    ours = str(Path(__file__).absolute().parents[3])  # a link is not followed
    inherited = os.environ.get("PYTHONPATH")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in secrets or name in _PASSED or name.startswith(_PASSED_BY_BEGINNING)
    }
    return kept | {
        "PYTHONPATH": os.pathsep.join([ours, inherited] if inherited else [ours]),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONUNBUFFERED": "1",
        _SIGN: root,
    }
