"""Splits never share a tag, never divide a group, and are filled as far as that allows."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from stillhouse.phases.data.records import SPLITS, Split
from stillhouse.phases.dataset.splits import Assignment, Item, assign, shared


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def items(tags: Sequence[Sequence[Hashable]]) -> list[Item]:
    return [Item(key=key(i), tags=frozenset(each)) for i, each in enumerate(tags)]


def wanted(train: int, held_out: int, evaluation: int) -> dict[Split, int]:
    return {"train": train, "held_out": held_out, "evaluation": evaluation}


def leaks(found: Assignment, given_items: list[Item]) -> int:
    tags = {item.key: item.tags for item in given_items}
    return shared([[tags[k] for k in found.splits[s]] for s in SPLITS])


TAGS = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=3), max_size=40)
SIZES = st.builds(wanted, st.integers(1, 12), st.integers(1, 6), st.integers(1, 6))


@given(TAGS, SIZES)
def test_no_tag_is_ever_in_two_splits(tags: list[list[Hashable]], sizes: dict[Split, int]) -> None:
    given_items = items(tags)
    assert leaks(assign(given_items, sizes), given_items) == 0


@given(TAGS, SIZES)
def test_every_example_goes_to_one_place(
    tags: list[list[Hashable]], sizes: dict[Split, int]
) -> None:
    given_items = items(tags)
    found = assign(given_items, sizes)
    placed = [k for s in SPLITS for k in found.splits[s]] + found.surplus
    assert sorted(placed) == sorted(item.key for item in given_items)
    assert sum(found.groups) == len(given_items)
    for split in SPLITS:
        assert found.sizes[split] <= sizes[split]
        assert found.splits[split] == sorted(found.splits[split])


@given(TAGS, SIZES, st.randoms())
def test_the_order_of_the_sources_changes_nothing(
    tags: list[list[Hashable]], sizes: dict[Split, int], random: object
) -> None:
    given_items = items(tags)
    shuffled = list(given_items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types it as object
    assert assign(shuffled, sizes).splits == assign(given_items, sizes).splits


@given(SIZES, st.integers(0, 9))
def test_examples_that_share_nothing_always_fill_the_splits(
    sizes: dict[Split, int], more: int
) -> None:
    found = assign(items([[i] for i in range(sum(sizes.values()) + more)]), sizes)
    assert found.sizes == sizes
    assert len(found.surplus) == more


def test_sharing_passes_through_a_third() -> None:
    found = assign(items([["a"], ["b"], ["a", "b"]]), wanted(3, 3, 3))
    assert found.groups == (3,)
    assert sorted(found.sizes.values()) == [0, 0, 3]


def test_a_group_too_large_for_any_split_fills_one_and_leaves_the_rest() -> None:
    tags: Sequence[Sequence[Hashable]] = [*[["big"]] * 10, *([i] for i in range(4))]
    found = assign(items(tags), wanted(5, 2, 2))
    assert found.sizes == wanted(5, 2, 2)
    assert len(found.surplus) == 5


def test_shared_counts_each_tag_once() -> None:
    assert shared([[["a", "b"], ["a"]], [["b", "c"]], [["a", "b"], ["d"]]]) == 2
    assert shared([[], [], []]) == 0


def test_large_groups_choose_first_when_splits_would_stay_short() -> None:
    tags: Sequence[Sequence[Hashable]] = [*[["five"]] * 5, *([i] for i in range(4))]
    for offset in range(20):
        moved = [Item(key=key(offset * 100 + i), tags=frozenset(t)) for i, t in enumerate(tags)]
        assert assign(moved, wanted(5, 2, 2)).sizes == wanted(5, 2, 2)
