"""The decision: what to do next, from the folded state alone.

Pure and idempotent: once its answers are in the ledger it answers nothing. Actions, in the order in
which they should be taken: judge (verdicts over recorded evidence), reuse (a slot is filled by an
earlier run), seal (a release was made), start (work for a worker).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from registry.assess import assess
from registry.fold import State
from registry.plans import ENVIRONMENT, PlanView, Site, SlotView, Status
from schemas.digest import Digest
from schemas.events import GateEvaluated, Payload, ReleaseCut, RunReused
from schemas.plan import PhaseSpec
from schemas.policy import Policy, applies, judge, phase_of
from schemas.report import Metric


@dataclass(frozen=True, kw_only=True)
class Record:
    """Append these facts."""

    payloads: tuple[Payload, ...]


@dataclass(frozen=True, kw_only=True)
class Start:
    """Start this slot's run."""

    plan: Digest
    view: SlotView


Action = Record | Start


def decide(
    state: State, plans: Iterable[Digest], catalog: Sequence[PhaseSpec], site: Site, now: str
) -> tuple[Action, ...]:
    """What to do next for these plans. Facts first; starts only once no fact is left to record."""
    facts: dict[str, Payload] = {}
    starts: dict[Digest, Start] = {}
    for plan in plans:
        view = assess(state, plan, catalog, site, now)
        for payload in _facts(state, view, site):
            facts[payload.model_dump_json()] = payload
        for slot in view.slots:
            if slot.status is Status.READY and slot.key is not None:
                starts.setdefault(slot.key, Start(plan=plan, view=slot))
    if facts:
        return (Record(payloads=tuple(facts.values())),)
    return tuple(starts.values())


def _facts(state: State, view: PlanView, site: Site) -> Iterable[Payload]:
    policy = state.policy(view.recipe.policy)
    yield from _judge_environments(state, view, policy, site)
    for slot in view.slots:
        if slot.status is not Status.FILLED or slot.run is None:
            continue
        yield from _judge(state, policy, view.recipe.policy, slot)
        if state.filled.get((view.plan, slot.slot.id)) != slot.run.key:
            yield RunReused(
                run=slot.run.key, phase=slot.spec.name, plan=view.plan, slot=slot.slot.id
            )
        elif slot.spec.seals:
            yield from _seal(state, view, slot)


def _judge(
    state: State, policy: Policy, policy_digest: Digest, slot: SlotView
) -> Iterable[Payload]:
    report = slot.outputs.get("report")
    published = state.from_run(report) if report else None
    if report is None or published is None:
        return
    facts = published.fact.facts
    metrics = tuple(Metric.model_validate(m) for m in facts["metrics"])
    for gate, rule in policy.gates.items():
        key = (gate, facts["subject"], report, policy_digest)
        if applies(gate, rule, slot.slot.id) and key not in state.verdicts:
            verdict, checks = judge(rule, metrics)
            yield GateEvaluated(
                gate=gate,
                subject=facts["subject"],
                evidence=report,
                policy=policy_digest,
                verdict=verdict,
                checks=checks,
            )


def _judge_environments(
    state: State, view: PlanView, policy: Policy, site: Site
) -> Iterable[Payload]:
    used = {v.run.environment for v in view.slots if v.run} | {site.environment}
    for digest in sorted(d for d in used if d):
        published = state.from_run(digest)
        if published is None:
            continue
        metrics = tuple(Metric.model_validate(m) for m in published.fact.facts["metrics"])
        for gate, rule in policy.gates.items():
            key = (gate, digest, digest, view.recipe.policy)
            if phase_of(gate) == ENVIRONMENT and key not in state.verdicts:
                verdict, checks = judge(rule, metrics)
                yield GateEvaluated(
                    gate=gate,
                    subject=digest,
                    evidence=digest,
                    policy=view.recipe.policy,
                    verdict=verdict,
                    checks=checks,
                )


def _seal(state: State, view: PlanView, slot: SlotView) -> Iterable[Payload]:
    release = slot.outputs["release"]
    if (release, view.plan) in state.releases:
        return
    published = state.published(release)
    assert published is not None  # noqa: S101  # the run that fills the slot published it
    yield ReleaseCut(
        release=release,
        plan=view.plan,
        tier=view.recipe.tier,
        depends_on=published.fact.facts["depends_on"],
    )
