"""Typed values as what JSON holds: the one way from an answer to its JSON.

A dataclass becomes an object with a key for each field, in their order; a field may have another
key (`metadata={"key": "from"}`). A value with a `to_json` becomes what that says. Texts, numbers,
booleans and None stay; enumerations and paths become text, sets are sorted, times are spelled as
events spell them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import PurePath
from typing import Any, Protocol, runtime_checkable

from stillhouse.schemas.moment import spell


@runtime_checkable
class _OwnForm(Protocol):
    def to_json(self) -> object: ...


def plain(value: object) -> Any:  # noqa: ANN401, PLR0911  # any JSON value; one line a kind
    """The JSON value of `value`. Raises TypeError for what has none."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, _OwnForm) and not isinstance(value, type):
        return plain(value.to_json())
    if is_dataclass(value) and not isinstance(value, type):
        return {f.metadata.get("key", f.name): plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(plain(inner) for inner in value)
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, datetime):
        return spell(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
