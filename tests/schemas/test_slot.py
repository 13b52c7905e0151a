"""Slot ids and shapes: how they are spelled, and what a list of lengths asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.schemas.recipe import ExportSection
from stillhouse.schemas.slot import Shape, SlotId, shapes_of


@pytest.mark.parametrize(
    ("text", "phase", "shape"),
    [
        ("training", "training", None),
        ("export/prefill-128", "export", "prefill-128"),
        ("export/", "export", ""),
        ("a/b/c", "a", "b/c"),
        ("", "", None),
    ],
)
def test_an_id_has_a_phase_and_perhaps_a_shape(text: str, phase: str, shape: str | None) -> None:
    assert SlotId.parse(text) == SlotId(phase=phase, shape=shape)


@given(st.text(alphabet="abc/-1"))
def test_an_id_that_was_read_is_spelled_as_it_was(text: str) -> None:
    assert str(SlotId.parse(text)) == text
    assert len({SlotId.parse(text), SlotId.parse(text)}) == 1


def test_a_shape_names_itself_and_its_slots() -> None:
    shape = Shape(mode="decode", length=512, primary=False)
    assert shape.id == "decode-512"
    assert SlotId.parse(shape.slot("export")) == SlotId(phase="export", shape=shape.id)


def test_only_a_prefill_that_is_not_primary_is_optional() -> None:
    found = shapes_of((32, 8, 16), 16, 64)
    assert [shape.id for shape in found] == ["prefill-8", "prefill-16", "prefill-32", "decode-64"]
    assert [shape.id for shape in found if shape.optional] == ["prefill-8", "prefill-32"]
    assert [shape.id for shape in found if shape.primary] == ["prefill-16"]


def test_a_recipe_without_a_capacity_asks_for_no_decode() -> None:
    section = ExportSection(prefill=(8,), primary=8)
    assert section.shapes == (Shape(mode="prefill", length=8, primary=True),)
