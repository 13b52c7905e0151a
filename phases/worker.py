"""The worker: one process that executes one run and leaves its outcome on disk.

`python -m phases.worker REGISTRY RUN_KEY`. The reactor took the lock of the run's folder and handed
it down, so the lock lives exactly as long as this process. The worker never appends to the ledger.

 1. verify every input against its digest, and link trees into `inputs/`;
 2. execute the phase;
 3. check that no input changed meanwhile;
 4. write `outcome.json` durably.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from phases.catalog import CATALOG, phase_function
from phases.contract import Context, Input, Put
from phases.job import Failure, Job, JobInput, Outcome
from registry.home import Home
from schemas import canonical
from schemas.artifact import FileFact, Product
from schemas.digest import Digest
from schemas.errors import PhaseError, StillError
from store.blobs import BlobStore
from store.checkout import link_tree
from store.durable import replace_durably
from store.trees import put_tree, read_tree

_PROGRESS_SECONDS = 0.2
_LONGEST_TEXT = 4000
"""Characters of an error that an event carries."""


class StoreSink:
    """The store as a phase sees it."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def put_file(self, path: Path, *, sha256: bool = False) -> Put:
        """Store one file durably; with its SHA-256 when asked."""
        found = self._store.put_file(path, sha256=sha256)
        if found.sha256 is None:
            return Put(digest=found.digest, size=found.size, files=())
        fact = FileFact(path=path.name, size=found.size, digest=found.digest, sha256=found.sha256)
        return Put(digest=found.digest, size=found.size, files=(fact,))

    def put_tree(self, folder: Path, *, sha256: bool = False) -> Put:
        """Store a folder durably; with the SHA-256 of each file when asked."""
        found = put_tree(self._store, folder, sha256=sha256)
        return Put(digest=found.digest, size=found.payload, files=found.files)


class ProgressFile:
    """Writes `progress.json` a few times a second for whoever watches."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = 0.0

    def __call__(self, label: str, done: int, total: int, **figures: float) -> None:
        """Note that `done` of `total` units are finished."""
        now = time.monotonic()
        if now - self._last < _PROGRESS_SECONDS and done < total:
            return
        self._last = now
        shown = {k: float(v) for k, v in figures.items() if v == v and abs(v) != float("inf")}  # noqa: PLR0124  # not NaN
        note = {"label": label, "done": done, "total": total, "figures": shown}
        temp = self._path.with_suffix(".tmp")
        with suppress(OSError):  # a full disk is for the work to meet, not for a note about it
            temp.write_bytes(canonical.encode(note))
            temp.replace(self._path)


def execute(home: Home, key: Digest) -> Outcome:
    """Execute the job in the run's folder. Errors become a failed outcome."""
    folder = home.run(key)
    job = Job.model_validate_json((folder / "job.json").read_bytes())
    begun = time.monotonic()
    products: tuple[Product, ...] = ()
    failure = None
    try:
        products = _work(home, folder, job)
        canonical.encode([product.to_json() for product in products])
    except StillError as error:
        traceback.print_exc()
        failure = _failure(**error.as_dict())
    except Exception as error:  # noqa: BLE001  # whatever a phase raises ends this run, not the daemon
        traceback.print_exc()
        failure = _failure(
            code="phase.crashed",
            message=f"{job.slot} raised {type(error).__name__}: {error}.",
            remedy=f"Read its log (`still show {key[:12]}`), mend the cause, then `still retry`.",
        )
    return Outcome(
        run=key,
        attempt=job.attempt,
        status="failed" if failure else "succeeded",
        products=products,
        failure=failure,
        seconds=round(time.monotonic() - begun, 3),
    )


def _failure(code: str, message: str, remedy: str) -> Failure:
    """What of an error fits into an event; the log has the whole."""
    return Failure(code=code, message=_recordable(message), remedy=_recordable(remedy))


def _recordable(text: str) -> str:
    plain = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return plain if len(plain) <= _LONGEST_TEXT else f"{plain[:_LONGEST_TEXT]} …"


def _work(home: Home, folder: Path, job: Job) -> tuple[Product, ...]:
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
        sink=StoreSink(store),
        progress=ProgressFile(folder / "progress.json"),
        registry=home,
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
    """Execute one run: `REGISTRY RUN_KEY`. Returns 0 when an outcome was written."""
    root, key = arguments
    home = Home(Path(root))
    # Children of this process must not keep the run's lock alive after it.
    for descriptor in _inherited():
        os.set_inheritable(descriptor, False)
    outcome = execute(home, key)
    replace_durably(home.run(key) / "outcome.json", canonical.encode(outcome.to_json()))
    return 0


def _inherited() -> tuple[int, ...]:
    named = os.environ.pop("STILL_RUN_LOCK_FD", "")
    return (int(named),) if named else ()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
