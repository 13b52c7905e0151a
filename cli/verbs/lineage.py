"""The verb `lineage`: what an artifact was made from, what was made from it, and how two relate.

Rules: answered from the adjacency index, never by folding the ledger; what is large is written as
it is found, without recursion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.views import graphs, render
from stillhouse.cli.views.graphs import Edge, Form, Graph, Vertex
from stillhouse.registry.lineage.graph import Arrow, Derivation, Lineage, Publication, Way
from stillhouse.registry.state.references import resolve_reference
from stillhouse.schemas.digest import SHORT
from stillhouse.schemas.errors import StillError

if TYPE_CHECKING:
    from stillhouse.session import Session

_REMEMBERED = 16 * 1024
"""Publications that are kept at hand: a recipe or a data set recurs below everything."""

Known = Callable[[int], Publication]


@dataclass(frozen=True, kw_only=True)
class Place:
    """One place of the drawn tree."""

    depth: int
    arrow: Arrow
    """What leads to it; at the root, without a role."""
    again: bool
    """Its own neighbours are shown where it first appears."""


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
    as_json: Json = False,
    dot: Annotated[bool, typer.Option("--dot", help="Print a graph for Graphviz.")] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart.")] = False,
) -> None:
    """Show lineage as a tree with roles.

    In parentheses: circumstances, which are recorded but shaped no result. With --to: exit 1 when
    neither artifact was made from the other.
    """
    form = _form(as_json=as_json, dot=dot, mermaid=mermaid)
    _check(up=up, down=down, depth=depth, to=to, circumstances=circumstances)
    session = session_of(context)
    found = Lineage(session.home.log, session.home.lineage)
    known = lru_cache(_REMEMBERED)(found.publication)
    root = _node(session, found, ref)
    if to is not None:
        goal = _node(session, found, to)
        _tell_way(found, known, root, goal, circumstances=circumstances, form=form)
        return
    way: Way = "down" if down else "up"
    if form:
        graphs.write(_closure(found, known, root, way, depth), form)
        return
    for place in walk(found, root, way, depth):
        _print(place, known(place.arrow.node))


def walk(found: Lineage, root: int, way: Way, depth: int | None = None) -> Iterator[Place]:
    """The tree from `root` on, depth first.

    Each artifact is opened once, where it first appears; with `depth`, again where it appears
    nearer to the root, so that nothing within so many steps is missing.
    """
    opened: dict[int, int] = {}
    leaves: set[int] = set()
    waiting = [(0, Arrow(node=root, role="", circumstance=False))]
    while waiting:
        at, arrow = waiting.pop()
        node = arrow.node
        again = node in opened and (depth is None or opened[node] <= at)
        yield Place(depth=at, arrow=arrow, again=again)
        if again or node in leaves or at == depth:
            continue
        following = found.arrows(node, way)
        if following:
            opened[node] = at
            waiting += [(at + 1, after) for after in reversed(following)]
        else:
            leaves.add(node)


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


def _node(session: Session, found: Lineage, ref: str) -> int:
    """The node that REF names. Raises ReferenceError_.

    Only a REF that names nothing, or too much, needs the folded state: to say what is near.
    """
    return found.node(found.resolve(ref) or resolve_reference(session.state(), ref))


def _print(place: Place, shown: Publication) -> None:
    role = f"({place.arrow.role})" if place.arrow.circumstance else place.arrow.role
    name = render.clean(shown.name or "")
    texts = (render.clean(role), str(shown.kind), render.short(shown.digest), name)
    again = "see above" if place.again else ""
    if render.at_terminal():
        render.line("  " * place.depth + "  ".join(t for t in (*texts, again) if t))
    else:
        render.line("\t".join((str(place.depth), *texts, again)))


def _closure(found: Lineage, known: Known, root: int, way: Way, depth: int | None) -> Graph:
    """The closure as a graph: its artifacts once, and every arrow between them."""
    depths = {node: at for at, level in enumerate(found.levels(root, way, depth)) for node in level}

    def vertex(node: int) -> Vertex:
        return _vertex(known(node), node, depths[node])

    return Graph(
        head={"root": found.digest(root), "direction": way},
        vertices=map(vertex, depths),
        edges=(
            Edge(
                child=vertex(node),
                parent=vertex(arrow.node),
                role=arrow.role,
                circumstance=arrow.circumstance,
            )
            for node in depths
            for arrow in found.arrows(node, "up")
            if arrow.node in depths
        ),
    )


def _vertex(shown: Publication, node: int, depth: int) -> Vertex:
    return Vertex(
        node=node, digest=shown.digest, kind=str(shown.kind), name=shown.name, depth=depth
    )


def _tell_way(
    found: Lineage,
    known: Known,
    root: int,
    goal: int,
    *,
    circumstances: bool,
    form: Form | None,
) -> None:
    way = found.derivation(root, goal, circumstances=circumstances)
    if way is None:
        raise _unrelated(found, known, root, goal, circumstances=circumstances)
    steps = [Arrow(node=root, role="", circumstance=False), *way.arrows]
    if form:
        ends = {"from": found.digest(root), "to": found.digest(goal)}
        graphs.write(_way_graph(known, ends, way, steps), form)
        return
    for at, arrow in enumerate(steps):
        _print(Place(depth=at, arrow=arrow, again=False), known(arrow.node))


def _unrelated(
    found: Lineage, known: Known, root: int, goal: int, *, circumstances: bool
) -> StillError:
    one, other = (f"{known(n).kind} {known(n).digest[:SHORT]}" for n in (root, goal))
    beside = not circumstances and found.derivation(root, goal, circumstances=True)
    return StillError(
        f"Neither {one} nor {other} was made from the other.",
        remedy="`--circumstances` shows how they relate all the same."
        if beside
        else "`still diff` tells where they begin to differ.",
        code="lineage.unrelated",
    )


def _way_graph(known: Known, ends: dict[str, str], way: Derivation, steps: list[Arrow]) -> Graph:
    vertices = [_vertex(known(arrow.node), arrow.node, at) for at, arrow in enumerate(steps)]
    upward = way.way == "up"
    edges = [
        Edge(
            child=near if upward else far,
            parent=far if upward else near,
            role=arrow.role,
            circumstance=arrow.circumstance,
        )
        for near, far, arrow in zip(vertices, vertices[1:], steps[1:], strict=False)
    ]
    return Graph(head=ends | {"direction": way.way}, vertices=vertices, edges=edges)
