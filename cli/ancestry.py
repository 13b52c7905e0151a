"""The verb `lineage`: what an artifact was made from, or what was made from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cli import render
from cli.arguments import Json, Ref, session_of
from registry.references import resolve_reference
from schemas.artifact import Parent
from schemas.digest import Digest

if TYPE_CHECKING:
    from registry.fold import State

Neighbours = Callable[[Digest], tuple[Parent, ...]]
"""The next artifacts in one direction, each with the role that joins the two."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One place of the drawn tree."""

    depth: int
    role: str
    """What it was for one level up; empty at the root."""
    circumstance: bool
    digest: Digest
    again: bool
    """Its own neighbours are shown where it first appears."""


def lineage(
    context: typer.Context,
    ref: Ref,
    *,
    up: Annotated[bool, typer.Option("--up", help="What it was made from (the default).")] = False,
    down: Annotated[bool, typer.Option("--down", help="What was made from it.")] = False,
    as_json: Json = False,
) -> None:
    """Show lineage as a tree with roles.

    In parentheses: circumstances, which are recorded but shaped no result.
    """
    if up and down:
        raise typer.BadParameter("--up and --down exclude each other")
    state = session_of(context).state()
    root = resolve_reference(state, ref)
    nodes = list(walk(root, _children_of(state) if down else _parents_of(state)))
    if as_json:
        render.json_document(_as_json(state, root, nodes, down=down))
        return
    for node in nodes:
        fact = state.artifacts[node.digest][0].fact
        role = f"({node.role})" if node.circumstance else node.role
        texts = (role, str(fact.kind), render.short(node.digest), render.clean(fact.name or ""))
        again = "see above" if node.again else ""
        if render.at_terminal():
            render.line("  " * node.depth + "  ".join(t for t in (*texts, again) if t))
        else:
            render.line("\t".join((str(node.depth), *texts, again)))


def walk(root: Digest, neighbours: Neighbours) -> Iterator[Node]:
    """The tree below `root`, depth first; each artifact is opened once, where it first appears."""
    opened: set[Digest] = set()
    waiting = [(0, Parent(role="", digest=root))]
    while waiting:
        depth, edge = waiting.pop()
        following = neighbours(edge.digest)
        yield Node(
            depth=depth,
            role=edge.role,
            circumstance=edge.circumstance,
            digest=edge.digest,
            again=edge.digest in opened and bool(following),
        )
        if edge.digest not in opened:
            opened.add(edge.digest)
            waiting += [(depth + 1, after) for after in reversed(following)]


def _parents_of(state: State) -> Neighbours:
    def parents(digest: Digest) -> tuple[Parent, ...]:
        edges = [p for found in state.artifacts[digest] for p in found.fact.parents]
        return tuple(dict.fromkeys(e for e in edges if e.digest in state.artifacts))

    return parents


def _children_of(state: State) -> Neighbours:
    below: dict[Digest, dict[Parent, None]] = {}
    for child, publications in state.artifacts.items():
        for parent in (p for found in publications for p in found.fact.parents):
            edge = Parent(role=parent.role, digest=child, circumstance=parent.circumstance)
            below.setdefault(parent.digest, {})[edge] = None

    def children(digest: Digest) -> tuple[Parent, ...]:
        return tuple(below.get(digest, ()))

    return children


def _as_json(state: State, root: Digest, nodes: list[Node], *, down: bool) -> dict[str, object]:
    """The closure as a graph: its artifacts once, and every arrow between them."""
    members = dict.fromkeys(node.digest for node in nodes)
    facts = {digest: state.artifacts[digest][0].fact for digest in members}
    edges = {
        (child, parent.digest, parent.role, parent.circumstance): None
        for child in members
        for found in state.artifacts[child]
        for parent in found.fact.parents
        if parent.digest in members
    }
    return {
        "root": root,
        "direction": "down" if down else "up",
        "artifacts": [{"digest": d, "kind": str(f.kind), "name": f.name} for d, f in facts.items()],
        "edges": [
            {"child": child, "parent": parent, "role": role, "circumstance": circumstance}
            for child, parent, role, circumstance in edges
        ],
    }
