"""Waivers: a person takes responsibility for a gate that did not pass, until a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING

from stillhouse.reasons import check_reason
from stillhouse.registry.state.references import resolve_reference
from stillhouse.schemas import moment
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.events import GateWaived
from stillhouse.session import actor, clock

if TYPE_CHECKING:
    from stillhouse.registry.state.state import State
    from stillhouse.session import Session

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """A waiver as it was recorded."""

    fact: GateWaived
    judged: bool
    """Whether the gate was ever judged over the subject; else it is waived in advance."""

    def to_json(self) -> GateWaived:
        """Only the fact."""
        return self.fact


def waive(session: Session, gate: str, reference: str, *, reason: str, until: str) -> Waiver:
    """Record that a gate may be passed over for the artifact that `reference` names.

    until: a day (YYYY-MM-DD, to its end in UTC) or a time (RFC 3339). Raises InputError for a gate
    that no policy has, for a reason or time that can not be, ReferenceError_.
    """
    state = session.state()
    _require_gate(state, gate)
    _require_reason(reason)
    fact = GateWaived(
        gate=gate,
        subject=resolve_reference(state, reference),
        author=actor().user,
        reason=reason,
        until=expiry(until, clock()),
    )
    session.ledger.append([fact])
    return Waiver(fact=fact, judged=_was_judged(state, fact))


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
    remedy = "Shorten it: every manifest shows it. The long form may be an artifact."
    check_reason(reason, code="waive.long_reason", remedy=remedy)


def _require_gate(state: State, gate: str) -> None:
    policies = [digest for digest in state.artifacts if state.published(digest, Kind.POLICY)]
    known = {name for digest in policies for name in state.policy(digest).gates}
    if gate not in known:
        named = f"Gates are: {', '.join(sorted(known))}."
        raise InputError(
            f"No policy here has a gate {gate!r}.",
            remedy=named if known else "Publish a policy first.",
            code="waive.unknown_gate",
        )


def _was_judged(state: State, waiver: GateWaived) -> bool:
    judged = (found.fact for found in state.verdicts.values())
    return any((fact.gate, fact.subject) == (waiver.gate, waiver.subject) for fact in judged)
