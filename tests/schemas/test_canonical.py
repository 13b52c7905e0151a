from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import canonical
from schemas.errors import InputError

TEXT = st.characters(exclude_categories=["Cs"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-(2.0**53) + 1, 2.0**53 - 1)
    | st.text(TEXT)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(TEXT, max_size=5), inner),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(TEXT, max_size=5), VALUES)


@given(OBJECTS)
def test_encoding_again_what_was_decoded_changes_no_byte(value: dict[str, object]) -> None:
    data = canonical.encode(value)
    assert canonical.encode(canonical.decode(data)) == data


def test_key_order_and_number_spelling_do_not_matter() -> None:
    # RFC 8785, sections 3.2.2.3 and 3.2.3.
    assert canonical.encode({"b": 1e2, "a": 1.50}) == b'{"a":1.5,"b":100}'


@pytest.mark.parametrize(
    "value", [{"x": float("nan")}, {"x": float("inf")}, {"x": 2**60}, {"x": b"bytes"}]
)
def test_what_has_no_canonical_form_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(InputError):
        canonical.encode(value)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"nul", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff{}", b"[" * 100_000]
)
def test_what_is_not_one_plain_object_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        canonical.decode(data)
