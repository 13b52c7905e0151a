"""Gives the statements of queries.sql by name, so that all SQL stands together and can be read."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def statements() -> dict[str, str]:
    """Every statement of queries.sql: name -> SQL, without its leading comment lines."""
    text = files(__package__).joinpath("queries.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return {name: sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}


def named(name: str) -> str:
    """One statement. Raises KeyError."""
    return statements()[name]
