"""The form of every version of every payload, which may never change once it was written.

`python -m pytest tests/schemas/test_payload_forms.py` fails when a payload's form changes and its
VERSION does not. To record the form of a new version: `STILL_RECORD_FORMS=1`, and read the diff.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from stillhouse.schemas.events import EVENTS, Payload, TagMoved

GOLDEN = Path(__file__).parents[1] / "golden" / "payloads.json"
_PROSE = {"title", "description"}


def form(model: type[Payload]) -> dict[str, Any]:
    """What an older program would hold data against: fields, types, values, bounds; no prose."""
    stripped: dict[str, Any] = _bare(model.model_json_schema())
    return stripped


def _bare(value: Any, *, names: bool = False) -> Any:
    """`names`: the keys of this object are names of fields, not words of JSON Schema."""
    if isinstance(value, dict):
        return {
            key: _bare(inner, names=key in ("properties", "$defs"))
            for key, inner in value.items()
            if names or key not in _PROSE
        }
    return [_bare(inner) for inner in value] if isinstance(value, list) else value


def recorded() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    if os.environ.get("STILL_RECORD_FORMS"):
        for name, model in EVENTS.items():
            found.setdefault(name, {}).setdefault(str(model.VERSION), form(model))
        GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return found


@pytest.mark.parametrize("name", EVENTS)
def test_a_payload_has_the_recorded_form_of_its_version(name: str) -> None:
    model = EVENTS[name]
    known = recorded().get(name, {})
    assert set(known) == {str(v) for v in range(1, model.VERSION + 1)}, "record the new version"
    assert form(model) == known[str(model.VERSION)], "raise VERSION: older programs refuse this"


def test_no_recorded_type_went_away() -> None:
    assert set(recorded()) == set(EVENTS)


def test_a_field_or_a_kind_more_is_seen() -> None:
    class Noted(TagMoved):
        note: str | None = None

    assert form(Noted) != form(TagMoved)
    kinds = form(EVENTS["artifact.published"])["$defs"]["Kind"]["enum"]
    assert "release" in kinds
