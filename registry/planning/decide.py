"""The decision: what to do next, from the folded state alone.

Pure and idempotent: once its answers are in the ledger it answers nothing. Actions, in the order in
which they should be taken: judge (verdicts over recorded evidence), reuse (a slot is filled by an
earlier run), seal (a release was made), start (work for a worker). `registry/planning/agenda.py`
keeps them up to date event by event; this module says what one assessed plan calls for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stillhouse.registry.planning.assess import Assessment
from stillhouse.registry.planning.views import ENVIRONMENT, SlotView, Status
from stillhouse.registry.state.state import State
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import GateEvaluated, Payload, ReleaseCut, RunReused
from stillhouse.schemas.facts import EnvironmentFacts, ReleaseFacts, ReportFacts
from stillhouse.schemas.policy import Policy, judge, phase_of
from stillhouse.schemas.slot import SlotId


@dataclass(frozen=True, kw_only=True)
class Start:
    """Start this slot's run."""

    plan: Digest
    view: SlotView


def slot_facts(assessment: Assessment, slot: SlotView) -> Iterator[Payload]:
    """What a filled slot calls for: verdicts, that it is filled, that a release was cut."""
    if slot.status is not Status.FILLED or slot.run is None:
        return
    state, plan = assessment.state, assessment.plan
    yield from _judge(state, assessment.policy, assessment.recipe.policy, slot)
    if state.filled.get((plan, slot.slot.id)) != slot.run.key:
        yield RunReused(run=slot.run.key, phase=slot.spec.name, plan=plan, slot=slot.slot.id)
    elif slot.spec.seals:
        yield from _seal(assessment, slot)


def environment_facts(assessment: Assessment) -> Iterator[Payload]:
    """Verdicts over the environments of a plan."""
    state, policy = assessment.state, assessment.policy
    for digest in sorted(assessment.environments()):
        published = state.from_run(digest)
        if published is None:
            continue
        metrics = published.facts(EnvironmentFacts).metrics
        for gate, rule in policy.gates.items():
            key = (gate, digest, digest, assessment.recipe.policy)
            if phase_of(gate) == ENVIRONMENT and key not in state.verdicts:
                verdict, checks = judge(rule, metrics)
                yield GateEvaluated(
                    gate=gate,
                    subject=digest,
                    evidence=digest,
                    policy=assessment.recipe.policy,
                    verdict=verdict,
                    checks=checks,
                )


def _judge(
    state: State, policy: Policy, policy_digest: Digest, slot: SlotView
) -> Iterator[Payload]:
    report = slot.outputs.get("report")
    published = state.from_run(report) if report else None
    if report is None or published is None:
        return
    facts = published.facts(ReportFacts)
    for gate in policy.gates_over(SlotId.parse(slot.slot.id)):
        key = (gate, facts.subject, report, policy_digest)
        if key not in state.verdicts:
            verdict, checks = judge(policy.gates[gate], facts.metrics)
            yield GateEvaluated(
                gate=gate,
                subject=facts.subject,
                evidence=report,
                policy=policy_digest,
                verdict=verdict,
                checks=checks,
            )


def _seal(assessment: Assessment, slot: SlotView) -> Iterator[Payload]:
    release = slot.outputs["release"]
    if (release, assessment.plan) in assessment.state.releases:
        return
    published = assessment.state.published(release)
    assert published is not None  # noqa: S101  # the run that fills the slot published it
    yield ReleaseCut(
        release=release,
        plan=assessment.plan,
        tier=assessment.recipe.tier,
        depends_on=published.facts(ReleaseFacts).depends_on,
    )
