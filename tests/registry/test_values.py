"""DuckDB's values as JSON."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest

from stillhouse.registry.projection.values import json_value

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, None),
        (True, True),
        (math.nan, None),
        ([-math.inf, 1.5], [None, 1.5]),
        (Decimal("1.50"), "1.50"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (date(2026, 1, 2), "2026-01-02"),
        (NOON.replace(tzinfo=None), "2026-01-02T12:00:00.000000Z"),
        (NOON.astimezone(timezone(timedelta(hours=1))), "2026-01-02T12:00:00.000000Z"),
        ({"a": ({"b": Decimal(2)},)}, {"a": [{"b": "2"}]}),
    ],
)
def test_a_value_is_told_in_json(value: object, told: object) -> None:
    assert json_value(value) == told


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (None, "null"),
        (True, "true"),
        ((1, Decimal(2)), '[1, "2"]'),
        (NOON, "2026-01-02T12:00:00.000000Z"),
        (1.5, "1.5"),
    ],
)
def test_a_key_of_a_map_is_text(key: object, told: str) -> None:
    assert json.loads(json.dumps(json_value({key: 1}))) == {told: 1}
