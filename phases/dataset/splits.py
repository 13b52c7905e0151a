"""Splits in which no content and no function name is shared, and the check that it is so.

Examples that share a tag (a function name, or their content) belong together; so do those that
share one with any of these (union-find). Such a group is never divided between splits. Groups come
in the order of their smallest content hash, which nobody chooses. Each goes, whole, to the split
that is farthest from what was asked among those it still fits; groups that fit none fill what is
missing at the end, and the rest of them is left out. Should that leave a split short, the largest
groups choose first instead: less even, but it wastes least.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from stillhouse.phases.data.records import SPLITS, Split
from stillhouse.schemas.digest import Digest


@dataclass(frozen=True, kw_only=True)
class Item:
    """One example, as far as splitting goes."""

    key: Digest
    tags: frozenset[Hashable]
    """What no other split may share."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Which example went where."""

    splits: dict[Split, list[Digest]]
    """Keys in order of their hash."""
    surplus: list[Digest]
    """Keys that no split needed."""
    groups: tuple[int, ...]
    """Sizes of the groups, largest first."""

    @property
    def sizes(self) -> dict[Split, int]:
        """Examples per split."""
        return {split: len(keys) for split, keys in self.splits.items()}


def assign(items: Sequence[Item], wanted: Mapping[Split, int]) -> Assignment:
    """Fill the splits as far as the items allow; whoever asked compares `sizes`."""
    by_hash = _groups(items)
    found = _fill(by_hash, wanted, cut_at_once=False)
    if found.sizes == dict(wanted):
        return found
    return _fill(sorted(by_hash, key=len, reverse=True), wanted, cut_at_once=True)


def _fill(
    groups: Sequence[list[Digest]], wanted: Mapping[Split, int], *, cut_at_once: bool
) -> Assignment:
    """Give each group to a split, in order; cut those that fit none, at once or at the end."""
    splits: dict[Split, list[Digest]] = {split: [] for split in SPLITS}
    surplus: list[Digest] = []
    misfits: list[list[Digest]] = []

    def room(split: Split) -> int:
        return wanted[split] - len(splits[split])

    def cut(group: list[Digest]) -> None:
        neediest: Split = max(SPLITS, key=room)
        kept = room(neediest)
        splits[neediest] += group[:kept]
        surplus.extend(group[kept:])

    for group in groups:
        fitting: list[Split] = [split for split in SPLITS if len(group) <= room(split)]
        if fitting:
            splits[max(fitting, key=lambda s: room(s) / wanted[s])] += group
        elif cut_at_once:
            cut(group)
        else:
            misfits.append(group)
    for group in misfits:
        cut(group)
    return Assignment(
        splits={split: sorted(keys) for split, keys in splits.items()},
        surplus=surplus,
        groups=tuple(sorted(map(len, groups), reverse=True)),
    )


def shared(splits: Iterable[Iterable[Iterable[Hashable]]]) -> int:
    """How many tags occur in more than one split; each split is its examples' tags.

    Written without the grouping above, so that a mistake there cannot hide itself.
    """
    seen = [{tag for tags in split for tag in tags} for split in splits]
    return sum(sum(tag in other for other in seen) > 1 for tag in set().union(*seen))


def _groups(items: Sequence[Item]) -> list[list[Digest]]:
    """The keys of each group in order; groups in the order of their first key."""
    root: dict[Hashable, Hashable] = {}

    def find(tag: Hashable) -> Hashable:
        while (above := root.setdefault(tag, tag)) != tag:
            root[tag] = root[above]  # halve the path
            tag = above
        return tag

    for item in items:
        first, *others = (item.key, *item.tags)
        for other in others:
            root[find(other)] = find(first)
    groups: dict[Hashable, list[Digest]] = {}
    for key in sorted(item.key for item in items):
        groups.setdefault(find(key), []).append(key)
    return list(groups.values())
