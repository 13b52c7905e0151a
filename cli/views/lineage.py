"""Lineage as a tree for people, and as a graph for programs: JSON, Graphviz, Mermaid.

Rules: artifacts and arrows are written as they come, since a closure may be the whole registry; an
arrow points from what shaped to what was made, dashed where it is a circumstance; whatever a name,
a kind or a role holds, the text stays valid.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from stillhouse.cli.screen import clean
from stillhouse.schemas.digest import SHORT

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.registry.lineage.subgraph import Edge, Place, Subgraph, Vertex

Form = Literal["json", "dot", "mermaid"]

_MERMAID_WORDS = frozenset("#&<>\"'`\\|[](){}")
"""Characters that mean something inside of Mermaid's quoted labels, or did in some version."""


def show_tree(screen: Screen, found: Subgraph) -> None:
    """One line a place: indented at a terminal, with its depth in a pipe."""
    for place in found.tree:
        depth, texts = place.vertex.depth, _cells(screen, place)
        if screen.tty:
            screen.line("  " * depth + "  ".join(text for text in texts if text))
        else:
            screen.line("\t".join((str(depth), *texts)))


def note_shared(screen: Screen, found: Subgraph) -> None:
    """Tell a person that runs of something else made the same bytes."""
    if count := found.head.get("also_made_by_others"):
        screen.note(
            f"Note: other runs made {count} of these too, with equal bytes; what they used is not "
            "shown. See --all."
        )


def write_graph(screen: Screen, found: Subgraph, form: Form) -> None:
    """One document, piece by piece."""
    for text in {"json": _json, "dot": _dot, "mermaid": _mermaid}[form](found):
        screen.line(text)


def _cells(screen: Screen, place: Place) -> tuple[str, ...]:
    shown = place.vertex
    role = f"({place.role})" if place.circumstance else place.role
    again = "see above" if place.again else ""
    return clean(role), shown.kind, screen.short(shown.digest), clean(shown.name or ""), again


def _json(graph: Subgraph) -> Iterator[str]:
    yield json.dumps(graph.head)[:-1] + ', "artifacts": ['
    yield from _separated(graph.artifacts)
    yield '], "edges": ['
    yield from _separated(graph.edges)
    yield "]}"


def _separated(values: Iterable[Vertex | Edge]) -> Iterator[str]:
    """One value a line, each but the first after a comma."""
    comma = ""
    for value in values:
        yield comma + json.dumps(value.to_json(), ensure_ascii=False)
        comma = ","


def _dot(graph: Subgraph) -> Iterator[str]:
    yield "digraph lineage {"
    yield "  node [shape=box];"
    for v in graph.artifacts:
        words = r"\n".join(_dot_escaped(word) for word in _words(v))
        yield f'  "{v.digest}" [label="{words}"];'
    for e in graph.edges:
        style = ", style=dashed" if e.circumstance else ""
        label = _dot_escaped(e.role)
        yield f'  "{e.parent.digest}" -> "{e.child.digest}" [label="{label}"{style}];'
    yield "}"


def _dot_escaped(text: str) -> str:
    """Inside of a quoted string, where a backslash would begin an escape."""
    return clean(text).replace("\\", "\\\\").replace('"', '\\"')


def _mermaid(graph: Subgraph) -> Iterator[str]:
    yield "flowchart TD"
    for v in graph.artifacts:
        words = "<br/>".join(_mermaid_escaped(word) for word in _words(v))
        yield f'  n{v.node}["{words}"]'
    for e in graph.edges:
        arrow = "-.->" if e.circumstance else "-->"
        yield f'  n{e.parent.node} {arrow}|"{_mermaid_escaped(e.role)}"| n{e.child.node}'


def _mermaid_escaped(text: str) -> str:
    """Inside of a quoted label; an empty one would end the arrow."""
    cleaned = clean(text) or " "
    return "".join(f"#{ord(c)};" if c in _MERMAID_WORDS else c for c in cleaned)


def _words(vertex: Vertex) -> list[str]:
    return [word for word in (vertex.kind, vertex.digest[:SHORT], vertex.name) if word]
