"""The rows that a release manifest is made of: one state of the projection, asked by lineage.

A manifest is a query result. Everything here comes from recorded events, and `head` names the last
event that any of it rests on, so a later event that changes nothing changes no byte of a manifest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stillhouse.registry.projection.projection import Ask, Projection
from stillhouse.schemas.artifact import Kind, Origin
from stillhouse.schemas.canonical import Json
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.event import Event
from stillhouse.schemas.events import GateEvaluated, GateWaived, Payload
from stillhouse.schemas.facts import F, PolicyFacts, RecipeFacts, facts_of
from stillhouse.schemas.policy import Policy
from stillhouse.schemas.release import Head, RunRow
from stillhouse.schemas.upcast import payload_of

PATIENCE = 60.0
"""Seconds to wait for the projection: a shell left open must not fail a run."""


@dataclass(frozen=True, kw_only=True)
class ArtifactRow:
    """One artifact that the release contains or rests on."""

    digest: Digest
    kind: Kind
    size: int
    origin: Origin
    """`run` or `probe` when any recorded run or probe made it, else `imported`."""
    role: str | None
    name: str | None
    seq: int
    """Of its first publication with that origin."""
    run: Digest | None
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReleaseRows:
    """Everything of the ledger that a manifest tells."""

    recipe: Mapping[str, Any]
    """The resolved recipe, as it was recorded."""
    policy: Policy
    artifacts: tuple[ArtifactRow, ...]
    """The roots and all that shaped them, environments included; in order of their events."""
    runs: tuple[RunRow, ...]
    """The runs that made those artifacts; in order of their ends."""
    failures: Mapping[str, str]
    """Slot of the plan that nothing fills -> why its last attempt did not."""
    verdicts: Mapping[int, GateEvaluated]
    """Of the events asked for, those that are verdicts, by seq …"""
    waivers: Mapping[int, GateWaived]
    """… and those that are waivers."""
    head: Head
    """The latest event that any of this rests on."""


def release_rows(
    projection: Projection,
    *,
    plan: Digest,
    policy: Digest,
    roots: Iterable[Digest],
    events: Iterable[int] = (),
) -> ReleaseRows:
    """Ask for what stands behind `roots`.

    plan, policy: artifacts, told besides the roots. events: sequence numbers (of verdicts and
    waivers) that the release rests on as well, and that are told. Raises what `Projection.consult`
    raises, and IntegrityError when one of the artifacts was never published.
    """
    wanted = sorted({*roots, plan, policy})
    numbers = tuple(events)
    return projection.consult(
        lambda ask: _release_rows(ask, plan, policy, wanted, numbers), timeout=PATIENCE
    )


def _release_rows(
    ask: Ask, plan: Digest, policy: Digest, roots: list[Digest], events: tuple[int, ...]
) -> ReleaseRows:
    artifacts = _artifacts(ask, roots)
    runs = _runs(ask, {a.run for a in artifacts if a.run})
    failures = ask("release_failures", {"plan": plan}).dicts()
    gates = _gate_events(ask, events)
    seqs = [*events, *(a.seq for a in artifacts), *(r.seq for r in runs)]
    return ReleaseRows(
        recipe=_facts(artifacts, plan, Kind.RECIPE, RecipeFacts).recipe.as_given(),
        policy=_facts(artifacts, policy, Kind.POLICY, PolicyFacts).policy,
        artifacts=artifacts,
        runs=runs,
        failures={row["slot"]: row["message"] for row in failures},
        verdicts={seq: said for seq, said in gates.items() if isinstance(said, GateEvaluated)},
        waivers={seq: said for seq, said in gates.items() if isinstance(said, GateWaived)},
        head=_head(ask, max(seqs + [row["seq"] for row in failures])),
    )


def _artifacts(ask: Ask, roots: list[Digest]) -> tuple[ArtifactRow, ...]:
    rows = ask("release_artifacts", {"roots": roots}).dicts()
    missing = set(roots) - {row["digest"] for row in rows}
    if missing:
        raise IntegrityError(
            f"No event published {min(missing)[:SHORT]}, which the release rests on.",
            remedy="Check the ledger with `still fsck`.",
            code="manifest.unknown_artifact",
        )
    return tuple(
        ArtifactRow(**{**row, "kind": Kind(row["kind"]), "facts": json.loads(row["facts"] or "{}")})
        for row in rows
    )


def _runs(ask: Ask, keys: set[Digest]) -> tuple[RunRow, ...]:
    rows = ask("release_runs", {"runs": sorted(keys)}).dicts()
    return tuple(
        _run(row["run"], row["seq"], json.loads(row["started"]), json.loads(row["outputs"]))
        for row in rows
    )


def _run(key: Digest, seq: int, started: Json, outputs: list[Json]) -> RunRow:
    inputs: dict[str, list[Digest]] = {}
    for parent in started["inputs"]:
        if not parent.get("circumstance"):
            inputs.setdefault(parent["role"], []).append(parent["digest"])
    environments = [p["digest"] for p in started["inputs"] if p["role"] == Kind.ENVIRONMENT]
    return RunRow(
        run=key,
        phase=started["phase"],
        phase_version=started["phase_version"],
        slot=started["slot"],
        inputs=inputs,
        outputs={output["role"]: output["digest"] for output in outputs},
        params=started["params"],
        tools=started["tools"],
        environment=environments[0] if environments else None,
        seq=seq,
    )


def _gate_events(ask: Ask, seqs: tuple[int, ...]) -> dict[int, Payload | None]:
    rows = ask("gate_events", {"seqs": list(seqs)}).rows
    return {seq: payload_of(Event.model_validate_json(body)) for seq, body in rows}


def _facts(artifacts: tuple[ArtifactRow, ...], digest: Digest, kind: Kind, form: type[F]) -> F:
    for artifact in artifacts:
        if (artifact.digest, artifact.kind) == (digest, kind):
            return facts_of(artifact, form)
    raise IntegrityError(
        f"{digest[:SHORT]} was not published as a {kind}.",
        remedy="Check the ledger with `still fsck`.",
        code="manifest.unknown_artifact",
    )


def _head(ask: Ask, seq: int) -> Head:
    ((digest,),) = ask("event_hash", {"seq": seq}).rows
    return Head(seq=seq, hash=digest)
