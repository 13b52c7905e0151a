"""Recovery: which recorded runs would have to be repeated to make an artifact again. Pure.

A run is repeated exactly as it was recorded, so what it read must be there, or be made again first.
What was published by hand has no run, and can only be brought back from a copy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import State
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError


class NotDerivableError(Exception):
    """No chain of recorded runs makes it from what is there."""

    def __init__(self, digest: Digest, reason: str) -> None:
        super().__init__(f"{digest[:SHORT]}: {reason}")
        self.digest = digest
        """What stands in the way; perhaps far upstream."""
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Step:
    """One run that is to be repeated."""

    run: Digest
    slot: str
    seconds: float | None
    """What it took when it was recorded."""


@dataclass(frozen=True, kw_only=True)
class ToolChange:
    """A tool that is not what a run was recorded with."""

    slot: str
    tool: str
    recorded: str
    present: str
    """Empty: it is not installed."""

    @property
    def sentence(self) -> str:
        """The change in words."""
        here = f"here is {self.present}" if self.present else "here is none"
        return (
            f"{self.slot} was made with {self.tool} {self.recorded}, {here}: what it makes may "
            "differ."
        )


def steps_of(runs: Iterable[Run]) -> tuple[Step, ...]:
    """What repeating these runs takes."""
    return tuple(Step(run=r.key, slot=r.started.slot, seconds=r.seconds) for r in runs)


def tool_changes(
    runs: Iterable[Run], tools: Mapping[str, str], phases: Mapping[str, int]
) -> tuple[ToolChange, ...]:
    """Which tools and phases are not as they were when these runs were recorded.

    tools: package -> version that is installed. phases: name -> version that is installed.
    """
    found = []
    for started in (run.started for run in runs):
        now = str(phases.get(started.phase, ""))
        triples = [(t, was, tools.get(t, "")) for t, was in sorted(started.tools.items())]
        triples.append((f"phase {started.phase}, version", str(started.phase_version), now))
        found += [
            ToolChange(slot=started.slot, tool=tool, recorded=was, present=here)
            for tool, was, here in triples
            if was != here
        ]
    return tuple(found)


def runs_to(state: State, digest: Digest, absent: Collection[Digest]) -> tuple[Run, ...]:
    """The runs to repeat, as `chain`. Raises InputError when something can not be made again."""
    try:
        return chain(state, digest, absent)
    except NotDerivableError as error:
        short = error.digest[:SHORT]
        raise InputError(
            f"{digest[:SHORT]} can not be made again: {short} is not here, and {error.reason}.",
            remedy=f"Bring it back from a copy: `still repair {short} --from PATH`.",
            code="rewind.not_derivable",
        ) from error


def chain(state: State, digest: Digest, absent: Collection[Digest]) -> tuple[Run, ...]:
    """The runs that make `digest` again, in the order in which they are to be repeated.

    absent: artifacts whose bytes are not there, also against the ledger. Raises
    NotDerivableError.
    """
    found: dict[Digest, Run] = {}
    _visit(state, digest, {*absent, digest}, (), found)
    return tuple(found.values())


def makers(state: State, digest: Digest) -> Iterator[Run]:
    """The recorded runs that made it."""
    for publication in state.artifacts.get(digest, ()):
        run = state.runs.get(publication.run) if publication.run else None
        if run is not None and run.last == "succeeded" and digest in run.outputs.values():
            yield run


def inputs(run: Run) -> tuple[Digest, ...]:
    """What a run read; its circumstances are not among them."""
    return tuple(parent.digest for parent in run.started.inputs if not parent.circumstance)


def _visit(
    state: State,
    digest: Digest,
    absent: Collection[Digest],
    above: tuple[Digest, ...],
    found: dict[Digest, Run],
) -> None:
    """Add the runs that `digest` needs to `found`, upstream first."""
    if digest not in absent:
        return
    fault = NotDerivableError(digest, "no recorded run made it")
    for run in makers(state, digest):
        if run.key in found:
            return
        trial = dict(found)
        try:
            for needed in inputs(run):
                if needed in (*above, digest):
                    raise NotDerivableError(needed, "the run that made it reads it as well")  # noqa: TRY301  # the next maker may do
                _visit(state, needed, absent, (*above, digest), trial)
        except NotDerivableError as error:
            fault = error
            continue
        found.update(trial)
        found[run.key] = run
        return
    raise fault
