from __future__ import annotations

import enum
import math

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from stillhouse.schemas import canonical
from stillhouse.schemas.errors import InputError

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
ODD_TEXT = st.text(st.characters(), max_size=3) | st.sampled_from(
    ["\U0001f600", "\ufb33", "\ud800", "é", '"\\/\x00\x1f\x7f\u2028']
)
ODD_NUMBERS = (
    st.integers(-(2**53) - 3, 2**53 + 3)
    | st.integers(2**53 - 3, 2**53 + 3)
    | st.integers()
    | st.floats()
    | st.floats(-2e-3, 2e-3)
    | st.builds(math.ldexp, st.floats(-1, 1), st.integers(-80, 80))
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | ODD_NUMBERS | ODD_TEXT | st.binary(max_size=1),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(
            ODD_TEXT | st.integers(0, 3) | st.booleans() | st.none(), inner, max_size=4
        )
        | st.frozensets(st.text(), max_size=1)
    ),
    max_leaves=10,
)
"""What is JSON, what nearly is, and what is not."""
OBJECTS = st.dictionaries(st.text(TEXT, max_size=5), VALUES)


@given(OBJECTS)
def test_encoding_again_what_was_decoded_changes_no_byte(value: dict[str, object]) -> None:
    data = canonical.encode(value)
    assert canonical.encode(canonical.decode(data)) == data


class Colour(enum.StrEnum):
    RED = "red"


class Count(enum.IntEnum):
    ONE = 1


def refused_or(work: object, value: object) -> bytes | None:
    """What an encoder makes of a value; None when it refuses."""
    try:
        return work(value)  # type: ignore[operator,no-any-return]
    except (InputError, ValueError):
        return None


@given(ANYTHING)
@example({"\U0001f600": 1, "\ufb33": 2})
@example([0.0, -0.0, 1e16, 1e-4, 9.999e-5, 1e21, 5e-324, 2.0**53, -(2.0**53), 0.1])
@example({Colour.RED: Colour.RED, "n": Count.ONE})
@example({1: 2})
@example({"a": {True: 1}})
def test_every_value_is_encoded_as_the_reference_does_or_refused_as_it_does(value: object) -> None:
    assert refused_or(canonical.encode, value) == refused_or(rfc8785.dumps, value)


def test_a_value_as_deep_as_the_stack_is_refused_with_words() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputError):
        canonical.encode(deep)


def test_a_value_that_holds_itself_is_refused_with_words() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(InputError):
        canonical.encode({"loop": loop})


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
