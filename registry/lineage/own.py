"""The lineage that one plan's own runs recorded, over the nodes of an index.

An index holds every arrow that was ever recorded of a digest, whichever run made it. Runs that make
equal bytes share a digest, and so their arrows. Here an artifact has only the arrows that it is
given, as a manifest or a plan's provenance tells them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from stillhouse.registry.lineage.graph import Arrow, Derivation, Lineage, Publication, Way, turned
from stillhouse.schemas.artifact import Parent
from stillhouse.schemas.digest import Digest


class Graph(Protocol):
    """What a part of a lineage is taken from."""

    def digest(self, node: int) -> Digest:
        """The artifact of a node."""
        ...

    def publication(self, node: int) -> Publication:
        """Where it was first published."""
        ...

    def arrows(self, node: int, way: Way) -> tuple[Arrow, ...]:
        """One step in one direction."""
        ...

    def levels(self, node: int, way: Way, depth: int | None = None) -> list[list[int]]:
        """The closure, by distance."""
        ...


class OwnLineage:
    """Arrows lead upwards only; a way between two may be found from either end."""

    def __init__(self, lineage: Lineage, parents: Mapping[Digest, Sequence[Parent]]) -> None:
        """parents: of each artifact, what its own run was given. Raises KeyError."""
        self._lineage = lineage
        self.digest, self.publication = lineage.digest, lineage.publication
        self._arrows = {
            lineage.node(child): tuple(
                dict.fromkeys(self._arrow(p) for p in given if p.digest != child)
            )
            for child, given in parents.items()
        }

    def arrows(self, node: int, way: Way) -> tuple[Arrow, ...]:
        """One step up. Raises ValueError for the other way."""
        if way != "up":
            raise ValueError(way)
        return self._arrows.get(node, ())

    def levels(self, node: int, way: Way, depth: int | None = None) -> list[list[int]]:
        """The artifact itself, then those one step away, and so on up to `depth`."""
        seen, found = {node}, [[node]]
        while depth is None or len(found) <= depth:
            nearer = [arrow.node for near in found[-1] for arrow in self.arrows(near, way)]
            following = sorted(set(nearer) - seen)
            if not following:
                break
            seen.update(following)
            found.append(following)
        return found

    def derivation(
        self, node: int, other: int, *, circumstances: bool = False
    ) -> Derivation | None:
        """A shortest way between two artifacts, up or down; `circumstances`: also over those."""
        up = self._way_up(node, other, circumstances=circumstances)
        if up is not None:
            return Derivation(way="up", arrows=up)
        down = self._way_up(other, node, circumstances=circumstances)
        return None if down is None else Derivation(way="down", arrows=turned(down, other))

    def _way_up(self, below: int, above: int, *, circumstances: bool) -> tuple[Arrow, ...] | None:
        ways: dict[int, tuple[Arrow, ...]] = {below: ()}
        waiting = [below]
        for near in waiting:  # grows while it is walked
            for arrow in self.arrows(near, "up"):
                if arrow.node not in ways and (circumstances or not arrow.circumstance):
                    ways[arrow.node] = (*ways[near], arrow)
                    waiting.append(arrow.node)
        return ways.get(above)

    def shared(self, root: int) -> int:
        """How many artifacts behind `root` other runs made too, of something else."""
        nodes = (node for level in self.levels(root, "up") for node in level)
        return sum(
            bool(set(self._lineage.arrows(node, "up")) - set(self._arrows[node]))
            for node in nodes
            if node in self._arrows
        )

    def _arrow(self, parent: Parent) -> Arrow:
        return Arrow(
            node=self._lineage.node(parent.digest),
            role=parent.role,
            circumstance=parent.circumstance,
        )
