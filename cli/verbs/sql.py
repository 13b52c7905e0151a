"""The verb `sql`: any question to the projection, which it can neither change nor leave."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.api import Registry
from stillhouse.cli.arguments import Json, session_of
from stillhouse.cli.screen import answer
from stillhouse.schemas.errors import InputError

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.registry.projection.sandbox import Rows

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
    params = _params(param or ())
    found = Registry(session_of(context)).sql(statement, params, as_of=as_of)
    answer(found, _write_csv if as_csv else _show, as_json=as_json)


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


def _show(screen: Screen, found: Rows) -> None:
    screen.table(found.columns, ([_cell(value) for value in row] for row in found.rows))


def _cell(value: object) -> str:
    from stillhouse.registry.projection.values import json_value

    if value is None:
        return ""
    return json.dumps(json_value(value)) if isinstance(value, (dict, list, tuple)) else str(value)


def _write_csv(screen: Screen, found: Rows) -> None:
    writer = csv.writer(screen.out, lineterminator="\n")
    writer.writerow(found.columns)
    writer.writerows(found.rows)
