"""Walking arrows: nodes by their distance from one of them, and the shortest way between two.

Pure, over numbers. A level is found as a whole and kept ascending, so that the arrays are read in
their order. Small closures are kept in sets, so that their cost is that of what they reach.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from typing import NamedTuple

from stillhouse.registry.lineage.index import Side

_MANY = 2048
"""Nodes of a closure beyond which they are marked in an array, and no longer kept in a set."""


class Step(NamedTuple):
    """One arrow, seen from one of its ends."""

    node: int
    """The other end."""
    label: int


class Paths:
    """Every arrow in one direction: those of an image, and those that came after it."""

    def __init__(
        self, side: Side, total: int, near: array[int], far: array[int], labels: array[int]
    ) -> None:
        """near, far, labels: the arrows that came after, from `near` to `far`. total: of nodes."""
        self._side = side
        self._image_nodes = len(side.start) - 1
        self._total = total
        self._more: dict[int, list[Step]] = {}
        for node, other, label in zip(near, far, labels, strict=True):
            self._more.setdefault(node, []).append(Step(other, label))

    def steps(self, node: int) -> Iterator[Step]:
        """The arrows of one node, in the order in which they were recorded."""
        side = self._side
        if node < self._image_nodes:
            run = slice(side.start[node], side.start[node + 1])
            yield from map(Step, side.target[run], side.label[run])
        yield from self._more.get(node, ())

    def levels(self, root: int, leave_out: Collection[int]) -> Iterator[list[int]]:
        """Nodes by their least distance from `root`: itself, then each level, ascending."""
        seen = {root, *leave_out}
        level = [root]
        while level and len(seen) < _MANY:
            yield level
            fresh = self._beyond(level) - seen
            seen |= fresh
            level = sorted(fresh)
        if level:
            yield from self._wide_levels(level, seen)

    def _beyond(self, level: list[int]) -> set[int]:
        start, target = self._side.start, self._side.target
        found = self._added(level)
        for node in self._covered(level):
            found.update(target[start[node] : start[node + 1]])
        return found

    def _wide_levels(self, level: list[int], seen: Iterable[int]) -> Iterator[list[int]]:
        """The same, from some level on: a mark for each node there is costs less than a set."""
        start, target = self._side.start, self._side.target
        marks = bytearray(self._total)
        for node in seen:
            marks[node] = 1
        while level:
            yield level
            following = [node for node in self._added(level) if not marks[node]]
            for node in following:
                marks[node] = 1
            for node in self._covered(level):
                for other in target[start[node] : start[node + 1]]:
                    if not marks[other]:
                        marks[other] = 1
                        following.append(other)
            following.sort()  # so that the arrays are read in their order
            level = following

    def _covered(self, level: list[int]) -> list[int]:
        """Those of an ascending level that the image knows."""
        return level[: bisect_left(level, self._image_nodes)]

    def _added(self, level: list[int]) -> set[int]:
        """What arrows that came after the image lead to."""
        known = self._more.keys() & level if self._more else ()
        return {step.node for node in known for step in self._more[node]}


def shortest(
    root: int, goal: int, up: Paths, down: Paths, follow: Callable[[Step], bool]
) -> list[Step] | None:
    """The steps of a shortest way up from `root` to `goal`, over arrows that `follow` accepts.

    None when there is no way. Searched from both ends, always further where fewer nodes wait, so
    that neither a wide past nor a wide future is walked in vain.
    """
    if root == goal:
        return []
    above: dict[int, Step] = {root: Step(root, 0)}
    below: dict[int, Step] = {goal: Step(goal, 0)}
    high, low = [root], [goal]
    while high and low:
        if len(high) <= len(low):
            high, met = _expanded(high, above, below, up, follow)
        else:
            low, met = _expanded(low, below, above, down, follow)
        if met is not None:
            return _joined(met, above, below, root, goal)
    return None


def _expanded(
    level: list[int],
    reached: dict[int, Step],
    opposite: Container[int],
    paths: Paths,
    follow: Callable[[Step], bool],
) -> tuple[list[int], int | None]:
    """The next level, and the node at which the two searches met, if they did.

    Levels are complete on both sides, so the node that is met first lies on a shortest way.
    """
    following = []
    for node in level:
        for step in paths.steps(node):
            if step.node in reached or not follow(step):
                continue
            reached[step.node] = Step(node, step.label)
            if step.node in opposite:
                return [], step.node
            following.append(step.node)
    return following, None


def _joined(
    met: int, above: dict[int, Step], below: dict[int, Step], root: int, goal: int
) -> list[Step]:
    way = []
    node = met
    while node != root:
        before = above[node]
        way.append(Step(node, before.label))
        node = before.node
    way.reverse()
    node = met
    while node != goal:
        way.append(below[node])
        node = way[-1].node
    return way
