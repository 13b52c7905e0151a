"""Walking arrows: nodes by their distance from one of them, and the shortest way between two.

Pure, over numbers. Each level is found as a whole, by set operations on slices of the arrays, for
one step of the interpreter a node instead of one an arrow.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Container, Iterator
from typing import NamedTuple

from registry.adjacency import Side


class Step(NamedTuple):
    """One arrow, seen from one of its ends."""

    node: int
    """The other end."""
    label: int


class Paths:
    """Every arrow in one direction: those of an image, and those that came after it."""

    def __init__(self, side: Side, near: array[int], far: array[int], labels: array[int]) -> None:
        """near, far, labels: the arrows that came after, from `near` to `far`."""
        self._side = side
        self._covered = len(side.start) - 1
        self._more: dict[int, list[Step]] = {}
        for node, other, label in zip(near, far, labels, strict=True):
            self._more.setdefault(node, []).append(Step(other, label))

    def steps(self, node: int) -> Iterator[Step]:
        """The arrows of one node, in the order in which they were recorded."""
        side = self._side
        if node < self._covered:
            run = slice(side.start[node], side.start[node + 1])
            yield from map(Step, side.target[run], side.label[run])
        yield from self._more.get(node, ())

    def levels(self, root: int, leave_out: Collection[int]) -> Iterator[list[int]]:
        """Nodes by their least distance from `root`: itself, then each level, ascending."""
        seen = {root, *leave_out}
        level = [root]
        while level:
            yield level
            fresh = self._beyond(level)
            fresh -= seen
            seen |= fresh
            level = sorted(fresh)

    def _beyond(self, level: list[int]) -> set[int]:
        start, target, covered = self._side.start, self._side.target, self._covered
        found: set[int] = set()
        for node in level:
            if node < covered:
                found.update(target[start[node] : start[node + 1]])
        if self._more:
            for node in self._more.keys() & level:
                found.update(step.node for step in self._more[node])
        return found


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

    Levels are complete on both sides, so whatever is met first lies on a shortest way.
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
