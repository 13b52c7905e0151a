"""Repeating: a recorded run is executed again, exactly as recorded, to make its products again.

A repeat has the same inputs and parameters, and the same worker. It has a folder of its own below
`runs/`, whose name is a digest of the run key. So the reactor never takes the repeat for the run,
and nothing of it is ever recorded as one.

A second request for the repeat follows the worker that is at work. Without one, it takes what a
finished worker left, or goes on where a killed one stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from stillhouse.phases.catalog import CATALOG
from stillhouse.phases.reactor import recording
from stillhouse.phases.workers.job import Job, Outcome
from stillhouse.phases.workers.launch import Launcher
from stillhouse.registry.home import Home
from stillhouse.registry.ledger.ledger import hash_at, lines_until
from stillhouse.registry.planning.sealing import rows_at_start
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import State
from stillhouse.schemas.artifact import Kind, Product
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import PhaseError
from stillhouse.schemas.rows import ReleaseRows
from stillhouse.store.disk.hashing import hash_bytes

TAG = "stillhouse rewind v1\n"


def repeat_key(run: Digest) -> Digest:
    """The name of the folder in which a run is repeated."""
    return hash_bytes(f"{TAG}{run}".encode()).digest


def job_of(state: State, run: Run, rows: ReleaseRows | None = None) -> Job:
    """What the worker is to do: what it did, with the version of its phase that is there now.

    rows: for a run that sealed a release, what the ledger said when it started.
    """
    started = run.started
    installed = {spec.name: spec.version for spec in CATALOG}
    return Job(
        run=repeat_key(run.key),
        attempt=1,
        phase=started.phase,
        phase_version=installed.get(started.phase, started.phase_version),
        plan=started.plan,
        slot=started.slot,
        params=started.params,
        inputs=tuple(
            recording.job_input(state, parent)
            for parent in started.inputs
            if not parent.circumstance
        ),
        rows=rows,
    )


def sealed_rows(log: Path, run: Run) -> ReleaseRows | None:
    """What the ledger said when a run started that sealed a release; None for any other run.

    Raises IntegrityError.
    """
    if not any(spec.seals for spec in CATALOG if spec.name == run.started.phase):
        return None
    then = State()
    for line in lines_until(log, run.started_seq - 1):
        then.take(line)
    return rows_at_start(then, CATALOG, run.started, partial(hash_at, log))


def repeat(
    home: Home,
    launcher: Launcher,
    job: Job,
    *,
    tell: Callable[[Mapping[str, Any]], None],
    wait: Callable[[], None],
) -> Outcome:
    """Have a worker do it, and wait for its end; returns its success.

    tell: gets the worker's progress now and then. wait: sleeps between two looks. The folder stays
    until `launcher.clear`, so what was made is safe from garbage collection. Raises PhaseError when
    the worker failed or died, StorageError.
    """
    outcome = None
    mine = False
    while outcome is None and not mine:  # of what others began, they may have taken the outcome
        attempt, mine = _begun(home, launcher, job)
        while not launcher.ended(job.run):
            if note := launcher.progress(job.run):
                tell(note)
            wait()
        outcome = launcher.outcome(job.run, attempt)
    if outcome is None:
        cause = launcher.cause(job.run, attempt)
        raise PhaseError(
            f"The worker that repeated {job.slot} left nothing: {cause}.",
            remedy="Ask again; it goes on where it stopped.",
            code="rewind.died",
        )
    if outcome.failure is not None:
        raise PhaseError(
            f"{job.slot} succeeded when it was recorded, and failed now: {outcome.failure.message}",
            remedy=f"{outcome.failure.remedy} Its log: {launcher.log(job.run, attempt)}",
            code="rewind.failed",
        )
    return outcome


def _begun(home: Home, launcher: Launcher, job: Job) -> tuple[int, bool]:
    """Start a worker, unless one is at work or has succeeded; its attempt, and whether it did."""
    with launcher.locked(job.run) as lock:
        before = _latest_attempt(home, job.run)
        if lock is None:
            return before, False
        left = launcher.outcome(job.run, before)
        if left is not None and left.failure is None:
            return before, False
        following = job.model_copy(update={"attempt": before + 1})
        launcher.prepare(following)
        launcher.start(following, lock)
        return following.attempt, True


def _latest_attempt(home: Home, key: Digest) -> int:
    path = home.run(key) / "job.json"
    return Job.model_validate_json(path.read_bytes()).attempt if path.is_file() else 0


def differing(
    state: State, run: Run, outcome: Outcome, needed: Collection[Digest]
) -> dict[str, tuple[Digest, Digest]]:
    """Role -> (recorded, made) where a repeated run did not make what was recorded.

    A report tells how long its run took, so one that measured the same counts as the same, unless
    its very bytes are `needed`. Raises PhaseError when the run makes things of other roles.
    """
    made = {product.role: product for product in outcome.products}
    if made.keys() != run.outputs.keys():
        raise PhaseError(
            f"Run {run.key[:SHORT]} made {sorted(run.outputs)} when it was recorded, and "
            f"{sorted(made)} now.",
            remedy="Its phase was changed since; install the version that made it.",
            code="rewind.other_roles",
        )
    return {
        role: (digest, made[role].digest)
        for role, digest in run.outputs.items()
        if digest != made[role].digest
        and (digest in needed or not _says_the_same(state, digest, made[role]))
    }


def _says_the_same(state: State, recorded: Digest, made: Product) -> bool:
    return made.kind is Kind.REPORT and any(
        published.kind is Kind.REPORT and published.fact.facts == made.facts
        for published in state.artifacts[recorded]
    )
