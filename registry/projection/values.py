"""DuckDB's values as JSON. Pure.

JSON has no word for times, decimals and UUIDs: they become text, NaN and infinities become null.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from stillhouse.schemas import moment


def json_value(value: object) -> Any:  # noqa: ANN401  # any JSON value
    """The JSON value of what a query answers, down to the keys of its maps."""
    if isinstance(value, dict):
        return {_key(key): json_value(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return _time(value)
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _time(value: datetime) -> str:
    """As the ledger writes it. A time without a zone is UTC, as all times of the registry are."""
    return moment.spell(value if value.tzinfo else value.replace(tzinfo=UTC))


def _key(key: object) -> str:
    if isinstance(key, (dict, list, tuple, bool)) or key is None:
        return json.dumps(json_value(key))
    return _time(key) if isinstance(key, datetime) else str(key)
