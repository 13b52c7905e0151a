"""What can be done about each reason for which a slot has not run. Pure."""

from __future__ import annotations

from registry.plans import Reason, SlotView
from schemas.digest import SHORT, Digest

_REMEDIES = {
    Reason.SUCCEEDED: "",
    Reason.REUSED: "",
    Reason.RUNS: "Follow it with `still logs {run} --follow`.",
    Reason.NEW: "It starts by itself at the next look.",
    Reason.RETRY: "It starts by itself at the next look.",
    Reason.INPUT_PENDING: "See `still why-not {slot}`.",
    Reason.INPUT_FAILED: "See `still why-not {slot}`.",
    Reason.INPUT_SKIPPED: "See `still why-not {slot}`.",
    Reason.GATE_PENDING: "It is judged by itself at the next look.",
    Reason.GATE_CLOSED: "Improve what it measures, change the policy, or take responsibility: "
    "{waive}.",
    Reason.RUN_FAILED: "Read `still logs {run}`, mend the cause, then {again}.",
    Reason.RUN_DIED: "Read `still logs {run}`, mend the cause, then {again}.",
    Reason.RUN_CANCELLED: "Ask for it anew: {again}.",
    Reason.BACKING_OFF: "Wait, or have it tried at once: `still retry {run}`.",
    Reason.OTHERS_UNSETTLED: "See `still why-not {slot}`.",
    Reason.NOT_ASKED_FOR: "Ask for it: `still run {plan}`.",
    Reason.WORKERS_BUSY: "Wait until a run ends, or raise `workers` in config.toml.",
    Reason.PHASE_BUSY: "Wait until one of them ends, or raise `workers` of [phases.{phase}] in "
    "config.toml.",
    Reason.MEMORY_TAKEN: "Wait until a run ends, or raise `memory` in config.toml.",
    Reason.NOT_ADVANCED: "Advance it: `still run {plan}`, or everything: `still watch`.",
}


def remedy_for(reason: Reason, slot: SlotView, *, plan: Digest, wanted: bool) -> str:
    """What to do next about a reason that holds this slot; empty when there is nothing to do.

    wanted: whether the plan is asked for; runs of one that is not are not taken up by a retry.
    """
    run = slot.key[:SHORT] if slot.key else ""
    again = f"`still retry {run}`" if wanted else f"`still run {plan[:SHORT]}`"
    return _REMEDIES[reason].format(
        run=run,
        slot=slot.source or slot.slot.id,
        plan=plan[:SHORT],
        phase=slot.spec.name,
        again=again,
        waive=_waive(slot),
    )


def _waive(slot: SlotView) -> str:
    gate = slot.gate
    subject = gate.subject[:SHORT] if gate and gate.subject else "REF"
    name = gate.gate if gate else "GATE"
    return f"`still waive {name} {subject} --reason … --until DATE`"
