"""The note beside the projection: it tells of a cut log, and nothing when it cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.registry.ledger.witness import check_noted, lock_of, noted
from stillhouse.registry.projection.projection import Projection
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import TagMoved

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Three events, all of them projected."""
    made = Ledger(tmp_path / "events.log", lambda: NOON, Actor(user="ada", host="h"))
    for number in range(3):
        tag(made, number)
    Projection(projection_of(made), made.path).catch_up()
    return made


def projection_of(ledger: Ledger) -> Path:
    return ledger.path.with_name("registry.duckdb")


def tag(ledger: Ledger, number: int) -> None:
    """Record an event, as a program that recorded nothing before."""
    later = Ledger(ledger.path, lambda: NOON, Actor(user="ada", host="h"))
    later.append([TagMoved(name="t", digest=f"{number:064x}")])


def cut(ledger: Ledger) -> None:
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join(lines[:-1]))


def check(ledger: Ledger) -> None:
    check_noted(projection_of(ledger), ledger.path)


def test_projecting_notes_how_far_it_came(ledger: Ledger) -> None:
    assert noted(projection_of(ledger)) == ledger.head()
    tag(ledger, 4)
    Projection(projection_of(ledger), ledger.path).catch_up()
    assert noted(projection_of(ledger)) == ledger.head()


def test_a_longer_log_is_accepted_and_a_cut_one_refused_even_when_extended(ledger: Ledger) -> None:
    tag(ledger, 4)
    check(ledger)
    cut(ledger)
    check(ledger)
    cut(ledger)
    for number in range(2):
        with pytest.raises(IntegrityError) as caught:
            check(ledger)
        assert caught.value.code == "ledger.cut"
        tag(ledger, number + 7)


def test_a_log_replaced_on_purpose_is_accepted_once_the_projection_is_deleted(
    ledger: Ledger,
) -> None:
    cut(ledger)
    projection_of(ledger).unlink()
    check(ledger)
    Projection(projection_of(ledger), ledger.path).catch_up()
    check(ledger)
    assert noted(projection_of(ledger)) == ledger.head()


@pytest.mark.parametrize("text", [b"", b"00000000000000000003\n", b"\0" * 200, b"\xff" * 20])
def test_a_note_that_is_none_says_nothing(ledger: Ledger, text: bytes) -> None:
    lock = lock_of(projection_of(ledger))
    lock.write_bytes(text)
    cut(ledger)
    check(ledger)
    lock.unlink()
    check(ledger)


@given(place=st.integers(0, 115), bit=st.integers(0, 7))
def test_one_wrong_bit_makes_it_none(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    path = tmp_path_factory.mktemp("note") / "registry.duckdb"
    text = b"%020d %s %020d da4d8f16\n" % (3, b"a" * 64, 900)
    assert len(text) == 116
    lock_of(path).write_bytes(text)
    whole = noted(path)
    assert whole is not None
    assert (whole.seq, whole.hash, whole.offset) == (3, "a" * 64, 900)
    lock_of(path).write_bytes(
        text[:place] + bytes([text[place] ^ 1 << bit]) + text[place + 1 :],
    )
    assert noted(path) is None
