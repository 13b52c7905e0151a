"""The rows of a manifest: all that stands behind a release, nothing else, and what they rest on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stillhouse.registry.ledger.ledger import Ledger, LedgerReader, hash_at
from stillhouse.registry.planning.provenance import Provenance
from stillhouse.registry.planning.sealing import release_rows
from stillhouse.registry.state.state import State
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import Kind, Origin, Parent
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import (
    ArtifactPublished,
    GateEvaluated,
    GateWaived,
    Payload,
    RunAbandoned,
    RunFailed,
    RunStarted,
    RunSucceeded,
    TagMoved,
)
from stillhouse.schemas.plan import Need, PhaseSpec, Slot
from stillhouse.schemas.policy import CheckResult, Tier, Verdict
from stillhouse.schemas.recipe import Recipe
from stillhouse.schemas.rows import ReleaseRows

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
PLAN, POLICY, ENVIRONMENT = "11" * 32, "22" * 32, "33" * 32
DATASET, CHECKPOINT, REPORT, OTHER = "44" * 32, "55" * 32, "66" * 32, "77" * 32
TRAINING = "aa" * 32


def _training(_recipe: Recipe) -> tuple[Slot, ...]:
    return (Slot(id="training", params={}, needs=(Need(role="dataset", digest=DATASET),)),)


def _deployment(_recipe: Recipe) -> tuple[Slot, ...]:
    need = Need(role="checkpoint", slot="training", output="checkpoint")
    return (Slot(id="deployment", params={}, needs=(need,)),)


CATALOG = (
    PhaseSpec(name="training", version=3, slots=_training, makes=(), tools=()),
    PhaseSpec(name="deployment", version=1, slots=_deployment, makes=(), tools=(), seals=True),
)
INPUTS = (
    Parent(role="dataset", digest=DATASET),
    Parent(role="recipe", digest=PLAN, circumstance=True),
    Parent(role="environment", digest=ENVIRONMENT, circumstance=True),
)


def published(
    digest: str,
    kind: Kind,
    *parents: Parent,
    origin: Origin = "imported",
    run: str | None = None,
    facts: Mapping[str, object] | None = None,
) -> ArtifactPublished:
    return ArtifactPublished(
        digest=digest,
        kind=kind,
        form="blob",
        size=7,
        origin=origin,
        run=run,
        role=str(kind) if run else None,
        name=f"the {kind}",
        parents=parents,
        facts=dict(facts or {}),
    )


def started(attempt: int, *, slot: str = "training", run: str = TRAINING) -> RunStarted:
    return RunStarted(
        run=run,
        phase="training",
        phase_version=3,
        plan=PLAN,
        slot=slot,
        attempt=attempt,
        inputs=INPUTS,
        params={"steps": attempt},
        tools={"torch": "2.13.0"},
    )


def failed(slot: str, message: str, *, plan: str = PLAN, run: str = TRAINING) -> RunFailed:
    return RunFailed(
        run=run,
        phase="export",
        plan=plan,
        slot=slot,
        attempt=1,
        code="a.b",
        message=message,
        remedy="Mend it.",
        seconds=1,
    )


def story() -> list[list[Payload]]:
    """A plan whose training failed once and then succeeded, and what has nothing to do with it."""
    recipe = {"recipe": {"name": "demo", "policy": POLICY}}
    policy = {"policy": {"name": "p", "gates": {}, "tiers": {Tier.TIER_2.value: []}}}
    ended = {"run": TRAINING, "phase": "training", "plan": PLAN, "slot": "training"}
    return [
        [published(PLAN, Kind.RECIPE, facts=recipe), published(POLICY, Kind.POLICY, facts=policy)],
        [published(ENVIRONMENT, Kind.ENVIRONMENT, origin="probe", facts={"python": "3.11"})],
        [published(DATASET, Kind.DATASET), published(OTHER, Kind.DATASET)],
        [started(1)],
        [failed("training", "died once")],
        [started(2)],
        [
            published(CHECKPOINT, Kind.CHECKPOINT, *INPUTS, origin="run", run=TRAINING),
            published(REPORT, Kind.REPORT, *INPUTS, origin="run", run=TRAINING),
            RunSucceeded(
                **ended,
                attempt=2,
                outputs=(
                    Parent(role="checkpoint", digest=CHECKPOINT),
                    Parent(role="report", digest=REPORT),
                ),
                seconds=2.5,
            ),
        ],
    ]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "events.log", lambda: NOON, Actor(user="ada", host="h"))
    for batch in story():
        ledger.append(batch)
    return ledger


def ask(ledger: Ledger, *verdicts: Mapping[str, Any], checkpoint: str = CHECKPOINT) -> ReleaseRows:
    state = State().follow(LedgerReader(ledger.path))
    return release_rows(
        state,
        Provenance(state, CATALOG),
        plan=PLAN,
        slot="deployment",
        inputs=(Parent(role="checkpoint", digest=checkpoint),),
        verdicts=verdicts,
        hash_of=partial(hash_at, ledger.path),
    )


def test_artifacts_are_what_is_released_and_all_that_shaped_it(ledger: Ledger) -> None:
    found = ask(ledger)
    assert [(a.digest, a.origin, a.role) for a in found.artifacts] == [
        (PLAN, "imported", None),
        (POLICY, "imported", None),
        (ENVIRONMENT, "probe", None),
        (DATASET, "imported", None),
        (CHECKPOINT, "run", "checkpoint"),
    ]
    assert found.artifacts[2].facts == {"python": "3.11"}
    assert found.recipe == {"name": "demo", "policy": POLICY}
    assert found.policy.tiers == {Tier.TIER_2: ()}
    assert found.rule == 2


def test_the_evidence_of_a_verdict_is_told_with_what_shaped_it(ledger: Ledger) -> None:
    row = {"slot": "training", "evidence": REPORT, "seq": None}
    assert REPORT in {a.digest for a in ask(ledger, row).artifacts}
    probed = {"slot": "environment", "evidence": ENVIRONMENT, "seq": None}
    assert ask(ledger, probed) == ask(ledger)


def test_a_run_is_told_as_the_attempt_that_succeeded(ledger: Ledger) -> None:
    (run,) = ask(ledger).runs
    assert run.params == {"steps": 2}
    assert (run.attempt, run.reused) == (2, False)
    assert run.inputs == {"dataset": [DATASET]}
    assert run.outputs == {"checkpoint": CHECKPOINT, "report": REPORT}
    assert (run.environment, run.tools, run.phase_version) == (ENVIRONMENT, {"torch": "2.13.0"}, 3)


def test_what_a_run_made_is_not_made_less_by_importing_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "events.log", lambda: NOON, Actor(user="ada", host="h"))
    imports: list[Payload] = [
        published(CHECKPOINT, Kind.CHECKPOINT),
        published(DATASET, Kind.DATASET),
    ]
    for batch in (imports, *story(), imports):
        ledger.append(batch)
    origins = {a.digest: (a.origin, a.seq) for a in ask(ledger).artifacts}
    assert origins[CHECKPOINT] == ("run", 11)
    assert origins[DATASET] == ("imported", 2)


def test_failures_are_of_slots_that_nothing_fills_now(ledger: Ledger) -> None:
    assert ask(ledger).failures == {}
    for slot, plan, message in (
        ("export/prefill-64", PLAN, "first"),
        ("export/prefill-64", PLAN, "second"),
        ("export/prefill-64", OTHER, "of another plan"),
    ):
        ledger.append(list(_failure(slot, plan, message)))
    begun, _ = _failure("export/decode-64", PLAN, "")
    died = RunAbandoned(
        run=begun.run,
        phase="export",
        plan=PLAN,
        slot=begun.slot,
        attempt=1,
        reason="killed",
    )
    ledger.append([begun, died])
    assert ask(ledger).failures == {"export/decode-64": "killed", "export/prefill-64": "second"}


def _failure(slot: str, plan: str, message: str) -> tuple[RunStarted, RunFailed]:
    run = hashlib.sha256(f"{slot} {plan} {message}".encode()).hexdigest()
    begun = started(1, slot=slot, run=run).model_copy(update={"plan": plan})
    return begun, failed(slot, message, plan=plan, run=run)


def test_the_head_is_the_last_event_that_anything_rests_on(ledger: Ledger) -> None:
    last = ledger.head()
    rows = ask(ledger)
    assert (rows.head.seq, rows.head.hash) == (last.seq, last.hash)
    ledger.append([TagMoved(name="later", digest=OTHER), published(OTHER, Kind.DATASET)])
    assert ask(ledger) == rows
    assert ask(ledger, {"slot": "training", "seq": last.seq + 1}).head.seq == last.seq + 1


def test_what_was_never_published_is_refused(ledger: Ledger) -> None:
    with pytest.raises(IntegrityError, match="ffffffffffff") as caught:
        ask(ledger, checkpoint="ff" * 32)
    assert caught.value.code == "manifest.unknown_artifact"


def test_verdicts_and_waivers_are_told_by_their_seq(ledger: Ledger) -> None:
    said = GateEvaluated(
        gate="training.kl",
        subject=CHECKPOINT,
        evidence=REPORT,
        policy=POLICY,
        verdict=Verdict.FAIL,
        checks=(CheckResult(metric="m", op="<=", threshold=1.0, verdict=Verdict.FAIL),),
    )
    waived = GateWaived(
        gate=said.gate, subject=CHECKPOINT, author="ann", reason="known", until="2030-01-01"
    )
    seqs = [event.seq for event in ledger.append([said, waived])]
    row = {"slot": "training", "evidence": REPORT, "seq": seqs[0]}
    found = ask(ledger, row | {"waiver_seq": seqs[1]})
    assert found.verdicts == {seqs[0]: said}
    assert found.waivers == {seqs[1]: waived}
    assert ask(ledger, row | {"lapsed_seqs": [seqs[1]]}).waivers == {seqs[1]: waived}
    assert ask(ledger).verdicts == {}


def test_the_rows_survive_the_job_file(ledger: Ledger) -> None:
    rows = ask(ledger)
    assert ReleaseRows.model_validate(canonical.decode(canonical.encode(rows.to_json()))) == rows
