"""The worker: one process that executes one run and leaves its outcome on disk.

    python -m stillhouse.phases.workers.main REGISTRY RUN_KEY LOCK
    python -m stillhouse.phases.workers.main --warm REGISTRY SOCKET

The second form imports everything first and then waits for a run (phases/workers/warm.py). The
reactor took the lock of the run's folder and handed it down as a descriptor. So the lock lives
exactly as long as this process. The worker never appends to the ledger.

 0. note in `worker.json` which process this is;
 1. see that this program's version of the phase is the planned one;
 2. verify every input against its digest, and link trees into `inputs/`;
 3. execute the phase;
 4. check that no input changed meanwhile;
 5. write `outcome.json` durably.

The worker holds a lease of the store from the first product that it puts until step 5 is done. It
takes none before: while a run computes for days, garbage would stay. What the run reads is kept by
`run.started`, which is in the ledger before the worker is there, and by `job.json` and the lock.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

from stillhouse.phases.catalog import CATALOG, phase_function
from stillhouse.phases.contract import Context, Input, Put
from stillhouse.phases.workers import warm
from stillhouse.phases.workers.job import Failure, Job, JobInput, Outcome, WorkerFile, replace
from stillhouse.phases.workers.processes import identify
from stillhouse.registry.home import Home
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import FileFact, Product
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import BusyError, PhaseError, StillError, StorageError
from stillhouse.store.disk.durable import replace_durably, writing
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.trees.checkout import link_tree
from stillhouse.store.trees.trees import put_tree, read_tree

_PROGRESS_SECONDS = 0.2
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class StoreSink:
    """The store as a phase sees it."""

    def __init__(self, store: BlobStore, recorded: ExitStack) -> None:
        """`recorded` ends when the outcome is durable: until then what was put is leased."""
        self._store, self._recorded = store, recorded
        self._leased = False

    def put_file(self, path: Path, *, sha256: bool = False) -> Put:
        """Store one file durably; with its SHA-256 when asked."""
        self._hold()
        found = self._store.put_file(path, sha256=sha256)
        if found.sha256 is None:
            return Put(digest=found.digest, size=found.size, files=())
        fact = FileFact(path=path.name, size=found.size, digest=found.digest, sha256=found.sha256)
        return Put(digest=found.digest, size=found.size, files=(fact,))

    def put_tree(self, folder: Path, *, sha256: bool = False) -> Put:
        """Store a folder durably; with the SHA-256 of each file when asked."""
        self._hold()
        found = put_tree(self._store, folder, sha256=sha256)
        return Put(digest=found.digest, size=found.payload, files=found.files)

    def _hold(self) -> None:
        """Hold a lease from before the first look at what is to be there."""
        if not self._leased:
            self._recorded.enter_context(self._store.lease())
            self._leased = True


class ProgressFile:
    """Writes `progress.json` a few times a second for those who watch."""

    def __init__(self, path: Path, begun: float) -> None:
        """`begun`: time.monotonic() when the run started."""
        self._path = path
        self._begun = begun
        self._last = 0.0

    def __call__(self, label: str, done: int, total: int, **figures: float) -> None:
        """Note that `done` of `total` units are finished."""
        now = time.monotonic()
        if now - self._last < _PROGRESS_SECONDS and done < total:
            return
        self._last = now
        shown = {k: float(v) for k, v in figures.items() if v == v and abs(v) != float("inf")}  # noqa: PLR0124  # not NaN
        at = round(now - self._begun, 3)
        note = {"label": label, "done": done, "total": total, "figures": shown, "at": at}
        with suppress(OSError):  # a full disk is for the work to meet, not for a note about it
            replace(self._path, note)


def execute(home: Home, job: Job, recorded: ExitStack) -> Outcome:
    """Execute a job in its run's folder. Errors become a failed outcome.

    `recorded` ends when the outcome is durable. Until then garbage collection spares what was made.
    """
    key = job.run
    folder = home.run(key)
    begun = time.monotonic()
    products: tuple[Product, ...] = ()
    failure = None
    try:
        products = _work(home, folder, job, begun, recorded)
        canonical.encode([product.to_json() for product in products])
    except StillError as error:
        traceback.print_exc()
        outside = isinstance(error, StorageError | BusyError)
        failure = _failure(**error.as_dict(), transient=outside)
    except Exception as error:  # noqa: BLE001  # an error of a phase ends this run, not the daemon
        traceback.print_exc()
        failure = _failure(
            code="phase.crashed",
            message=f"{job.slot} raised {type(error).__name__}: {error}.",
            remedy=f"Read its log (`still logs {key[:12]}`), mend the cause, then `still retry`.",
            transient=isinstance(error, OSError) and error.errno in _FULL,
        )
    return Outcome(
        run=key,
        attempt=job.attempt,
        status="failed" if failure else "succeeded",
        products=products,
        failure=failure,
        seconds=round(time.monotonic() - begun, 3),
    )


def _failure(code: str, message: str, remedy: str, *, transient: bool) -> Failure:
    """An error as JSON can hold it; the launcher takes secrets out, and what is too long."""
    return Failure(
        code=code,
        message=_encodable(message),
        remedy=_encodable(remedy),
        transient=transient,
    )


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _work(
    home: Home, folder: Path, job: Job, begun: float, recorded: ExitStack
) -> tuple[Product, ...]:
    _check_version(job)
    store = BlobStore(home.objects)
    inputs: dict[str, list[Input]] = {}
    for place, wanted in enumerate(job.inputs):
        found = _materialise(store, folder / "inputs" / f"{job.attempt}-{place}", wanted)
        inputs.setdefault(wanted.role, []).append(found)
    before = _stamps(store, job.inputs)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    context = Context(
        slot=job.slot,
        params=job.params,
        inputs=inputs,
        scratch=work,
        sink=StoreSink(store, recorded),
        progress=ProgressFile(folder / "progress.json", begun),
        rows=job.rows,
    )
    products = phase_function(job.phase)(context)
    _check_promise(job, products)
    if _stamps(store, job.inputs) != before:
        raise PhaseError(
            f"An input of {job.slot} changed while it ran.",
            remedy="Find what writes into the registry, run `still fsck`, then `still retry`.",
            code="worker.input_changed",
        )
    return products


def _check_version(job: Job) -> None:
    """The code on disk may be newer than the asker's, and what it makes has another key."""
    installed = {spec.name: spec.version for spec in CATALOG}.get(job.phase)
    if installed is not None and installed != job.phase_version:
        raise PhaseError(
            f"{job.slot} was planned with version {job.phase_version} of {job.phase}, but version "
            f"{installed} is installed.",
            remedy="Restart the daemon, or whatever else advances the registry: it runs old code.",
            code="worker.other_version",
        )


def _check_promise(job: Job, products: Sequence[Product]) -> None:
    """A phase makes what its row of the catalog says: others are waiting for it by name."""
    promised = {(m.role, m.kind) for spec in CATALOG if spec.name == job.phase for m in spec.makes}
    made = {(product.role, product.kind) for product in products}
    if made != promised:
        raise PhaseError(
            f"{job.slot} made {sorted(made)}, but its catalog row promises {sorted(promised)}.",
            remedy="Mend the phase or its row in phases/catalog.py.",
            code="phase.broken_promise",
        )


def _materialise(store: BlobStore, place: Path, wanted: JobInput) -> Input:
    store.verify(wanted.digest)
    path = store.path(wanted.digest)
    if wanted.form == "tree":
        for entry in read_tree(store, wanted.digest):
            store.verify(entry.digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        link_tree(store, wanted.digest, place)
        path = place
    return Input(
        role=wanted.role,
        digest=wanted.digest,
        kind=wanted.kind,
        form=wanted.form,
        path=path,
        facts=wanted.facts,
    )


def _stamps(store: BlobStore, inputs: Sequence[JobInput]) -> dict[Digest, tuple[int, int, int]]:
    """Size, inode and modification time of every object that the inputs consist of."""
    digests = [i.digest for i in inputs]
    digests += [e.digest for i in inputs if i.form == "tree" for e in read_tree(store, i.digest)]
    found = {d: store.path(d).stat() for d in digests}
    return {d: (s.st_size, s.st_ino, s.st_mtime_ns) for d, s in found.items()}


def main(arguments: Sequence[str]) -> int:
    """Execute one run. Returns 0 when an outcome was written, or when there was none to write."""
    if arguments[0] == "--warm":
        _, root, socket = arguments
        given = warm.wait_for_job(int(socket), _ahead())
        if given is None:
            return 0
        key, lock, log = given
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        os.close(log)
    else:
        root, key, lock = arguments[0], arguments[1], int(arguments[2])
    _keep_from_children(lock)
    _perform(Home(Path(root)), key)
    return 0


def _ahead() -> Iterator[str]:
    """What phases import, where it is installed; nothing that only some of them need."""
    yield from ("numpy", "torch")
    for spec in CATALOG:
        yield f"stillhouse.phases.{spec.name}.work"


def _perform(home: Home, key: Digest) -> None:
    folder = home.run(key)
    process = identify(os.getpid())
    assert process is not None  # noqa: S101  # it is this one
    job = Job.model_validate_json((folder / "job.json").read_bytes())
    note = WorkerFile(attempt=job.attempt, process=process)
    with writing(folder):
        replace(folder / "worker.json", note)
    with ExitStack() as recorded:
        outcome = execute(home, job, recorded)
        replace_durably(folder / "outcome.json", canonical.encode(outcome.to_json()))


def _keep_from_children(lock: int) -> None:
    """The lock must end with this process, and no child, by exec or by fork alone, may keep it."""
    os.set_inheritable(lock, False)
    held = [lock]

    def let_go() -> None:
        while held:
            os.close(held.pop())

    os.register_at_fork(after_in_child=let_go)


def _leave(code: int) -> NoReturn:
    """End at once: the next run waits for this process, and the kernel clears up faster.

    Python would take apart all that was imported, which is a second for PyTorch. Exit functions
    (they remove temporary folders) are run, and what C libraries have not written yet is written.
    """
    atexit._run_exitfuncs()  # noqa: SLF001  # no public name, and as old as atexit
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)
    os._exit(code)


if __name__ == "__main__":
    _leave(main(sys.argv[1:]))
