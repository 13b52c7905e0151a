"""The payloads that record a run: its start, its outcome, and an end without an outcome.

Pure, but for reading what a worker left. The reactor appends what is made here.
"""

from __future__ import annotations

from typing import Any

from stillhouse.phases.workers.job import Failure, Job, JobInput, Outcome
from stillhouse.registry.planning.decide import Start
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import State
from stillhouse.schemas.artifact import Parent, Product
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import (
    ArtifactPublished,
    Payload,
    RunAbandoned,
    RunFailed,
    RunStarted,
    RunSucceeded,
)
from stillhouse.schemas.rows import ReleaseRows


def started(start: Start, environment: Digest) -> RunStarted:
    """A worker is about to execute a slot. The start must have a key."""
    view = start.view
    circumstances = (
        Parent(role="recipe", digest=start.plan, circumstance=True),
        Parent(role="environment", digest=environment, circumstance=True),
    )
    return RunStarted(
        run=view.key or "",
        phase=view.spec.name,
        phase_version=view.spec.version,
        plan=start.plan,
        slot=view.slot.id,
        attempt=view.attempt,
        inputs=(*view.inputs, *circumstances),
        params=dict(view.params),
        tools=dict(view.tools),
    )


def job(state: State, start: Start, rows: ReleaseRows | None) -> Job:
    """What the worker is to do. rows: for a phase that seals a release."""
    view = start.view
    return Job(
        run=view.key or "",
        attempt=view.attempt,
        phase=view.spec.name,
        phase_version=view.spec.version,
        plan=start.plan,
        slot=view.slot.id,
        params=dict(view.params),
        inputs=tuple(job_input(state, parent) for parent in view.inputs),
        rows=rows,
    )


def job_input(state: State, parent: Parent) -> JobInput:
    """One input of a worker. It must have been published."""
    found = state.publication(parent.digest, parent.role)
    assert found is not None  # noqa: S101  # a plan's inputs were published before
    fact = found.fact
    return JobInput(
        role=parent.role, digest=fact.digest, kind=fact.kind, form=fact.form, facts=fact.facts
    )


def ended(state: State, run: Run, outcome: Outcome, log: Digest | None) -> tuple[Payload, ...]:
    """The batch that records an outcome: the artifacts first, then the run.

    An input that is handed on unchanged was not made here: it stays what it was published as.
    """
    if outcome.status == "failed":
        failure = outcome.failure or Failure(code="run.failed", message="?", remedy="")
        return (failed(run, failure, seconds=outcome.seconds, log=log),)
    given = {parent.digest for parent in run.started.inputs}
    made = tuple(
        _published(product, run)
        for product in outcome.products
        if not (product.digest in given and state.published(product.digest, product.kind))
    )
    outputs = tuple(Parent(role=p.role, digest=p.digest) for p in outcome.products)
    success = RunSucceeded(**_common(run), outputs=outputs, seconds=outcome.seconds, log=log)
    return (*made, success)


def failed(run: Run, failure: Failure, *, seconds: float, log: Digest | None) -> RunFailed:
    """A run failed, by its own account or because it took more than it may."""
    return RunFailed(**_common(run), **failure.to_json(), seconds=seconds, log=log)


def abandoned(run: Run, reason: str, *, stopped: bool) -> RunAbandoned:
    """A run's process is gone, and left no outcome."""
    return RunAbandoned(**_common(run), reason=reason, stopped=stopped)


def unrecordable(run: Run, message: str) -> RunFailed:
    """An outcome that no event can hold must not stop every later tick."""
    failure = Failure(
        code="run.unrecordable",
        message=f"What {run.started.slot} made can not be recorded: {message}",
        remedy="Shorten what the phase puts into its facts.",
    )
    return failed(run, failure, seconds=0.0, log=None)


def unstartable(start: RunStarted, message: str) -> tuple[Payload, ...]:
    """A start that no event can hold, and so a run that can not be: without its parameters."""
    failure = Failure(
        code="run.unrecordable",
        message=f"The parameters of {start.slot} can not be recorded: {message}",
        remedy="Ask for less in one recipe: fewer shapes, or shorter texts.",
    )
    return refused(start.model_copy(update={"params": {}}), failure)


def refused(start: RunStarted, failure: Failure) -> tuple[Payload, ...]:
    """A run that failed before any worker was started."""
    about = {name: getattr(start, name) for name in ("run", "phase", "plan", "slot", "attempt")}
    return start, RunFailed(**about, **failure.to_json(), seconds=0.0)


def _common(run: Run) -> dict[str, Any]:
    return {
        "run": run.key,
        "phase": run.started.phase,
        "plan": run.started.plan,
        "slot": run.started.slot,
        "attempt": run.attempts,
    }


def _published(product: Product, run: Run) -> ArtifactPublished:
    return ArtifactPublished(
        digest=product.digest,
        kind=product.kind,
        form=product.form,
        size=product.size,
        origin="run",
        run=run.key,
        role=product.role,
        name=product.name,
        parents=tuple(p for p in run.started.inputs if p.digest != product.digest),
        facts=product.facts,
        files=product.files,
    )
