"""How a part of the lineage is written for other programs: JSON, Graphviz, Mermaid.

Rules: artifacts and arrows are written as they come, since a closure may be the whole registry; an
arrow points from what shaped to what was made, dashed where it is a circumstance; whatever a name,
a kind or a role holds, the text stays valid.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from stillhouse.cli.views import render
from stillhouse.schemas.digest import SHORT, Digest

Form = Literal["json", "dot", "mermaid"]

_MERMAID_WORDS = frozenset("#&<>\"'`\\|[](){}")
"""Characters that mean something inside of Mermaid's quoted labels, or did in some version."""


@dataclass(frozen=True, kw_only=True)
class Vertex:
    """One artifact."""

    node: int
    digest: Digest
    kind: str
    name: str | None
    depth: int


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One arrow: `parent` shaped `child`."""

    child: Vertex
    parent: Vertex
    role: str
    circumstance: bool


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Artifacts and the arrows between them, each read once, artifacts first."""

    head: Mapping[str, object]
    """What the JSON document says besides."""
    vertices: Iterable[Vertex]
    edges: Iterable[Edge]


def write(graph: Graph, form: Form) -> None:
    """Write one document to stdout."""
    lines = {"json": _json, "dot": _dot, "mermaid": _mermaid}[form]
    for text in lines(graph):
        render.line(text)


def _json(graph: Graph) -> Iterator[str]:
    yield json.dumps(graph.head, ensure_ascii=False)[:-1] + ', "artifacts": ['
    yield from _separated(
        {"digest": v.digest, "kind": v.kind, "name": v.name, "depth": v.depth}
        for v in graph.vertices
    )
    yield '], "edges": ['
    yield from _separated(
        {
            "child": e.child.digest,
            "parent": e.parent.digest,
            "role": e.role,
            "circumstance": e.circumstance,
        }
        for e in graph.edges
    )
    yield "]}"


def _separated(values: Iterable[object]) -> Iterator[str]:
    """One value a line, each but the first after a comma."""
    comma = ""
    for value in values:
        yield comma + json.dumps(value, ensure_ascii=False)
        comma = ","


def _dot(graph: Graph) -> Iterator[str]:
    yield "digraph lineage {"
    yield "  node [shape=box];"
    for v in graph.vertices:
        words = r"\n".join(_dot_escaped(word) for word in _words(v))
        yield f'  "{v.digest}" [label="{words}"];'
    for e in graph.edges:
        style = ", style=dashed" if e.circumstance else ""
        label = _dot_escaped(e.role)
        yield f'  "{e.parent.digest}" -> "{e.child.digest}" [label="{label}"{style}];'
    yield "}"


def _dot_escaped(text: str) -> str:
    """Inside of a quoted string, where a backslash would begin an escape."""
    return render.clean(text).replace("\\", "\\\\").replace('"', '\\"')


def _mermaid(graph: Graph) -> Iterator[str]:
    yield "flowchart TD"
    for v in graph.vertices:
        words = "<br/>".join(_mermaid_escaped(word) for word in _words(v))
        yield f'  n{v.node}["{words}"]'
    for e in graph.edges:
        arrow = "-.->" if e.circumstance else "-->"
        yield f'  n{e.parent.node} {arrow}|"{_mermaid_escaped(e.role)}"| n{e.child.node}'


def _mermaid_escaped(text: str) -> str:
    """Inside of a quoted label; an empty one would end the arrow."""
    cleaned = render.clean(text) or " "
    return "".join(f"#{ord(c)};" if c in _MERMAID_WORDS else c for c in cleaned)


def _words(vertex: Vertex) -> list[str]:
    return [word for word in (vertex.kind, vertex.digest[:SHORT], vertex.name) if word]
