"""Lineage: closures, arrows and ways agree with a walk by hand, however the index came about."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.registry.lineage import graph as lineage
from stillhouse.registry.lineage import walks
from stillhouse.registry.lineage.graph import Arrow, Lineage
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import ArtifactPublished, Payload, PlanRequested, TagMoved

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def digest(number: int) -> str:
    return f"{number + 1:08x}" * 8


def number(text: str) -> int:
    return int(text[:8], 16) - 1


def made(of: int, *parents: Parent, **more: Any) -> ArtifactPublished:
    fields: dict[str, Any] = {"kind": Kind.DATASET, "form": "blob", "size": 1, "origin": "imported"}
    return ArtifactPublished(digest=digest(of), parents=parents, **fields | more)


def parent(of: int, role: str = "source", *, circumstance: bool = False) -> Parent:
    return Parent(role=role, digest=digest(of), circumstance=circumstance)


def ledger_in(folder: Path) -> Ledger:
    return Ledger(folder / "events.log", lambda: NOON, Actor(user="ada", host="h"))


def opened(folder: Path) -> Lineage:
    return Lineage(folder / "events.log", folder / "lineage.idx")


def levels(found: Lineage, of: int, way: lineage.Way, depth: int | None = None) -> list[set[int]]:
    told = found.levels(found.node(digest(of)), way, depth)
    return [{number(found.digest(node)) for node in level} for level in told]


def arrows(found: Lineage, of: int, way: lineage.Way) -> list[tuple[int, str, bool]]:
    told = found.arrows(found.node(digest(of)), way)
    return [(number(found.digest(a.node)), a.role, a.circumstance) for a in told]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every event goes into the index at once."""
    monkeypatch.setattr(lineage, "_TAIL", 0)
    monkeypatch.setattr(lineage, "_SHARE", 1_000_000)


# -- closures -----------------------------------------------------------------------------------


@pytest.fixture(params=["tail", "index"])
def kept(request: pytest.FixtureRequest) -> str:
    """Whether answers come from the ledger's end or from the index."""
    if request.param == "index":
        request.getfixturevalue("eager")
    return str(request.param)


@pytest.mark.usefixtures("kept")
def test_a_chain_is_walked_both_ways_with_roles(tmp_path: Path) -> None:
    ledger_in(tmp_path).append(
        [
            made(1),
            made(2, parent(1, "teacher")),
            made(3, parent(2), parent(9, "environment", circumstance=True)),
            made(9),
        ]
    )
    found = opened(tmp_path)
    assert levels(found, 3, "up") == [{3}, {2, 9}, {1}]
    assert levels(found, 3, "up", 1) == [{3}, {2, 9}]
    assert levels(found, 1, "down") == [{1}, {2}, {3}]
    assert levels(found, 1, "up") == [{1}]
    assert arrows(found, 3, "up") == [(2, "source", False), (9, "environment", True)]
    assert arrows(found, 9, "down") == [(3, "environment", True)]


@pytest.mark.usefixtures("kept")
def test_a_cycle_ends(tmp_path: Path) -> None:
    ledger_in(tmp_path).append([made(1, parent(3)), made(2, parent(1)), made(3, parent(2))])
    found = opened(tmp_path)
    assert levels(found, 1, "up") == [{1}, {3}, {2}]
    assert levels(found, 1, "down") == [{1}, {2}, {3}]


@pytest.mark.usefixtures("kept")
def test_a_parent_that_was_never_published_is_no_artifact_until_it_is(tmp_path: Path) -> None:
    ledger = ledger_in(tmp_path)
    ledger.append([made(2, parent(1), parent(7))])
    found = opened(tmp_path)
    assert levels(found, 2, "up") == [{2}]
    assert found.resolve(digest(1)) is None
    with pytest.raises(KeyError):
        found.node(digest(1))
    ledger.append([made(1, name="late")])
    found = opened(tmp_path)
    assert levels(found, 2, "up") == [{2}, {1}]
    assert found.publication(found.node(digest(1))).name == "late"


@pytest.mark.usefixtures("kept")
def test_a_second_publication_adds_its_parents_and_repeats_none(tmp_path: Path) -> None:
    ledger = ledger_in(tmp_path)
    ledger.append([made(1), made(5), made(2, parent(1), name="first", kind=Kind.CHECKPOINT)])
    opened(tmp_path)
    ledger.append([made(2, parent(1), parent(5), parent(1, "teacher"), name="second")])
    found = opened(tmp_path)
    assert arrows(found, 2, "up") == [
        (1, "source", False),
        (5, "source", False),
        (1, "teacher", False),
    ]
    assert arrows(found, 1, "down") == [(2, "source", False), (2, "teacher", False)]
    told = found.publication(found.node(digest(2)))
    assert (told.name, told.kind, told.seq) == ("first", Kind.CHECKPOINT, 3)


# -- names --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("kept")
def test_a_prefix_a_tag_and_the_latest_of_a_kind_name_an_artifact(tmp_path: Path) -> None:
    ledger = ledger_in(tmp_path)
    ledger.append([made(1), made(2), TagMoved(name="good", digest=digest(1))])
    opened(tmp_path)
    ledger.append([made(1), made(3, kind=Kind.REPORT), TagMoved(name="best", digest=digest(3))])
    found = opened(tmp_path)
    assert found.resolve("good") == digest(1)
    assert found.resolve("best") == digest(3)
    assert found.resolve("dataset@latest") == digest(1)
    assert found.resolve("report@latest") == digest(3)
    assert found.resolve("release@latest") is None
    assert found.resolve(digest(2)[:8]) == digest(2)
    assert found.resolve(digest(2)) == digest(2)
    assert found.resolve(digest(2) + "0") is None
    assert found.resolve("0000") is None, "three artifacts begin so"
    assert found.resolve("00000002"[:3]) is None, "too short"
    assert found.resolve("nothing") is None


# -- ways ---------------------------------------------------------------------------------------


def way(found: Lineage, one: int, other: int, *, circumstances: bool = False) -> list[Any] | None:
    told = found.derivation(
        found.node(digest(one)), found.node(digest(other)), circumstances=circumstances
    )
    if told is None:
        return None
    return [told.way, *((number(found.digest(a.node)), a.role) for a in told.arrows)]


@pytest.mark.usefixtures("kept")
def test_the_shortest_way_is_found_from_either_end_with_the_roles_along_it(tmp_path: Path) -> None:
    ledger_in(tmp_path).append(
        [
            made(0),
            made(1, parent(0, "a")),
            made(2, parent(1, "b")),
            made(3, parent(2, "c"), parent(1, "d")),
            made(4, parent(3, "e"), parent(0, "recipe", circumstance=True)),
            made(8),
        ]
    )
    found = opened(tmp_path)
    assert way(found, 4, 0) == ["up", (3, "e"), (1, "d"), (0, "a")]
    assert way(found, 0, 4) == ["down", (1, "a"), (3, "d"), (4, "e")]
    assert way(found, 4, 0, circumstances=True) == ["up", (0, "recipe")]
    assert way(found, 3, 3) == ["up"]
    assert way(found, 2, 8) is None
    assert way(found, 8, 2) is None


# -- any graph, any history of the index ----------------------------------------------------------

GRAPH = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab"), st.booleans()), max_size=3),
    ),
    min_size=1,
    max_size=14,
)


@given(GRAPH, st.sets(st.integers(0, 14)), st.tuples(st.integers(0, 6), st.integers(0, 12)))
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_graph_is_walked_like_by_hand_wherever_the_index_ends(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    publications: list[tuple[int, list[tuple[int, str, bool]]]],
    looks: set[int],
    limits: tuple[int, int],
) -> None:
    monkeypatch.setattr(lineage, "_TAIL", limits[0])
    monkeypatch.setattr(walks, "_MANY", limits[1])
    folder = tmp_path_factory.mktemp("graph")
    ledger = ledger_in(folder)
    for place, (of, parents) in enumerate(publications):
        if place in looks:
            opened(folder)
        ledger.append([made(of, *(parent(p, r, circumstance=c) for p, r, c in parents))])
    found = opened(folder)
    published = {of for of, _ in publications}
    edges = {(c, p, r, x) for c, parents in publications for p, r, x in parents if p in published}
    for root in published:
        up = {(c, p) for c, p, _, _ in edges}
        assert levels(found, root, "up") == by_hand(root, up)
        assert levels(found, root, "down") == by_hand(root, {(p, c) for c, p in up})
        assert set(arrows(found, root, "up")) == {e[1:] for e in edges if e[0] == root}
        assert len(arrows(found, root, "up")) == len({e[1:] for e in edges if e[0] == root})
        assert set(arrows(found, root, "down")) == {(c, r, x) for c, p, r, x in edges if p == root}
        firm = {(c, p) for c, p, _, x in edges if not x}
        for other in published:
            check_way(found, root, other, firm)


def check_way(found: Lineage, one: int, other: int, firm: set[tuple[int, int]]) -> None:
    ups, downs = by_hand(one, firm), by_hand(other, firm)
    up = [depth for depth, level in enumerate(ups) if other in level]
    down = [depth for depth, level in enumerate(downs) if one in level]
    told = way(found, one, other)
    if not up and not down:
        assert told is None
        return
    assert told is not None
    assert told[0] == ("up" if up else "down")
    stops = [one, *(node for node, _ in told[1:])]
    assert len(stops) - 1 == (up or down)[0]
    assert stops[-1] == other
    pairs = list(pairwise(stops))
    assert {pair if up else pair[::-1] for pair in pairs} <= firm


def by_hand(root: int, arrows: set[tuple[int, int]]) -> list[set[int]]:
    found = [{root}]
    while found[-1]:
        known = set[int]().union(*found)
        found.append({far for near, far in arrows if near in found[-1]} - known)
    return found[:-1]


# -- the index is derived -------------------------------------------------------------------------


def chain_of(length: int) -> Iterable[Payload]:
    return [made(n, *([parent(n - 1)] if n else [])) for n in range(length)]


@pytest.mark.usefixtures("eager")
def test_what_was_indexed_is_not_read_from_the_ledger_again(tmp_path: Path) -> None:
    ledger_in(tmp_path).append([*chain_of(4)])
    opened(tmp_path)
    log = tmp_path / "events.log"
    first, rest = log.read_bytes().split(b"\n", 1)
    log.write_bytes(first.replace(b"dataset", b"release") + b"\n" + rest)  # nobody looks there
    assert levels(opened(tmp_path), 3, "up") == [{3}, {2}, {1}, {0}]


@pytest.mark.usefixtures("eager")
def test_what_is_shown_is_verified_in_the_ledger(tmp_path: Path) -> None:
    ledger_in(tmp_path).append([*chain_of(4)])
    found = opened(tmp_path)
    log = tmp_path / "events.log"
    log.write_bytes(log.read_bytes().replace(b"dataset", b"release", 1))
    found = opened(tmp_path)
    with pytest.raises(IntegrityError, match="broken at event 1"):
        found.publication(found.node(digest(0)))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("harm", ["emptied", "cut", "another", "gone", "newer", "a folder"])
def test_an_index_that_can_not_be_used_is_built_again(tmp_path: Path, harm: str) -> None:
    ledger_in(tmp_path).append([*chain_of(4)])
    opened(tmp_path)
    index = tmp_path / "lineage.idx"
    good = index.read_bytes()
    index.unlink()
    if harm == "a folder":
        index.mkdir()
    elif harm != "gone":
        other = {"emptied": b"", "cut": good[:-9], "another": b"x" * len(good)}
        index.write_bytes(other.get(harm, good[:8] + b"\x02" + good[9:]))
    assert levels(opened(tmp_path), 3, "up") == [{3}, {2}, {1}, {0}]
    if harm != "a folder":
        assert index.read_bytes() == good


@pytest.mark.usefixtures("eager")
def test_a_ledger_that_was_replaced_or_cut_is_read_from_its_start(tmp_path: Path) -> None:
    ledger_in(tmp_path).append([*chain_of(4)])
    opened(tmp_path)
    log = tmp_path / "events.log"
    log.unlink()
    ledger_in(tmp_path).append([made(9), made(3, parent(9)), made(1)])
    assert levels(opened(tmp_path), 3, "up") == [{3}, {9}]
    log.unlink()
    ledger_in(tmp_path).append([made(3)])
    assert levels(opened(tmp_path), 3, "up") == [{3}]
    log.unlink()
    assert opened(tmp_path).resolve("dataset@latest") is None


@pytest.mark.usefixtures("eager")
def test_every_flipped_byte_is_noticed_or_changes_no_answer(tmp_path: Path) -> None:
    ledger_in(tmp_path).append(
        [
            *chain_of(3),
            made(3, parent(0, "x", circumstance=True), parent(8), name="n"),
            TagMoved(name="good", digest=digest(1)),
            PlanRequested(plan=digest(1)),
        ]
    )
    index = tmp_path / "lineage.idx"
    right = everything(opened(tmp_path))
    good = index.read_bytes()
    for place in range(len(good)):
        index.write_bytes(good[:place] + bytes([good[place] ^ 0x41]) + good[place + 1 :])
        assert everything(opened(tmp_path)) == right, place


def everything(found: Lineage) -> list[Any]:
    nodes = [found.node(digest(of)) for of in range(4)]
    names = ("good", "dataset@latest", digest(2)[:8], digest(8)[:8])
    return [
        [(found.levels(n, w), found.arrows(n, w)) for n in nodes for w in ("up", "down")],
        [found.publication(n) for n in nodes],
        [found.resolve(name) for name in names],
        found.derivation(nodes[0], nodes[2]),
    ]


def test_nodes_keep_their_numbers_when_the_index_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "_TAIL", 2)
    ledger = ledger_in(tmp_path)
    for of in (3, 1, 4, 5, 9, 2, 6):
        ledger.append([made(of, parent(of + 1))])
        before = [a for o in (3, 1) if o == 3 or of != 3 for a in nodes_of(opened(tmp_path), o)]
        (tmp_path / "lineage.idx").unlink(missing_ok=True)
        after = [a for o in (3, 1) if o == 3 or of != 3 for a in nodes_of(opened(tmp_path), o)]
        assert before == after


def nodes_of(found: Lineage, of: int) -> list[int | Arrow]:
    node = found.node(digest(of))
    return [node, *found.arrows(node, "up"), *found.arrows(node, "down")]


@pytest.mark.usefixtures("eager")
def test_a_folder_that_can_not_be_written_only_keeps_no_index(tmp_path: Path) -> None:
    ledger_in(tmp_path).append([*chain_of(4)])
    (tmp_path / "lineage.idx.new").mkdir()  # root may write anywhere, but not here
    assert levels(opened(tmp_path), 3, "up") == [{3}, {2}, {1}, {0}]
    assert not (tmp_path / "lineage.idx").exists()
