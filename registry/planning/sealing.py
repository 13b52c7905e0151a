"""The rows of a release manifest, from the folded ledger and the provenance of a plan. Pure.

The reactor computes them when the deployment run starts. An audit and a rewind compute them again,
from the state as it was then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stillhouse.registry.planning.provenance import RULE, Link, Provenance, Step
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import Published, State
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.events import RunStarted
from stillhouse.schemas.facts import PolicyFacts, RecipeFacts
from stillhouse.schemas.plan import PhaseSpec
from stillhouse.schemas.release import Head, RunRow
from stillhouse.schemas.rows import ArtifactRow, ReleaseRows


def release_rows(
    state: State,
    provenance: Provenance,
    *,
    plan: Digest,
    slot: str,
    inputs: Sequence[Parent],
    verdicts: Sequence[Mapping[str, Any]],
    hash_of: Callable[[int], str],
) -> ReleaseRows:
    """What stands behind a release that `slot` of a plan is to make of `inputs`.

    verdicts: the rows of gates in the parameters of that run. hash_of: the hash of an event. Raises
    IntegrityError `manifest.unknown_artifact` when something was never published.
    """
    cut = state.seq
    roots = [*provenance.trace(plan, slot, inputs, cut)]
    roots += [_judged(provenance, plan, row, cut) for row in verdicts if row.get("evidence")]
    steps = provenance.behind(link.source for link in roots if link.source)
    recipe = _known(state.published(plan, Kind.RECIPE), plan)
    policy = _known(state.published(state.recipe(plan).policy, Kind.POLICY), plan)
    links = [*roots, *(link for found in steps.values() for link in found)]
    artifacts = _rows([recipe, policy, *(_publication(state, link) for link in links)])
    filled = {(step.plan, step.slot, step.fill.seq): step for step in steps}
    runs = tuple(sorted(map(_run, filled.values()), key=lambda run: (run.seq, run.slot)))
    failures = _failures(state, plan)
    events = _events(verdicts)
    head = max(
        *events,
        *(row.seq for row in artifacts),
        *(step.fill.seq for step in steps),
        *(run.seq for run in failures),
    )
    return ReleaseRows(
        rule=RULE,
        recipe=recipe.facts(RecipeFacts).recipe.as_given(),
        policy=policy.facts(PolicyFacts).policy,
        artifacts=artifacts,
        runs=runs,
        failures={run.started.slot: _why(run) for run in failures},
        verdicts={j.seq: j.fact for j in state.verdicts.values() if j.seq in events},
        waivers={w.seq: w.fact for of in state.waivers.values() for w in of if w.seq in events},
        head=Head(seq=head, hash=hash_of(head)),
    )


def rows_at_start(
    then: State, catalog: Sequence[PhaseSpec], started: RunStarted, hash_of: Callable[[int], str]
) -> ReleaseRows:
    """The rows that a recorded deployment run was given; `then`: the state as it was just before.

    Raises what `release_rows` raises.
    """
    return release_rows(
        then,
        Provenance(then, catalog),
        plan=started.plan,
        slot=started.slot,
        inputs=[parent for parent in started.inputs if not parent.circumstance],
        verdicts=started.params["verdicts"],
        hash_of=hash_of,
    )


def _judged(provenance: Provenance, plan: Digest, row: Mapping[str, Any], cut: int) -> Link:
    """The evidence of a verdict as an input of the release."""
    evidence, slot = row["evidence"], row["slot"]
    source = provenance.step(plan, slot, cut, holding=evidence)
    published = None if source else provenance.outside(evidence, slot, cut)
    return Link(role=slot, digest=evidence, circumstance=False, source=source, published=published)


def _publication(state: State, link: Link) -> Published | None:
    """The publication that is meant; None: its step handed it on, and was given it itself."""
    if link.source is None:
        return _known(link.published, link.digest)
    made = [p for p in state.artifacts.get(link.digest, ()) if p.run == link.source.run]
    handed_on = any(p.digest == link.digest for p in link.source.fill.success.started.inputs)
    return made[0] if made else None if handed_on else _known(None, link.digest)


def _known(published: Published | None, digest: Digest) -> Published:
    if published is None:
        raise IntegrityError(
            f"No event published {digest[:SHORT]}, which the release rests on.",
            remedy="Check the ledger with `still fsck`.",
            code="manifest.unknown_artifact",
        )
    return published


def _rows(found: Iterable[Published | None]) -> tuple[ArtifactRow, ...]:
    """A row a publication, in order of their events."""
    each = {published.seq: published.fact for published in found if published is not None}
    return tuple(
        ArtifactRow(
            digest=fact.digest,
            kind=fact.kind,
            size=fact.size,
            origin=fact.origin,
            role=fact.role,
            name=fact.name,
            seq=seq,
            run=fact.run,
            facts=fact.facts,
        )
        for seq, fact in sorted(each.items())
    )


def _run(step: Step) -> RunRow:
    success = step.fill.success
    started = success.started
    inputs: dict[str, list[Digest]] = {}
    for parent in started.inputs:
        if not parent.circumstance:
            inputs.setdefault(parent.role, []).append(parent.digest)
    environments = [p.digest for p in started.inputs if p.role == Kind.ENVIRONMENT]
    return RunRow(
        run=started.run,
        phase=started.phase,
        phase_version=started.phase_version,
        slot=step.slot,
        plan=step.plan,
        reused=step.fill.reused,
        attempt=started.attempt,
        inputs=inputs,
        outputs=dict(success.outputs),
        params=started.params,
        tools=started.tools,
        environment=environments[0] if environments else None,
        seq=success.seq,
    )


def _failures(state: State, plan: Digest) -> tuple[Run, ...]:
    """Of each slot that nothing fills, the run that ended last without success."""
    latest: dict[str, Run] = {}
    for run in state.runs.values():
        slot = run.started.slot
        empty = run.started.plan == plan and (plan, slot) not in state.filled
        if empty and run.unsuccessful and (slot not in latest or latest[slot].seq < run.seq):
            latest[slot] = run
    return tuple(latest[slot] for slot in sorted(latest))


def _why(run: Run) -> str:
    return run.error.message if run.last == "failed" and run.error else run.reason


def _events(verdicts: Iterable[Mapping[str, Any]]) -> frozenset[int]:
    """The verdicts and waivers that the decision to release read."""
    found = {row.get(name) for row in verdicts for name in ("seq", "waiver_seq")}
    lapsed = {seq for row in verdicts for seq in row.get("lapsed_seqs", ())}
    return frozenset(seq for seq in found | lapsed if seq)
