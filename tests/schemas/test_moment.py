"""The one format of time: what is spelled reads back, and texts compare as moments do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.schemas import moment

MOMENTS = st.datetimes(timezones=st.just(UTC))


def test_a_moment_is_spelled_with_microseconds_and_z() -> None:
    assert moment.spell(datetime(2026, 11, 22, 10, 20, 30, 123456, UTC)) == (
        "2026-11-22T10:20:30.123456Z"
    )
    assert moment.spell(datetime(2026, 11, 22, tzinfo=UTC)) == "2026-11-22T00:00:00.000000Z"


def test_another_time_zone_is_turned_into_utc() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    assert moment.spell(datetime(2026, 1, 1, 2, tzinfo=zone)) == "2025-12-31T20:30:00.000000Z"
    assert moment.parse("2026-01-01T02:00:00+05:30") == datetime(2025, 12, 31, 20, 30, tzinfo=UTC)


@given(MOMENTS)
def test_what_is_spelled_reads_back(found: datetime) -> None:
    assert moment.parse(moment.spell(found)) == found
    assert moment.parse(moment.spell(found)).tzinfo is UTC


@given(MOMENTS, MOMENTS)
def test_texts_compare_as_moments_do_in_every_year(one: datetime, other: datetime) -> None:
    assert (moment.spell(one) < moment.spell(other)) == (one < other)
    assert len(moment.spell(one)) == 27


def test_a_time_without_a_zone_is_neither_spelled_nor_read() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        moment.spell(datetime.now(UTC).replace(tzinfo=None))
    with pytest.raises(ValueError, match="no time zone"):
        moment.parse("2026-01-01T00:00:00.000000")
