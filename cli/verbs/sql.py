"""The verb `sql`: any question to the projection, which it can neither change nor leave."""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.views import render
from stillhouse.schemas import moment
from stillhouse.schemas.errors import InputError

if TYPE_CHECKING:
    from stillhouse.registry.projection.projection import Rows

_NAME = re.compile(r"[A-Za-z_]\w*")


def sql(
    context: typer.Context,
    statement: Annotated[str, typer.Argument(metavar="SQL", help="One statement, read-only.")],
    *,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="The text that $NAME stands for; repeatable."),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(metavar="TIME|SEQ", help="Answer as of then: an event, a date, a time."),
    ] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
) -> None:
    """Ask the registry in SQL (DuckDB).

    Tables and views: `SHOW TABLES`; they and the questions of an audit are in docs/sql.md.
    """
    from stillhouse.registry.projection.asof import as_of as parse

    at = parse(as_of) if as_of is not None else None
    params = _params(param or ())
    found = session_of(context).projection.query(statement, params, at=at)
    if as_json:
        render.json_document(_objects(found))
    elif as_csv:
        _write_csv(found)
    else:
        render.table(found.columns, ([_cell(value) for value in row] for row in found.rows))


def _params(given: Iterable[str]) -> dict[str, str]:
    """`name=value` of each. Raises InputError `usage.param`."""
    params: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not _NAME.fullmatch(name) or name in params:
            raise InputError(
                f"--param {text!r} is not one NAME=VALUE of its own.",
                remedy="Write --param name=value once for each $name of the statement.",
                code="usage.param",
            )
        params[name] = value
    return params


def _objects(found: Rows) -> list[dict[str, Any]]:
    """Each row as an object; of columns with one name, the later become `name_2` and so on."""
    names: list[str] = []
    for column in found.columns:
        others = (f"{column}_{n}" for n in itertools.count(2))
        free = (name for name in others if name not in names and name not in found.columns)
        names.append(next(free) if column in names else column)
    return [dict(zip(names, map(_plain, row), strict=True)) for row in found.rows]


def _plain(value: object) -> Any:  # noqa: ANN401  # any JSON value
    """What JSON can hold: times, decimals and keys as text, NaN and infinities as null."""
    if isinstance(value, dict):
        return {_key(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
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
        return json.dumps(_plain(key))
    return _time(key) if isinstance(key, datetime) else str(key)


def _write_csv(found: Rows) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(found.columns)
    writer.writerows(found.rows)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return json.dumps(_plain(value)) if isinstance(value, (dict, list, tuple)) else str(value)
