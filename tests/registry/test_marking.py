"""Which objects are needed, which may go: every decision beside a model that asks each object."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from stillhouse.registry.keeping.marking import Seen, Share, Stock, mark, shares, sweep_order

OBJECTS = [f"{n:064x}" for n in range(6)]
ARTIFACTS = [f"{n:064x}" for n in range(100, 104)]
NOW, GRACE = datetime(2026, 2, 1, tzinfo=UTC), timedelta(microseconds=100)
PASSED, AHEAD = "2026-01-01T00:00:00.000000Z", "2026-03-01T00:00:00.000000Z"


def _ns(microseconds: int) -> int:
    """Unix time of so many microseconds after now."""
    return int(NOW.timestamp()) * 10**9 + microseconds * 1000


OLD = _ns(-100)
"""What was written then, or earlier, is older than the grace."""

objects = st.sets(st.sampled_from(OBJECTS))
seen = st.dictionaries(
    st.sampled_from(OBJECTS),
    st.builds(
        Seen,
        st.integers(1, 9),
        st.sampled_from([0, _ns(-150), OLD - 1, OLD, OLD + 1, _ns(-50), _ns(100)]),
    ),
)
stocks = st.builds(
    Stock,
    oldest_lease=st.sampled_from([None, _ns(-150), OLD, _ns(-50), _ns(1000)]),
    held=objects.map(frozenset),
    needs=st.dictionaries(st.sampled_from(ARTIFACTS), objects.map(frozenset)),
    remnants=objects.map(frozenset),
    placed=seen,
    condemned=seen,
)
kepts = st.sets(st.sampled_from(ARTIFACTS))
untils = st.dictionaries(st.sampled_from(ARTIFACTS), st.sampled_from([PASSED, AHEAD]))


@given(stock=stocks, kept=kepts, until=untils)
def test_nothing_goes_that_anybody_keeps_was_not_told_of_or_may_rely_on(
    stock: Stock, kept: set[str], until: dict[str, str]
) -> None:
    marks = mark(stock, kept, until, at=NOW, grace=GRACE)
    for digest in marks.due:
        needing = [a for a, needed in stock.needs.items() if digest in needed]
        assert digest not in stock.held
        assert all(a not in kept and until.get(a) == PASSED for a in needing)
        at = stock.condemned[digest].at_ns
        assert stock.oldest_lease is None or at < stock.oldest_lease
        assert at <= OLD or (digest in stock.remnants and not needing)
    for digest in marks.doomed:
        assert digest not in stock.held
        assert not any(a in kept and digest in needed for a, needed in stock.needs.items())
        assert stock.placed[digest].at_ns <= OLD


@given(stock=stocks, kept=kepts, until=untils)
def test_whatever_is_condemned_and_kept_comes_back_and_nothing_has_two_fates(
    stock: Stock, kept: set[str], until: dict[str, str]
) -> None:
    marks = mark(stock, kept, until, at=NOW, grace=GRACE)
    assert marks.restored == stock.condemned.keys() & marks.live
    assert marks.restored | marks.due | marks.waiting == stock.condemned.keys()
    assert not marks.due & marks.waiting
    assert not (marks.due | marks.waiting | marks.doomed) & marks.live


@given(stock=stocks, kept=kepts, until=untils)
def test_what_only_a_lease_holds_back_is_what_would_be_due_without_any(
    stock: Stock, kept: set[str], until: dict[str, str]
) -> None:
    marks = mark(stock, kept, until, at=NOW, grace=GRACE)
    alone = replace(stock, oldest_lease=None)
    later = mark(alone, kept, until, at=NOW, grace=GRACE)
    assert marks.leased <= marks.waiting
    assert later.due == marks.due | marks.leased


@given(stock=stocks, until=untils)
def test_what_is_old_told_unneeded_and_unleased_does_go(
    stock: Stock, until: dict[str, str]
) -> None:
    """Else a store would only ever grow."""
    marks = mark(stock, (), until, at=NOW, grace=GRACE)
    for digest, found in stock.condemned.items():
        told = all(until.get(a) == PASSED for a, n in stock.needs.items() if digest in n)
        unleased = stock.oldest_lease is None or found.at_ns < stock.oldest_lease
        if told and unleased and found.at_ns <= OLD and digest not in stock.held:
            assert digest in marks.due


def test_lists_of_files_are_swept_after_the_files() -> None:
    """Else the files of a half swept folder would be told as nobody's."""
    first, second, *_ = OBJECTS
    assert sweep_order({first, second}, {first}) == [second, first]
    assert sweep_order({second, first}, {}) == [first, second]


@given(
    holders=st.dictionaries(st.integers(0, 5), objects),
    sizes=st.dictionaries(st.sampled_from(OBJECTS), st.integers(0, 99)),
)
def test_what_holders_have_for_their_own_and_what_is_shared_add_up(
    holders: dict[int, set[str]], sizes: dict[str, int]
) -> None:
    each, shared = shares(holders, sizes)
    held = {digest for digests in holders.values() for digest in digests}
    assert sum(share.unique for share in each.values()) + shared == sum(
        size for digest, size in sizes.items() if digest in held
    )
    for holder, share in each.items():
        others = {d for other, digests in holders.items() if other != holder for d in digests}
        gone = sum(sizes.get(digest, 0) for digest in holders[holder] - others)
        assert share == Share(total=share.unique + share.shared, unique=gone)
