"""Rewinding: an artifact whose bytes were given up is made again, and proved to be the same.

The recorded runs that lead to it are repeated, upstream first, each exactly as it was recorded. The
products of each are compared with what the ledger says. Equal products are recorded as restored.
Another one is recorded as `run.differed`, and its step is named: it is not deterministic here.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from stillhouse.registry.keeping.recovery import (
    Step,
    ToolChange,
    inputs,
    runs_to,
    steps_of,
    tool_changes,
)
from stillhouse.registry.state.references import resolve_reference
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import ArtifactRestored, Payload, RunDiffered

if TYPE_CHECKING:
    from stillhouse.phases.workers.job import Outcome
    from stillhouse.registry.state.runs import Run
    from stillhouse.session import Session

_POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A product that is not what was recorded."""

    role: str
    recorded: Digest
    made: Digest


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """What repeating one run came to."""

    run: Digest
    slot: str
    seconds: float
    """What it took now."""
    restored: tuple[Digest, ...]
    differed: tuple[Difference, ...]


@dataclass(frozen=True, kw_only=True)
class Rewind:
    """What making an artifact again came to, or takes."""

    digest: Digest
    present: bool
    """Whether its bytes are here now, as the ledger tells it."""
    steps: tuple[Step, ...] | tuple[Repeated, ...] = ()
    """What is to be repeated, or was; nothing where the bytes had never gone."""
    tools: tuple[ToolChange, ...] = ()
    until: str | None = None
    """When what is present may be swept, if it is condemned (RFC 3339 UTC)."""

    @property
    def differed(self) -> bool:
        """Whether a step did not make what was recorded."""
        return any(isinstance(step, Repeated) and step.differed for step in self.steps)


class Watcher:
    """Follows runs as they are repeated; this one pays no attention."""

    def changed(self, tools: Sequence[ToolChange]) -> None:
        """Before anything starts: these tools are not what the runs were recorded with."""

    def progress(self, slot: str, note: Mapping[str, Any]) -> None:
        """The latest note of the worker that repeats a slot's run."""

    def repeated(self, step: Repeated) -> None:
        """One run was repeated, and what came of it is recorded."""


def rewind(
    session: Session, reference: str, *, dry_run: bool = False, watcher: Watcher | None = None
) -> Rewind:
    """Make an artifact again by repeating its runs; `dry_run`: say what that takes, do nothing.

    Raises InputError when it can not be made again, PhaseError when a run fails now. What was
    interrupted goes on when it is asked for again.
    """
    watcher = watcher or Watcher()
    state = session.state()
    digest = resolve_reference(state, reference)
    if digest not in state.absent:
        return Rewind(digest=digest, present=True, until=state.condemned.get(digest))
    runs = runs_to(state, digest, state.absent)
    tools = tools_changed_since(runs)
    if dry_run:
        return Rewind(digest=digest, present=False, steps=steps_of(runs), tools=tools)
    watcher.changed(tools)
    done: list[Repeated] = []
    with session.store.lease():
        for step in remake(session, runs, missing=state.absent, target=digest, watcher=watcher):
            done.append(step)
            watcher.repeated(step)
    present = any(digest in step.restored for step in done)
    return Rewind(digest=digest, present=present, steps=tuple(done), tools=tools)


def tools_changed_since(runs: Sequence[Run]) -> tuple[ToolChange, ...]:
    """What of the tools and phases here is not as it was when these runs were recorded."""
    from stillhouse.phases.catalog import CATALOG
    from stillhouse.phases.environment import probe

    return tool_changes(runs, probe().versions, {spec.name: spec.version for spec in CATALOG})


def remake(
    session: Session,
    runs: Sequence[Run],
    *,
    missing: Collection[Digest],
    target: Digest,
    watcher: Watcher,
) -> Iterator[Repeated]:
    """Repeat runs one after the other and record what each came to; the caller holds a lease.

    Stops after a step that made something else in place of what is needed. Raises PhaseError.
    """
    from stillhouse.phases.reactor.repeat import job_of, repeat, sealed_rows
    from stillhouse.phases.workers.launch import Launcher

    launcher = Launcher(session.home, secrets=session.config.secrets)
    wanted = {target, *(digest for run in runs for digest in inputs(run))}
    try:
        for run in runs:
            begun = time.monotonic()
            job = job_of(session.state(), run, sealed_rows(session.home.log, run))
            outcome = repeat(
                session.home,
                launcher,
                job,
                tell=partial(watcher.progress, job.slot),
                wait=partial(time.sleep, _POLL_SECONDS),
            )
            seconds = round(time.monotonic() - begun, 3)
            step = _recorded(session, run, outcome, missing, wanted, seconds=seconds)
            launcher.clear(job.run)
            yield step
            if wanted.intersection(difference.recorded for difference in step.differed):
                return
    finally:
        launcher.stop_all()  # after Ctrl-C; else none is at work


def _recorded(
    session: Session,
    run: Run,
    outcome: Outcome,
    missing: Collection[Digest],
    wanted: Collection[Digest],
    *,
    seconds: float,
) -> Repeated:
    from stillhouse.phases.reactor.repeat import differing

    differed = tuple(
        Difference(role=role, recorded=recorded, made=made)
        for role, (recorded, made) in differing(session.state(), run, outcome, wanted).items()
    )
    made = {product.digest for product in outcome.products}
    restored = tuple(sorted(made.intersection(run.outputs.values(), missing)))
    facts: list[Payload] = [
        ArtifactRestored(digest=digest, how="run", seconds=seconds) for digest in restored
    ]
    facts += [
        RunDiffered(run=run.key, role=d.role, expected=d.recorded, made=d.made) for d in differed
    ]
    if facts:
        session.ledger.append(facts)
    return Repeated(
        run=run.key,
        slot=run.started.slot,
        seconds=seconds,
        restored=restored,
        differed=differed,
    )
