"""What can be done about each reason for which a slot has not run. Pure."""

from __future__ import annotations

from stillhouse.registry.planning.views import Reason, SlotView
from stillhouse.schemas.digest import SHORT, Digest

REMEDIES = {
    "succeeded": "",
    "reused": "",
    "runs": "Follow it with `still logs {run} --follow`.",
    "new": "It starts by itself at the next look.",
    "retry": "It starts by itself at the next look.",
    "input_pending": "See `still why-not {slot}`.",
    "input_failed": "See `still why-not {slot}`.",
    "input_skipped": "See `still why-not {slot}`.",
    "input_absent": "Have it made again with `still rewind {absent}`; what came from outside comes "
    "back with `still repair {absent} --from PATH`.",
    "gate_pending": "It is judged by itself at the next look.",
    "gate_closed": "Improve what it measures, change the policy, or take responsibility: {waive}.",
    "run_failed": "Read `still logs {run}`, mend the cause, then {again}.",
    "run_died": "Read `still logs {run}`, mend the cause, then {again}.",
    "run_cancelled": "Ask for it anew: {again}.",
    "backing_off": "Wait, or have it tried at once: `still retry {run}`.",
    "others_unsettled": "See `still why-not {slot}`.",
    "not_asked_for": "Ask for it: `still run {plan}`.",
    "workers_busy": "Wait until a run ends, or raise `workers` in config.toml.",
    "phase_busy": "Wait until one of them ends, or raise `workers` of [phases.{phase}] in "
    "config.toml.",
    "memory_taken": "Wait until a run ends, or raise `memory` in config.toml.",
    "not_advanced": "Advance it: `still run {plan}`, or everything: `still watch`.",
}
"""Code of a reason -> what to do; every reason has one, and an empty one needs nothing."""


def remedy_for(reason: Reason, slot: SlotView, *, plan: Digest, wanted: bool) -> str:
    """What to do next about a reason that holds this slot; empty when there is nothing to do.

    wanted: whether the plan is asked for; runs of one that is not are not taken up by a retry.
    """
    run = slot.key[:SHORT] if slot.key else ""
    again = f"`still retry {run}`" if wanted else f"`still run {plan[:SHORT]}`"
    return REMEDIES[reason.code].format(
        run=run,
        slot=slot.source or slot.slot.id,
        plan=plan[:SHORT],
        phase=slot.spec.name,
        absent=slot.detail.rpartition(" ")[2],
        again=again,
        waive=_waive(slot),
    )


def _waive(slot: SlotView) -> str:
    gate = slot.gate
    subject = gate.subject[:SHORT] if gate and gate.subject else "REF"
    name = gate.gate if gate else "GATE"
    return f"`still waive {name} {subject} --reason … --until DATE`"
