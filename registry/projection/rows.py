"""What verified lines are as rows, and which statements load which of them. Pure.

The rows of `event` are the lines verbatim. All other tables are loaded in SQL from the lines as
they would be written today. A line of an earlier version is upcast here, once, and kept beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stillhouse.registry.ledger.format import Line
from stillhouse.schemas import canonical
from stillhouse.schemas.events import EVENTS, Payload
from stillhouse.schemas.upcast import UPCASTERS, Upcaster, payload_of, require_known

LAYOUT = 5
"""Version of tables and views in queries.sql. Every change raises it, and files are rebuilt."""

Columns = dict[str, list[object]]

_PUBLISHED = "artifact.published"

_LOADERS: tuple[tuple[str, bytes, str], ...] = (
    (_PUBLISHED, b"", "add_artifacts"),
    (_PUBLISHED, b'"parents":[{', "add_edges"),
    (_PUBLISHED, b'"recipe":{', "add_recipes"),
    (_PUBLISHED, b'"metrics":[{', "add_metrics"),
    (_PUBLISHED, b'"files":[{', "add_files"),
    ("run.", b"", "add_run_events"),
    ("gate.evaluated", b"", "add_gates"),
    ("gate.evaluated", b"", "add_checks"),
    ("gate.waived", b"", "add_waivers"),
    ("plan.", b"", "add_plan_events"),
    ("tag.moved", b"", "add_tag_moves"),
    ("release.cut", b"", "add_release_cuts"),
)
"""How a type begins and what its body holds -> the statement that loads it; in their order."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The event types that a projection knows, and how earlier versions of them are read."""

    events: Mapping[str, type[Payload]]
    upcasters: Mapping[tuple[str, int], Upcaster]

    @property
    def versions(self) -> str:
        """Every type with its version: a file that was built with others is rebuilt."""
        known = {name: model.VERSION for name, model in self.events.items()}
        return canonical.encode(known).decode()


PRESENT = Vocabulary(events=EVENTS, upcasters=UPCASTERS)
"""What this program knows."""


def columns(lines: Sequence[Line]) -> Columns:
    """The lines as the columns that `take_lines` takes."""
    return {
        "hash": [line.hash for line in lines],
        "body": [line.body.decode() for line in lines],
    }


def upcasts(lines: Sequence[Line], known: Vocabulary) -> Columns:
    """Those lines that are of an earlier version, as the columns that `take_upcasts` takes.

    Raises InputError `event.too_new` when this program would misread one of them, IntegrityError
    `event.malformed` when an earlier one does not have the form of its version.
    """
    earlier = [line for line in lines if _earlier(line, known)]
    return {
        "seq": [line.seq for line in earlier],
        "body": [_upcast(line, known) for line in earlier],
    }


def loaders(lines: Sequence[Line], known: Vocabulary) -> Iterator[str]:
    """The statements that these lines need; each costs a millisecond, so no others are run."""
    types = {line.type for line in lines}
    for beginning, inside, name in _LOADERS:
        if not any(kind.startswith(beginning) for kind in types):
            continue
        if not inside or any(inside in line.body or _earlier(line, known) for line in lines):
            yield name


def _earlier(line: Line, known: Vocabulary) -> bool:
    """Whether the line's body is not the one that is loaded: its version had another form."""
    model = known.events.get(line.type)
    if model is None:
        return False
    require_known(model, line.seq, line.v)
    return not model.reads(line.v)


def _upcast(line: Line, known: Vocabulary) -> str:
    """The event as it would be written today."""
    event = line.event()
    payload = payload_of(event, known=known.events, upcasters=known.upcasters)
    assert payload is not None  # noqa: S101  # only types that are known here come so far
    present = event.model_copy(update={"v": payload.VERSION, "data": payload.to_json()})
    return canonical.encode(present.to_json()).decode()
