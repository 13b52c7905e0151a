"""The form of every version of every payload, which may never change once it was written.

`python -m pytest tests/schemas/test_payload_forms.py` fails when a payload's form changes and its
VERSION does not. The forms of an artifact's facts, one a kind, belong to `artifact.published`. To
record the forms of a new version: `STILL_RECORD_FORMS=1`, and read the diff.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from stillhouse.schemas.events import EVENTS, ArtifactPublished, TagMoved
from stillhouse.schemas.facts import FORMS, MlpackageFacts
from stillhouse.schemas.value import Value

GOLDEN = Path(__file__).parents[1] / "golden"
PAYLOADS, FACTS = GOLDEN / "payloads.json", GOLDEN / "facts.json"
RECORDING = bool(os.environ.get("STILL_RECORD_FORMS"))
_PROSE = {"title", "description"}


def form(model: type[Value]) -> dict[str, Any]:
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


def forms_of_facts() -> dict[str, Any]:
    return {str(kind): form(model) for kind, model in FORMS.items()}


def recorded() -> dict[str, dict[str, Any]]:
    """Name of a payload -> version -> form."""
    found: dict[str, dict[str, Any]] = json.loads(PAYLOADS.read_text(encoding="utf-8"))
    if RECORDING:
        for name, model in EVENTS.items():
            found.setdefault(name, {}).setdefault(str(model.VERSION), form(model))
    return _kept(PAYLOADS, found)


def recorded_facts() -> dict[str, dict[str, Any]]:
    """Version of `artifact.published` -> kind -> form of its facts."""
    found: dict[str, dict[str, Any]] = json.loads(FACTS.read_text(encoding="utf-8"))
    if RECORDING:
        found.setdefault(str(ArtifactPublished.VERSION), forms_of_facts())
    return _kept(FACTS, found)


def _kept(path: Path, found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    if RECORDING:
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return found


@pytest.mark.parametrize("name", EVENTS)
def test_a_payload_has_the_recorded_form_of_its_version(name: str) -> None:
    model = EVENTS[name]
    known = recorded().get(name, {})
    assert set(known) == {str(v) for v in range(1, model.VERSION + 1)}, "record the new version"
    assert form(model) == known[str(model.VERSION)], "raise VERSION: older programs refuse this"


def test_facts_have_the_recorded_forms_of_the_version_of_their_event() -> None:
    version = ArtifactPublished.VERSION
    known = recorded_facts()
    assert set(known) == {str(v) for v in range(1, version + 1)}, "record the new version"
    now, then = forms_of_facts(), known[str(version)]
    assert now.keys() == then.keys(), "raise ArtifactPublished.VERSION"
    for kind in FORMS:
        changed = f"the facts of a {kind} changed: raise ArtifactPublished.VERSION"
        assert now[kind] == then[kind], changed


def test_no_recorded_type_went_away() -> None:
    assert set(recorded()) == set(EVENTS)


def test_a_field_or_a_kind_more_is_seen() -> None:
    class Noted(TagMoved):
        note: str | None = None

    class Signed(MlpackageFacts):
        signature: str | None = None

    assert form(Noted) != form(TagMoved)
    assert form(Signed) != form(MlpackageFacts)
    kinds = form(EVENTS["artifact.published"])["$defs"]["Kind"]["enum"]
    assert "release" in kinds
