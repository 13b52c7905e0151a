"""The verb `rewind`: make an artifact again whose bytes were given up, and prove it is the same.

The recorded runs that lead to it are repeated, upstream first, each exactly as it was recorded, and
what each makes is compared with what the ledger says. Equal products are recorded as restored;
another one is recorded as `run.differed`, and its step is named: it is not deterministic here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.views import render
from stillhouse.registry.keeping.recovery import NotDerivableError, chain, inputs
from stillhouse.registry.state.references import resolve_reference
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.events import ArtifactRestored, Payload, RunDiffered

if TYPE_CHECKING:
    from stillhouse.phases.workers.job import Outcome
    from stillhouse.registry.state.runs import Run
    from stillhouse.registry.state.state import State
    from stillhouse.session import Session

_POLL_SECONDS = 0.05


class ToolChange(NamedTuple):
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


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """What repeating one run came to."""

    run: Run
    seconds: float
    restored: tuple[Digest, ...]
    differed: Mapping[str, tuple[Digest, Digest]]
    """Role -> (recorded, made)."""


def rewind(
    context: typer.Context,
    ref: Ref,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which runs would be repeated; do nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make an artifact again by repeating its runs.

    Ends with 1 if a run makes something else than recorded, and names it. What was interrupted
    goes on when it is asked for again.
    """
    session = session_of(context)
    state = session.state()
    digest = resolve_reference(state, ref)
    if digest not in state.absent:
        _tell_present(state, digest, as_json=as_json)
        return
    steps = steps_to(state, digest, state.absent)
    changes = tool_changes(steps)
    if dry_run:
        _tell_plan(digest, steps, changes, as_json=as_json)
        return
    for change in changes:
        render.note(f"  Note: {change.sentence}")
    done = []
    with session.store.lease():
        for repeated in remake(session, steps, missing=state.absent, target=digest):
            done.append(repeated)
            if not as_json:
                _tell_step(repeated)
    if as_json:
        render.json_document(_as_json(digest, done, changes))
    if any(repeated.differed for repeated in done):
        raise typer.Exit(1)


def steps_to(state: State, digest: Digest, absent: Collection[Digest]) -> tuple[Run, ...]:
    """The runs to repeat. Raises InputError when something can not be made again."""
    try:
        return chain(state, digest, absent)
    except NotDerivableError as error:
        short = error.digest[:SHORT]
        raise InputError(
            f"{digest[:SHORT]} can not be made again: {short} is not here, and {error.reason}.",
            remedy=f"Bring it back from a copy: `still repair {short} --from PATH`.",
            code="rewind.not_derivable",
        ) from error


def remake(
    session: Session, steps: Sequence[Run], *, missing: Collection[Digest], target: Digest
) -> Iterator[Repeated]:
    """Repeat runs one after the other and record what each came to; the caller holds a lease.

    Stops after a step that made something else in place of what is needed. Raises PhaseError.
    """
    from stillhouse.phases.reactor.repeat import job_of, repeat
    from stillhouse.phases.workers.launch import Launcher

    launcher = Launcher(session.home, secrets=session.config.secrets)
    wanted = {target, *(digest for run in steps for digest in inputs(run))}
    try:
        for run in steps:
            begun = time.monotonic()
            job = job_of(session.state(), run)
            outcome = repeat(
                session.home,
                launcher,
                job,
                tell=partial(_tell_progress, job.slot),
                wait=partial(time.sleep, _POLL_SECONDS),
            )
            repeated = _recorded(
                session, run, outcome, missing, wanted, seconds=time.monotonic() - begun
            )
            launcher.clear(job.run)
            yield repeated
            if wanted.intersection(recorded for recorded, _ in repeated.differed.values()):
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

    differed = differing(session.state(), run, outcome, wanted)
    made = {product.digest for product in outcome.products}
    restored = tuple(sorted(made.intersection(run.outputs.values(), missing)))
    facts: list[Payload] = [
        ArtifactRestored(digest=digest, how="run", seconds=round(seconds, 3)) for digest in restored
    ]
    facts += [
        RunDiffered(run=run.key, role=role, expected=recorded, made=made)
        for role, (recorded, made) in differed.items()
    ]
    if facts:
        session.ledger.append(facts)
    return Repeated(run=run, seconds=seconds, restored=restored, differed=differed)


def tool_changes(steps: Sequence[Run]) -> tuple[ToolChange, ...]:
    """What of the tools and phases is not as it was when these runs were recorded."""
    from stillhouse.phases.catalog import CATALOG
    from stillhouse.phases.environment import probe

    versions = probe().versions
    present = {spec.name: spec.version for spec in CATALOG}
    found = []
    for run in steps:
        started = run.started
        pairs = [(t, v, versions.get(t, "")) for t, v in sorted(started.tools.items())]
        now = str(present.get(started.phase, ""))
        pairs.append((f"phase {started.phase}, version", str(started.phase_version), now))
        found += [
            ToolChange(started.slot, tool, was, now) for tool, was, now in pairs if was != now
        ]
    return tuple(found)


# -- telling ------------------------------------------------------------------------------------


def _tell_present(state: State, digest: Digest, *, as_json: bool) -> None:
    if as_json:
        render.json_document({"digest": digest, "present": True, "steps": [], "tools": []})
        return
    until = state.condemned.get(digest)
    render.row(
        "present", render.short(digest), f"swept after {render.moment(until)}" if until else ""
    )
    if until:
        render.note("  Keep it: `still tag NAME REF`, then `still gc`.")
    else:
        render.note(f"  Should it be damaged, `still repair {digest[:SHORT]}`.")


def _tell_plan(
    digest: Digest, steps: Sequence[Run], changes: Sequence[ToolChange], *, as_json: bool
) -> None:
    if as_json:
        render.json_document(_as_json(digest, [], changes) | {"steps": list(map(_step, steps))})
        return
    for run in steps:
        took = f"took {run.seconds:.0f} s" if run.seconds is not None else ""
        render.row("repeat", run.started.slot, f"run {render.short(run.key)}", took)
    for change in changes:
        render.note(f"  Note: {change.sentence}")
    render.note("  Nothing was done.")


def _tell_progress(slot: str, note: Mapping[str, Any]) -> None:
    if sys.stderr.isatty():
        text = f"{slot}: {note.get('label')} {note.get('done')}/{note.get('total')}"
        sys.stderr.write(f"\r\x1b[K{render.clean(text)}\r")
        sys.stderr.flush()


def _tell_step(repeated: Repeated) -> None:
    run = repeated.run
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    render.row(
        "repeated", run.started.slot, f"run {render.short(run.key)}", f"{repeated.seconds:.1f} s"
    )
    for digest in repeated.restored:
        render.row("restored", render.short(digest))
    for role, (recorded, made) in repeated.differed.items():
        render.row("differed", run.started.slot, role, f"recorded {recorded}", f"made {made}")
    if repeated.differed:
        render.note(
            f"  {run.started.slot} is not deterministic here: it made another "
            f"{', '.join(repeated.differed)} than run {run.key[:SHORT]} did."
        )
    render.flush()


def _step(run: Run) -> dict[str, Any]:
    return {"run": run.key, "slot": run.started.slot, "seconds": run.seconds}


def _as_json(
    digest: Digest, done: Sequence[Repeated], changes: Sequence[ToolChange]
) -> dict[str, Any]:
    return {
        "digest": digest,
        "present": any(digest in repeated.restored for repeated in done),
        "steps": [
            _step(repeated.run)
            | {
                "seconds": round(repeated.seconds, 3),
                "restored": list(repeated.restored),
                "differed": [
                    {"role": role, "recorded": recorded, "made": made}
                    for role, (recorded, made) in repeated.differed.items()
                ],
            }
            for repeated in done
        ],
        "tools": [change._asdict() for change in changes],
    }
