"""What is compared: runs and artifacts, and which runs and plans stand behind them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from stillhouse.registry.state.references import resolve_reference, resolve_run
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import State
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One side of a comparison: a run, or an artifact (a recipe stands for its plan)."""

    run: Run | None = None
    digest: Digest = ""
    """Of the artifact; empty for a run."""

    @property
    def name(self) -> Digest:
        """The run key or the digest."""
        return self.run.key if self.run else self.digest


def find_subject(state: State, text: str) -> Subject:
    """What a reference names; a run only if no artifact is named so. Raises ReferenceError_."""
    run = resolve_run(state, text)  # of a text that no tag has: it is hexadecimal
    if run is not None and not any(digest.startswith(text) for digest in state.artifacts):
        return Subject(run=state.runs[run])
    return Subject(digest=resolve_reference(state, text))


def maker_of(state: State, digest: Digest) -> Run | None:
    """The recorded run that made an artifact, if one did."""
    found = state.from_run(digest)
    return state.runs.get(found.run) if found and found.run else None


def slots_of(state: State, plan: Digest) -> dict[str, Run]:
    """Slot -> the run that fills it, for a plan."""
    return {slot: state.runs[key] for (owner, slot), key in state.filled.items() if owner == plan}


def plan_of(state: State, subject: Subject) -> Digest | None:
    """The plan that a recipe is, or that a release was cut for."""
    if state.published(subject.digest, Kind.RECIPE):
        return subject.digest
    return next((plan for release, plan in state.releases if release == subject.digest), None)
