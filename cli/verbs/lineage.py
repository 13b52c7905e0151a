"""The verb `lineage`: what an artifact was made from, what was made from it, and how two relate."""

from __future__ import annotations

from typing import Annotated

import typer

from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.screen import here
from stillhouse.cli.views.lineage import Form, note_shared, show_tree, write_graph
from stillhouse.lineage import closure, derivation


def lineage(
    context: typer.Context,
    ref: Ref,
    *,
    up: Annotated[bool, typer.Option("--up", help="What it was made from (the default).")] = False,
    down: Annotated[bool, typer.Option("--down", help="What was made from it.")] = False,
    depth: Annotated[
        int | None, typer.Option("--depth", metavar="N", min=0, help="Only so many steps.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="REF", help="The shortest way to this one, up or down."),
    ] = None,
    circumstances: Annotated[
        bool, typer.Option("--circumstances", help="With --to: lead over them as well.")
    ] = False,
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="REF", help="What this plan's own runs used.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="What any run used that made equal bytes.")
    ] = False,
    as_json: Json = False,
    dot: Annotated[bool, typer.Option("--dot", help="Print a graph for Graphviz.")] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart.")] = False,
) -> None:
    """Show lineage as a tree with roles.

    In parentheses: circumstances, which are recorded but shaped no result. With --to: exit 1 when
    neither artifact was made from the other. Upwards from a release, and with --plan, only what
    that plan's own runs used counts.
    """
    form = _form(as_json=as_json, dot=dot, mermaid=mermaid)
    _check(up=up, down=down, depth=depth, to=to, circumstances=circumstances)
    if plan is not None and (down or everything):
        raise typer.BadParameter("--plan excludes --down and --all")
    session = session_of(context)
    if to is None:
        found = closure(
            session, ref, "down" if down else "up", depth, plan=plan, everything=everything
        )
    else:
        found = derivation(
            session, ref, to, circumstances=circumstances, plan=plan, everything=everything
        )
    if form:
        write_graph(here(), found, form)
    else:
        show_tree(here(), found)
        note_shared(here(), found)


def _form(*, as_json: bool, dot: bool, mermaid: bool) -> Form | None:
    wanted: dict[Form, bool] = {"json": as_json, "dot": dot, "mermaid": mermaid}
    chosen: list[Form] = [form for form, asked in wanted.items() if asked]
    if len(chosen) > 1:
        raise typer.BadParameter("--json, --dot and --mermaid exclude each other")
    return chosen[0] if chosen else None


def _check(*, up: bool, down: bool, depth: int | None, to: str | None, circumstances: bool) -> None:
    if up and down:
        raise typer.BadParameter("--up and --down exclude each other")
    if to is not None and (up or down or depth is not None):
        raise typer.BadParameter("--to looks both ways, to the end: no --up, --down or --depth")
    if circumstances and to is None:
        raise typer.BadParameter("--circumstances goes with --to; the tree shows them anyway")
