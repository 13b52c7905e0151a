"""Everything that is recorded of one artifact or of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillhouse.registry.keeping.presence import way_back, word_for
from stillhouse.registry.state.references import resolve_reference, resolve_run
from stillhouse.schemas.artifact import Parent
from stillhouse.schemas.digest import Digest

if TYPE_CHECKING:
    from stillhouse.registry.state.runs import Run, RunStatus
    from stillhouse.registry.state.state import Published, State
    from stillhouse.schemas.events import GateEvaluated, RunFailed
    from stillhouse.session import Session


@dataclass(frozen=True, kw_only=True)
class ArtifactDetails:
    """One artifact."""

    digest: Digest
    tags: tuple[str, ...]
    bytes: str
    """`absent` or `condemned`; empty for what is here to stay or not decided on."""
    publications: tuple[Published, ...]
    """Oldest first; at least one."""
    children: tuple[Digest, ...]
    """What it shaped, in the order in which that appeared."""
    gates: tuple[GateEvaluated, ...]
    """Verdicts over it, or on its evidence."""
    absent_since: int | None
    """The event that gave its bytes up, while they are not here …"""
    remedy: str
    """… and then the command that brings them back."""
    swept_after: str | None
    """When condemned bytes go (RFC 3339 UTC)."""


@dataclass(frozen=True, kw_only=True)
class RunDetails:
    """One run, by its latest attempt."""

    run: Digest
    phase: str
    phase_version: int
    plan: Digest
    slot: str
    status: RunStatus
    attempts: int
    started: str
    """RFC 3339 UTC."""
    seconds: float | None
    """None while it goes on, and where it was abandoned."""
    inputs: tuple[Parent, ...]
    """Inputs and circumstances."""
    params: Mapping[str, Any]
    tools: Mapping[str, str]
    outputs: Mapping[str, Digest]
    error: RunFailed | None
    reason: str
    """Why it was abandoned."""
    log: Digest | None
    """None while it goes on, where it was abandoned, and once it was swept."""


def details_of(session: Session, reference: str) -> ArtifactDetails | RunDetails:
    """What a reference names, or the run whose key it begins; an artifact comes first.

    Raises ReferenceError_ when it is neither.
    """
    state = session.state()
    run = resolve_run(state, reference)
    if run is not None and not _names_artifact(state, reference):
        return _of_run(state.runs[run])
    return _of_artifact(state, resolve_reference(state, reference))


def _names_artifact(state: State, reference: str) -> bool:
    return reference in state.tags or any(d.startswith(reference) for d in state.artifacts)


def _of_artifact(state: State, digest: Digest) -> ArtifactDetails:
    absent_since = state.absent.get(digest)
    return ArtifactDetails(
        digest=digest,
        tags=state.tags_of(digest),
        bytes=word_for(state, digest),
        publications=tuple(state.artifacts[digest]),
        children=tuple(_children(state, digest)),
        gates=tuple(judged.fact for judged in state.verdicts_over(digest)),
        absent_since=absent_since,
        remedy="" if absent_since is None else way_back(state, digest),
        swept_after=state.condemned.get(digest),
    )


def _children(state: State, digest: Digest) -> list[Digest]:
    return [
        child
        for child, publications in state.artifacts.items()
        if any(parent.digest == digest for p in publications for parent in p.fact.parents)
    ]


def _of_run(run: Run) -> RunDetails:
    started = run.started
    return RunDetails(
        run=run.key,
        phase=started.phase,
        phase_version=started.phase_version,
        plan=started.plan,
        slot=started.slot,
        status=run.status,
        attempts=run.attempts,
        started=run.ts,
        seconds=run.seconds,
        inputs=started.inputs,
        params=started.params,
        tools=started.tools,
        outputs=run.outputs,
        error=run.error,
        reason=run.reason,
        log=run.log,
    )
