"""The manifest, as a pure function of recorded facts.

Rules: a required gate that is neither passed nor waived refuses the release; a capability needs a
plain pass of every gate it names, on digests of this very release (a waiver or a check that did not
run grants nothing); what is not claimed is said in words; equal facts give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stillhouse.phases.deployment.request import Checkpoint, Graph, Request, VerdictRow
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import PhaseError
from stillhouse.schemas.facts import EnvironmentFacts, ReportFacts, facts_of
from stillhouse.schemas.policy import Verdict, phase_of
from stillhouse.schemas.release import (
    RUNTIME_CONFIG,
    Capability,
    GateRow,
    Manifest,
    ModelEntry,
    ReleasedArtifact,
    ReleasedFile,
    RuntimeConfig,
    ShapeRow,
)
from stillhouse.schemas.rows import ReleaseRows
from stillhouse.schemas.slot import Shape, SlotId
from stillhouse.store.disk.hashing import hash_bytes

TOKENIZER = "tokenizer"


def assemble(
    request: Request,
    graphs: Sequence[Graph],
    checkpoint: Checkpoint,
    files: Sequence[ReleasedFile],
    facts: ReleaseRows,
) -> tuple[Manifest, RuntimeConfig]:
    """The manifest and the runtime config of a release.

    `files` are those of the folder but these two. Raises PhaseError, listing each, when a required
    gate is closed, a required shape is absent, or a contract is about something else.
    """
    request = request.told(facts.verdicts, facts.waivers)
    _refuse(request, graphs, checkpoint, facts)
    config = runtime_config(request, graphs, checkpoint)
    released = {g.shape.id for g in graphs}
    about = [row for row in request.verdicts if _concerns(row, request, released)]
    gates = _gates(request)
    shapes = tuple(_shape(shape, graphs, request, facts) for shape in request.shapes)
    reports = [facts_of(a, ReportFacts) for a in facts.artifacts if a.kind is Kind.REPORT]
    not_run = tuple(sorted({check for report in reports for check in report.not_run}))
    manifest = Manifest(
        rule=facts.rule,
        name=request.name,
        tier=request.tier,
        plan=request.plan,
        policy=request.policy,
        recipe=dict(facts.recipe),
        artifacts=_artifacts(graphs, facts),
        files=_files(files, config),
        capabilities=capabilities(about, facts),
        gates=gates,
        not_run=not_run,
        shapes=shapes,
        provenance=tuple(sorted(facts.runs, key=lambda run: (run.seq, run.run))),
        toolchain=_toolchain(facts),
        environment=_environments(facts),
        depends_on=facts.head,
        limits=(*_limits(request, gates, shapes, not_run, facts), *_unmeasured(about, facts)),
    )
    return manifest, config


def runtime_config(
    request: Request, graphs: Sequence[Graph], checkpoint: Checkpoint
) -> RuntimeConfig:
    """What a runtime needs to load and drive the packages."""
    budget = request.deployment
    return RuntimeConfig(
        name=request.name,
        models=tuple(
            ModelEntry(
                path=package_path(g.shape),
                mode=g.shape.mode,
                length=g.shape.length,
                contract=contract_path(g.shape),
                primary=g.shape.primary,
            )
            for g in _ordered(graphs)
        ),
        tokenizer=TOKENIZER if checkpoint.has_tokenizer else None,
        eos_token_ids=checkpoint.eos_token_ids,
        vocab_size=checkpoint.vocab_size,
        max_new_tokens=budget.max_new_tokens,
        temperature=budget.temperature,
        max_refinement_loops=budget.max_refinement_loops,
        max_latent_spans=budget.max_latent_spans,
        caws_tier=request.tier,
    )


def capabilities(verdicts: Sequence[VerdictRow], facts: ReleaseRows) -> tuple[Capability, ...]:
    """What the release may claim: every gate of the claim passed on each of its subjects.

    `verdicts` are all rows about what is released; one without a subject (its slot's run failed)
    denies the claim. A pass counts when its subject belongs to the release's own lineage and its
    evidence comes from a recorded run.
    """
    known = {a.digest for a in facts.artifacts}
    recorded = _recorded(facts)
    found = []
    for name, wanted in sorted(facts.policy.capabilities.items()):
        rows = [v for v in verdicts if v.gate in wanted]
        passed = all(
            v.verdict is Verdict.PASS and v.subject in known and v.evidence in recorded
            for v in rows
        )
        if wanted and passed and {v.gate for v in rows} == set(wanted):
            subjects = tuple(sorted({v.subject for v in rows if v.subject}))
            found.append(Capability(name=name, gates=tuple(sorted(wanted)), subjects=subjects))
    return tuple(found)


def package_path(shape: Shape) -> str:
    """Where a shape's package lies in the release."""
    return f"models/{shape.id}.mlpackage"


def export_path(shape: Shape) -> str:
    """Where a shape's archive lies in the release."""
    return f"exports/{shape.id}.pt2"


def contract_path(shape: Shape) -> str:
    """Where a shape's contract lies in the release."""
    return f"contracts/{shape.id}.json"


# --- refusals -------------------------------------------------------------------------------------


def _refuse(
    request: Request, graphs: Sequence[Graph], checkpoint: Checkpoint, facts: ReleaseRows
) -> None:
    released = {g.shape.id for g in graphs}
    faults = [*_absent(request, released), *_mismatched(graphs, checkpoint)]
    faults += _closed(request, released, facts)
    if faults:
        raise PhaseError(
            f"There is no release: {'; '.join(faults)}.",
            remedy="Mend what a gate says, or waive it with `still waive`, then run again.",
            code="deployment.refused",
        )


def _absent(request: Request, released: set[str]) -> Iterable[str]:
    for shape in request.shapes:
        if not shape.optional and shape.id not in released:
            yield f"{shape.id} is required and was not made"


def _mismatched(graphs: Sequence[Graph], checkpoint: Checkpoint) -> Iterable[str]:
    for graph in graphs:
        promises, shape = graph.promises, graph.shape
        if promises.shape_id != shape.id:
            yield f"the contract of {shape.id} is for {promises.shape_id}"
        if promises.export_digest != graph.export:
            yield f"the contract of {shape.id} is for another export"
        if promises.checkpoint != checkpoint.digest:
            yield f"the contract of {shape.id} is for another checkpoint"


def _closed(request: Request, released: set[str], facts: ReleaseRows) -> Iterable[str]:
    """Required gates that do not let this release through."""
    recorded = _recorded(facts)
    for name in facts.policy.tiers.get(request.tier, ()):
        rows = [row for row in request.verdicts if row.gate == name]
        if not rows:
            yield f"{name}: not_run, nothing was judged"
        for row in rows:
            if not _concerns(row, request, released):
                continue
            if not row.open:
                yield f"{name} ({_about(row)}): {row.verdict}"
            elif row.policy != request.policy:
                yield f"{name} ({_about(row)}): judged under another policy"
            elif row.evidence not in recorded:
                yield f"{name} ({_about(row)}): its evidence comes from no recorded run"


def _recorded(facts: ReleaseRows) -> set[Digest]:
    """What a recorded run or probe made: the only evidence that counts."""
    return {a.digest for a in facts.artifacts if a.origin != "imported"}


def _concerns(row: VerdictRow, request: Request, released: set[str]) -> bool:
    """Whether a verdict bears on this release: not one over an optional shape left out."""
    shape = row.shape
    return shape in released or not any(s.id == shape and s.optional for s in request.shapes)


def _about(row: VerdictRow) -> str:
    return f"{row.slot} over {row.subject[:SHORT]}" if row.subject else row.slot


# --- parts of the manifest ------------------------------------------------------------------------


def _ordered(graphs: Sequence[Graph]) -> list[Graph]:
    return sorted(graphs, key=lambda g: (g.shape.mode == "decode", g.shape.length))


def _gates(request: Request) -> tuple[GateRow, ...]:
    """Every verdict with a subject; a slot whose run failed shows in `shapes` or `limits`."""
    rows = [
        GateRow(
            gate=row.gate,
            slot=row.slot,
            subject=row.subject,
            evidence=row.evidence,
            policy=row.policy or request.policy,
            verdict=row.verdict,
            required=row.required,
            checks=row.checks,
            seq=row.seq,
            waiver=row.waiver,
            expired=row.expired,
        )
        for row in request.verdicts
        if row.subject is not None
    ]
    return tuple(sorted(rows, key=lambda r: (r.gate, r.slot, r.subject)))


def _artifacts(graphs: Sequence[Graph], facts: ReleaseRows) -> tuple[ReleasedArtifact, ...]:
    roles = {
        digest: f"{kind}/{g.shape.id}"
        for g in graphs
        for kind, digest in (
            ("mlpackage", g.mlpackage),
            ("export", g.export),
            ("contract", g.contract),
        )
    }
    rows = [
        ReleasedArtifact(
            role=roles.get(a.digest) or a.role or str(a.kind),
            kind=a.kind,
            digest=a.digest,
            size=a.size,
            origin=a.origin,
            name=a.name,
            seq=a.seq,
            released=a.digest in roles,
        )
        for a in facts.artifacts
    ]
    return tuple(sorted(rows, key=lambda r: (r.seq, r.digest)))


def _files(files: Sequence[ReleasedFile], config: RuntimeConfig) -> tuple[ReleasedFile, ...]:
    found = hash_bytes(canonical.encode(config.to_json()), sha256=True)
    assert found.sha256 is not None  # noqa: S101  # it was asked for
    own = ReleasedFile(
        path=RUNTIME_CONFIG, size=found.size, blake3=found.digest, sha256=found.sha256
    )
    return tuple(sorted([*files, own], key=lambda f: f.path.encode()))


def _shape(shape: Shape, graphs: Sequence[Graph], request: Request, facts: ReleaseRows) -> ShapeRow:
    graph = next((g for g in graphs if g.shape == shape), None)
    failed = [
        f"{slot}: {message}"
        for slot, message in sorted(facts.failures.items())
        if SlotId.parse(slot).shape == shape.id
    ]
    closed = [
        f"{row.gate}: {row.verdict}"
        for row in request.verdicts
        if row.shape == shape.id and row.required and not row.open
    ]
    status = "released" if graph else "failed" if failed else "excluded"
    return ShapeRow.model_validate(
        {
            "mode": shape.mode,
            "length": shape.length,
            "primary": shape.primary,
            "status": status,
            "reason": None if graph else "; ".join(failed or closed) or "it was not made",
            "max_abs": graph.promises.shape_validation.max_abs if graph else None,
        }
    )


def _toolchain(facts: ReleaseRows) -> dict[str, str]:
    """Package -> version; when runs used several, all of them."""
    versions: dict[str, set[str]] = {}
    for run in facts.runs:
        for tool, version in run.tools.items():
            versions.setdefault(tool, set()).add(version)
    return {tool: " and ".join(sorted(found)) for tool, found in sorted(versions.items())}


def _environments(facts: ReleaseRows) -> dict[str, object]:
    """Digest -> what was probed, for every environment that the runs were recorded in."""
    used = {run.environment for run in facts.runs}
    probed = (a for a in facts.artifacts if a.digest in used)
    return {a.digest: facts_of(a, EnvironmentFacts).environment for a in probed}


# --- what is not claimed --------------------------------------------------------------------------


def _limits(
    request: Request,
    gates: Sequence[GateRow],
    shapes: Sequence[ShapeRow],
    not_run: Sequence[str],
    facts: ReleaseRows,
) -> Iterable[str]:
    yield "This release is not signed: its bytes can be checked, not who made it."
    for check in not_run:
        yield f"{check} was not run where this release was made, so nothing rests on it."
    yield from dict.fromkeys(
        _shortcoming(gate, request, gates) for gate in gates if gate.verdict is not Verdict.PASS
    )
    for shape in shapes:
        if shape.status != "released":
            yield f"{shape.id} is not released ({shape.status}): {shape.reason}."
    if not any(phase_of(g.gate) == "evaluation" for g in gates):
        yield "No gate judged the quality of the model's answers."
    for a in sorted(facts.artifacts, key=lambda a: (a.seq, a.digest)):
        if a.origin == "imported" and a.kind in ("checkpoint", "dataset", "mlpackage"):
            yield f"The {a.kind} {a.digest[:SHORT]} was published by hand: no run here made it."


def _unmeasured(verdicts: Sequence[VerdictRow], facts: ReleaseRows) -> Iterable[str]:
    """Of what is released, what nothing was measured of: no gate's row can tell it."""
    for row in sorted(verdicts, key=lambda v: (v.gate, v.slot)):
        if row.subject is None:
            why = facts.failures.get(row.slot, "no run reported on it")
            yield f"{row.gate} ({row.slot}) judged nothing: {why.rstrip('.')}."


def _shortcoming(gate: GateRow, request: Request, gates: Sequence[GateRow]) -> str:
    """One sentence for all slots on which a gate said the same."""
    alike = (gate.gate, gate.verdict, gate.waiver, gate.expired)
    slots = [g.slot for g in gates if (g.gate, g.verdict, g.waiver, g.expired) == alike]
    where = f"{gate.gate} ({', '.join(slots)})"
    if gate.waiver is not None:
        waiver = gate.waiver
        return (
            f"{where} did not pass ({gate.verdict}); {waiver.author} waived it until "
            f"{waiver.until}: {waiver.reason}"
        )
    lapsed = "".join(f" {w.author}'s waiver expired on {w.until}." for w in gate.expired)
    if gate.required:
        return f"{where} did not pass ({gate.verdict}), so its shape is left out.{lapsed}"
    return f"{where} did not pass ({gate.verdict}); {request.tier} does not require it.{lapsed}"
