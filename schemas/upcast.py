"""From a recorded event to today's payload: every version ever written stays readable.

`UPCASTERS[type, version]` turns the data of that version into the data of the next one. Versions
from `READS_FROM` on need none. Rules: an entry is never changed or removed once released. A type
that this program does not know is kept and passed on (None). A *newer version* of a known type is
refused, because to guess would be to lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import ValidationError

from stillhouse.schemas.canonical import Json
from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.schemas.event import Event
from stillhouse.schemas.events import EVENTS, Payload

Upcaster = Callable[[Json], Json]

UPCASTERS: Mapping[tuple[str, int], Upcaster] = {}
"""(type, version it reads) -> function giving the data of version + 1."""


def payload_of(
    event: Event,
    *,
    known: Mapping[str, type[Payload]] = EVENTS,
    upcasters: Mapping[tuple[str, int], Upcaster] = UPCASTERS,
) -> Payload | None:
    """Read the event's payload in its present form; None for a type that is not known here.

    Raises InputError `event.too_new` for a newer version of a known type, IntegrityError
    `event.malformed` when the data does not have the form of its version.
    """
    model = known.get(event.type)
    if model is None:
        return None
    require_known(model, event.seq, event.v)
    data = event.data
    for version in range(event.v, model.READS_FROM):
        data = upcasters[event.type, version](data)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise IntegrityError(
            f"Event {event.seq} ({event.type}) does not have the form of its version {event.v}: "
            f"{error.errors()[0]['msg']}.",
            remedy="Another program wrote it; restore events.log from a copy.",
            code="event.malformed",
        ) from error


def require_known(model: type[Payload], seq: int, version: int) -> None:
    """Raise InputError `event.too_new` for a version of an event that is not known here."""
    if version > model.VERSION:
        raise InputError(
            f"Event {seq} is {model.TYPE} version {version}; "
            f"this program knows versions up to {model.VERSION}.",
            remedy="Upgrade stillhouse to at least the version that wrote this registry.",
            code="event.too_new",
        )
