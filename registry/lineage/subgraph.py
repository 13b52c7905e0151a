"""Parts of the lineage as values that can be printed and sent: a closure, or the way between two.

Rules: a closure may be the whole registry, so its pieces are made as they are asked for, without
recursion. An arrow points from what shaped to what was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from stillhouse.registry.lineage.graph import Arrow, Derivation, Publication, Way
from stillhouse.registry.lineage.own import Graph
from stillhouse.schemas.digest import Digest

_REMEMBERED = 16 * 1024
"""Publications that are kept at hand: a recipe or a data set recurs below everything."""


@dataclass(frozen=True, kw_only=True)
class Vertex:
    """One artifact."""

    node: int
    digest: Digest
    kind: str
    name: str | None
    depth: int
    """Arrows from the root."""

    def to_json(self) -> dict[str, object]:
        """All but the node, which is a number of this machine's index."""
        return {
            "digest": self.digest,
            "kind": self.kind,
            "name": self.name,
            "depth": self.depth,
        }


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One arrow: `parent` shaped `child`."""

    child: Vertex
    parent: Vertex
    role: str
    circumstance: bool

    def to_json(self) -> dict[str, object]:
        """Both ends by their digests."""
        return {
            "child": self.child.digest,
            "parent": self.parent.digest,
            "role": self.role,
            "circumstance": self.circumstance,
        }


@dataclass(frozen=True, kw_only=True)
class Place:
    """One place of a tree; its artifact's depth is that of this place."""

    vertex: Vertex
    role: str
    """Of the arrow that leads to it; empty at the root."""
    circumstance: bool
    again: bool
    """Its own neighbours are shown where it first appears."""


@dataclass(frozen=True, kw_only=True)
class Subgraph:
    """Artifacts and the arrows between them. Each part can be read once, artifacts before edges."""

    head: Mapping[str, object]
    """What it is a part of: digests, the direction, and which arrows count."""
    artifacts: Iterable[Vertex]
    """Each once."""
    edges: Iterable[Edge]
    """Every arrow between them."""
    tree: Iterable[Place]
    """The same from the root on, depth first: artifacts wherever they appear."""

    def to_json(self) -> dict[str, object]:
        """The whole, which takes room; it is printed piece by piece."""
        return {**self.head, "artifacts": list(self.artifacts), "edges": list(self.edges)}


def closure(lineage: Graph, root: int, way: Way, depth: int | None = None) -> Subgraph:
    """Everything up or down from `root`, or what is within `depth` arrows of it."""
    found = _Closure(lineage, root, way, depth)
    return Subgraph(
        head={"root": lineage.digest(root), "direction": way},
        artifacts=found.artifacts(),
        edges=found.edges(),
        tree=found.tree(),
    )


def derivation(lineage: Graph, root: int, goal: int, found: Derivation) -> Subgraph:
    """The way that was found from `root` to `goal`."""
    steps = (_beginning(root), *found.arrows)
    vertices = [
        _vertex(lineage.publication(step.node), step.node, at) for at, step in enumerate(steps)
    ]
    ends = {"from": lineage.digest(root), "to": lineage.digest(goal), "direction": found.way}
    return Subgraph(
        head=ends,
        artifacts=vertices,
        edges=[
            _edge(near, far, arrow) if found.way == "up" else _edge(far, near, arrow)
            for near, far, arrow in zip(vertices, vertices[1:], found.arrows, strict=False)
        ],
        tree=[_place(vertex, step) for vertex, step in zip(vertices, steps, strict=True)],
    )


class _Closure:
    """Each method makes its pieces as they are asked for."""

    def __init__(self, lineage: Graph, root: int, way: Way, depth: int | None) -> None:
        self._lineage = lineage
        self._root, self._way, self._depth = root, way, depth
        self._published = lru_cache(_REMEMBERED)(lineage.publication)

    @cached_property
    def _depths(self) -> dict[int, int]:
        levels = self._lineage.levels(self._root, self._way, self._depth)
        return {node: at for at, level in enumerate(levels) for node in level}

    def artifacts(self) -> Iterator[Vertex]:
        for node in self._depths:
            yield self._vertex(node)

    def edges(self) -> Iterator[Edge]:
        for node in self._depths:
            for arrow in self._lineage.arrows(node, "up"):
                if arrow.node in self._depths:
                    yield _edge(self._vertex(node), self._vertex(arrow.node), arrow)

    def tree(self) -> Iterator[Place]:
        """Open each artifact once, where it first appears.

        With a depth, again where it appears nearer to the root, so that nothing within so many
        steps is missing.
        """
        opened: dict[int, int] = {}
        leaves: set[int] = set()
        waiting = [(0, _beginning(self._root))]
        while waiting:
            at, arrow = waiting.pop()
            node = arrow.node
            again = node in opened and (self._depth is None or opened[node] <= at)
            yield _place(_vertex(self._published(node), node, at), arrow, again=again)
            if again or node in leaves or at == self._depth:
                continue
            following = self._lineage.arrows(node, self._way)
            if following:
                opened[node] = at
                waiting += [(at + 1, after) for after in reversed(following)]
            else:
                leaves.add(node)

    def _vertex(self, node: int) -> Vertex:
        return _vertex(self._published(node), node, self._depths[node])


def _beginning(root: int) -> Arrow:
    """What leads to a root."""
    return Arrow(node=root, role="", circumstance=False)


def _vertex(found: Publication, node: int, depth: int) -> Vertex:
    return Vertex(
        node=node, digest=found.digest, kind=str(found.kind), name=found.name, depth=depth
    )


def _edge(child: Vertex, parent: Vertex, arrow: Arrow) -> Edge:
    return Edge(child=child, parent=parent, role=arrow.role, circumstance=arrow.circumstance)


def _place(vertex: Vertex, arrow: Arrow, *, again: bool = False) -> Place:
    return Place(vertex=vertex, role=arrow.role, circumstance=arrow.circumstance, again=again)
