"""Verbs by which a person steps in: `waive` a gate, `retry` a failed or cancelled run."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.views import render
from stillhouse.registry.state.references import find_run, resolve_reference
from stillhouse.schemas import moment
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.events import GateWaived, RunRetried

if TYPE_CHECKING:
    from stillhouse.registry.state.runs import Run
    from stillhouse.registry.state.state import State

_LONGEST_REASON = 1000
"""Characters."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def waive(
    context: typer.Context,
    gate: Annotated[str, typer.Argument(metavar="GATE", help="The gate's name.")],
    ref: Ref,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why it may pass all the same.")],
    until: Annotated[
        str,
        typer.Option("--until", metavar="DATE", help="YYYY-MM-DD (to its end, UTC) or RFC 3339."),
    ],
    as_json: Json = False,
) -> None:
    """Waive a gate over REF until a date.

    Your name, the reason and the date are recorded, and shown in every manifest.
    """
    from stillhouse.session import actor, clock

    session = session_of(context)
    state = session.state()
    _require_gate(state, gate)
    _require_reason(reason)
    subject = resolve_reference(state, ref)
    waiver = GateWaived(
        gate=gate, subject=subject, author=actor().user, reason=reason, until=expiry(until, clock())
    )
    if not _was_judged(state, gate, subject):
        render.note(
            f"Note: {gate} was never judged over {subject[:SHORT]}; it is waived in advance."
        )
    session.ledger.append([waiver])
    if as_json:
        render.json_document(waiver.to_json())
    else:
        render.row("waived", gate, render.short(subject), f"until {waiver.until}")
        render.note("  Next: `still run` the recipe again; the waiver is shown in its manifest.")


def expiry(text: str, now: datetime) -> str:
    """When a waiver ends, as events spell time. A date lasts to its end (UTC).

    Raises InputError when `text` is no date or time, or not after `now`.
    """
    try:
        found = datetime.fromisoformat(text)
        if _DATE.fullmatch(text):
            found = datetime.combine(found.date(), time.max, tzinfo=UTC)
        if found.tzinfo is None:
            raise _bad_date(text, "names no time zone")
        found = found.astimezone(UTC)
    except ValueError as error:
        raise _bad_date(text, "is not a date") from error
    except OverflowError as error:
        raise _bad_date(text, "is beyond the year 9999 in UTC") from error
    if found <= now:
        raise _bad_date(text, "is not in the future")
    return moment.spell(found)


def _bad_date(text: str, what: str) -> InputError:
    return InputError(
        f"--until {text!r} {what}.",
        remedy="Give a day to come as YYYY-MM-DD, or a time like 2030-01-31T12:00:00Z.",
        code="waive.bad_date",
    )


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise InputError(
            "A waiver needs a reason.",
            remedy="Say with --reason why the gate may be passed over.",
            code="waive.no_reason",
        )
    if len(reason) > _LONGEST_REASON:
        raise InputError(
            f"The reason has {len(reason)} characters; {_LONGEST_REASON} are the most.",
            remedy="Shorten it: every manifest shows it. The long form may be an artifact.",
            code="waive.long_reason",
        )


def _was_judged(state: State, gate: str, subject: Digest) -> bool:
    judged = (found.fact for found in state.verdicts.values())
    return any(fact.gate == gate and fact.subject == subject for fact in judged)


def _require_gate(state: State, gate: str) -> None:
    known: set[str] = set()
    for publications in state.artifacts.values():
        fact = publications[0].fact
        if fact.kind is Kind.POLICY:
            known |= set(state.policy(fact.digest).gates)
    if gate not in known:
        raise InputError(
            f"No policy here has a gate {gate!r}.",
            remedy=f"Gates are: {', '.join(sorted(known))}."
            if known
            else "Publish a policy first.",
            code="waive.unknown_gate",
        )


def retry(
    context: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN|SLOT]",
            help="A prefix of a run's key, or a slot of the latest plan. "
            "Default: all that failed or were cancelled.",
        ),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Let failed and cancelled runs be tried again.

    By the next `still run`, or at once by a running `still watch`.
    """
    from stillhouse.config import read_config

    session = session_of(context)
    state = session.state()
    attempts = read_config(session.home).attempts
    chosen = (
        [one for one in state.runs.values() if _has_ended_badly(one, attempts)]
        if run is None
        else [_unsuccessful(find_run(state, run))]
    )
    if chosen:
        session.ledger.append([RunRetried(run=one.key) for one in chosen])
    if as_json:
        render.json_document([{"run": one.key, "slot": one.started.slot} for one in chosen])
        return
    for one in chosen:
        render.row("retry", one.started.slot, render.short(one.key))
    render.note(
        _next(state, chosen)
        if chosen
        else "No run has failed or was cancelled; there is nothing to retry."
    )


def _has_ended_badly(run: Run, attempts: int) -> bool:
    """Whether a run has ended without success and will not be tried again by itself."""
    unsuccessful = run.unsuccessful
    return unsuccessful and not (run.goes_on_by_itself and run.failures < attempts)


def _unsuccessful(run: Run) -> Run:
    """The run, of which something can be tried again, if only earlier than by itself."""
    if run.unsuccessful:
        return run
    raise InputError(
        f"There is nothing to retry: {run.short_name} has not failed, {run.ending}.",
        remedy="Only failed and cancelled runs can be retried; see `still runs`.",
        code="retry.not_failed",
    )


def _next(state: State, chosen: list[Run]) -> str:
    """What to do after a retry; a plan that was cancelled takes nothing up."""
    dropped = dict.fromkeys(one.started.plan for one in chosen if not state.wants(one.started.plan))
    told = ["  Next: `still run` the recipe; a running `still watch` takes them up by itself."]
    told += [
        f"  Plan {plan[:SHORT]} is not asked for: `still run {plan[:SHORT]}`." for plan in dropped
    ]
    return "\n".join(told)
