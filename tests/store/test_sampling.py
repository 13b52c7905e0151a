from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.store.check import sampling


def test_the_bound_is_the_rule_of_three_for_many_draws() -> None:
    assert sampling.bound(1000) == pytest.approx(3 / 1000, rel=0.01)
    assert sampling.bound(1) == pytest.approx(0.95)
    assert sampling.bound(0) == 1.0


@given(st.lists(st.integers(0, 10**9), max_size=60), st.floats(0.01, 0.99))
def test_as_many_draws_as_needed_and_no_more(sizes: list[int], share: float) -> None:
    draws = sampling.draws_for(sizes, share)
    total = sum(sizes)
    if total == 0:
        assert draws == 0
        return
    assert sampling._expected(sizes, total, draws) >= share * total * (1 - 1e-9)
    if draws > 1:
        assert sampling._expected(sizes, total, draws - 1) < share * total


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(0, 30), st.integers())
def test_what_is_chosen_holds_bytes_and_comes_once_in_order(
    sizes: list[int], draws: int, seed: int
) -> None:
    found = sampling.chosen(sizes, draws, Random(seed))
    assert found == sorted(set(found))
    assert all(sizes[place] > 0 for place in found)
    assert bool(found) == (sum(sizes) > 0 and draws > 0)


def test_the_bound_is_broken_in_one_of_twenty_stores_at_most() -> None:
    """Damage just above the bound must be met by 95 of 100 samples."""
    chance = Random(11)
    sizes = [chance.randrange(1, 1000) for _ in range(400)]
    draws = sampling.draws_for(sizes, 0.3)
    limit = sampling.bound(draws) * sum(sizes)
    missed, rounds = 0, 400
    for _ in range(rounds):
        damaged: set[int] = set()
        places = list(range(len(sizes)))
        chance.shuffle(places)
        for place in places:
            if sum(sizes[one] for one in damaged) >= limit:
                break
            damaged.add(place)
        missed += damaged.isdisjoint(sampling.chosen(sizes, draws, chance))
    assert missed / rounds < 0.08
