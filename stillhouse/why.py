"""Why something stands as it stands: slots and gates of a plan, runs, artifacts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from stillhouse.outlook import Outlook
from stillhouse.registry.compare.reasons import (
    RecordedRun,
    SlotCause,
    SlotReason,
    cause_of_slot,
    reason_of_slot,
    recorded_run,
)
from stillhouse.registry.keeping.presence import Presence, presence
from stillhouse.registry.planning.explanation import RELEASE, ExplainedGate, Explainer, Needs
from stillhouse.registry.planning.views import PlanView, Status
from stillhouse.registry.state.references import latest_plan, resolve_reference, resolve_run
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError, ReferenceError_

if TYPE_CHECKING:
    from stillhouse.session import Session


@dataclass(frozen=True, kw_only=True)
class Explanations:
    """Slots or gates in the order of the plan, and why each stands as it stands."""

    rows: tuple[SlotReason | SlotCause | ExplainedGate, ...]

    def to_json(self) -> tuple[SlotReason | SlotCause | ExplainedGate, ...]:
        """Only the rows."""
        return self.rows


@dataclass(frozen=True, kw_only=True)
class MadeArtifact(RecordedRun):
    """An artifact that a run made: why that ran, and why the bytes are here, or not."""

    digest: Digest
    retention: Presence


@dataclass(frozen=True, kw_only=True)
class GivenArtifact:
    """An artifact that no run made, and why its bytes are here, or not."""

    digest: Digest
    retention: Presence
    origin: str
    """`imported` or `probe`."""


def why(
    session: Session, target: str, *, plan: str | None = None
) -> Explanations | RecordedRun | GivenArtifact:
    """The first reason for which something stands as it stands.

    target: a phase, a slot or a gate of the plan, a run, or an artifact. plan: a reference, by
    default the latest. Raises InputError `why.unknown`.
    """
    outlook = Outlook(session)
    state, view = outlook.state, _view(outlook, plan)
    if view is not None:
        explainer = _explainer(outlook, view)
        if slots := explainer.slots(target):
            return Explanations(rows=tuple(reason_of_slot(explainer, slot) for slot in slots))
        if gates := explainer.gates(target):
            return Explanations(rows=gates)
    if (key := resolve_run(state, target)) is not None:
        return recorded_run(state, state.runs[key])
    return _artifact(session, outlook, _resolved(outlook, target, view))


def why_not(session: Session, target: str, *, plan: str | None = None) -> Explanations | Needs:
    """What has to change first so that something runs or passes.

    target: a phase, slot or gate of the plan, `release`, or a tier or capability of its policy.
    plan: a reference, by default the latest. Raises InputError `why.unknown`, `why.no_release`, and
    `plan.none` when there is no plan.
    """
    outlook = Outlook(session)
    view = _view(outlook, plan) or outlook.view(latest_plan(outlook.state))
    explainer = _explainer(outlook, view)
    if slots := explainer.slots(target):
        filled = any(slot.status is Status.FILLED for slot in slots)
        fresh = outlook.view(view.plan, fresh=True) if filled else view
        return Explanations(rows=tuple(cause_of_slot(explainer, slot, fresh) for slot in slots))
    if gates := explainer.gates(target):
        return Explanations(rows=gates)
    if needs := explainer.needs(target):
        return needs
    raise _unknown(explainer, target)


def _view(outlook: Outlook, plan: str | None) -> PlanView | None:
    """The plan that is meant; None when there is none at all."""
    if plan is not None:
        return outlook.view(resolve_reference(outlook.state, plan, kind=Kind.RECIPE))
    return outlook.view(latest_plan(outlook.state)) if outlook.state.requested else None


def _explainer(outlook: Outlook, view: PlanView) -> Explainer:
    return Explainer(state=outlook.state, view=view, find=partial(outlook.cause, view))


def _artifact(session: Session, outlook: Outlook, digest: Digest) -> MadeArtifact | GivenArtifact:
    state = outlook.state
    retention = presence(state, digest, outlook.now, session.config.grace)
    made = state.from_run(digest)
    if made is None or made.run is None:
        origin = state.artifacts[digest][0].origin
        return GivenArtifact(digest=digest, retention=retention, origin=origin)
    run = recorded_run(state, state.runs[made.run])
    return MadeArtifact(**vars(run), digest=digest, retention=retention)


def _resolved(outlook: Outlook, target: str, view: PlanView | None) -> Digest:
    try:
        return resolve_reference(outlook.state, target)
    except ReferenceError_ as error:
        if error.code in ("ref.ambiguous", "ref.too_short"):
            raise
        if view is None:
            raise InputError(
                f"{target!r} is no run and no artifact, and no plan has been asked for yet.",
                remedy="Ask for one with `still run RECIPE`.",
                code="why.unknown",
            ) from error
        known = ", ".join(slot.slot.id for slot in view.slots)
        gates = ", ".join(sorted({gate.gate for gate in view.gates}))
        raise InputError(
            f"{target!r} is no phase, slot or gate of this plan, no run and no artifact.",
            remedy=f"Slots are: {known}. Gates are: {gates}.",
            code="why.unknown",
        ) from error


def _unknown(explainer: Explainer, target: str) -> InputError:
    if target == RELEASE:
        return InputError(
            "This plan asks for no release: its recipe has no [deployment].",
            remedy="Add the section, then `still run` the recipe.",
            code="why.no_release",
        )
    policy = explainer.policy
    slots = ", ".join(slot.slot.id for slot in explainer.view.slots)
    claims = ", ".join([*policy.tiers, *policy.capabilities])
    return InputError(
        f"{target!r} is no phase, slot, gate, tier or capability of this plan.",
        remedy=f"Slots are: {slots}. Gates are: {', '.join(policy.gates)}. "
        f"Tiers and capabilities are: {claims}.",
        code="why.unknown",
    )
