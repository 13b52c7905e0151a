"""When a waiver ends."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from stillhouse.schemas.errors import InputError
from stillhouse.waive import expiry

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


def test_a_day_lasts_to_its_end() -> None:
    assert expiry("2026-11-22", NOW) == "2026-11-22T23:59:59.999999Z"


def test_an_end_in_another_zone_is_recorded_in_utc() -> None:
    assert expiry("2026-11-22T12:30:00+02:00", NOW) == "2026-11-22T10:30:00.000000Z"
    with pytest.raises(InputError):
        expiry("2026-11-22T11:30:00+02:00", NOW)
