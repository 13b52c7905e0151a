"""The verb `sql`: any question to the projection, which it can neither change nor leave."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import render
from cli.arguments import Json, session_of

if TYPE_CHECKING:
    from registry.projection import Rows


def sql(
    context: typer.Context,
    statement: Annotated[str, typer.Argument(metavar="SQL", help="One statement, read-only.")],
    *,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
) -> None:
    """Ask the registry in SQL (DuckDB).

    Tables: event, artifact, edge, gate; `SHOW TABLES` lists the views. Read-only.
    """
    found = session_of(context).projection.query(statement)
    if as_json:
        render.json_document([_plain(row) for row in found.dicts()])
    elif as_csv:
        _write_csv(found)
    else:
        render.table(found.columns, ([_cell(value) for value in row] for row in found.rows))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose values JSON can hold: times and keys as text, numbers as they are."""
    return {name: json.loads(json.dumps(value, default=str)) for name, value in row.items()}


def _write_csv(found: Rows) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(found.columns)
    writer.writerows(found.rows)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return json.dumps(value, default=str) if isinstance(value, (dict, list)) else str(value)
