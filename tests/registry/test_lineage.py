"""Lineage by SQL agrees with a walk by hand, whatever the graph."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.ledger import Ledger
from registry.lineage import Relative, ancestors, descendants
from registry.projection import Projection
from schemas.artifact import Kind, Parent
from schemas.event import Actor
from schemas.events import ArtifactPublished

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def digest(number: int) -> str:
    return f"{number:08x}" * 8


def made(number: int, *parents: Parent) -> ArtifactPublished:
    return ArtifactPublished(
        digest=digest(number),
        kind=Kind.DATASET,
        form="blob",
        size=1,
        origin="imported",
        parents=parents,
    )


def registry(folder: Path, *facts: ArtifactPublished) -> Projection:
    ledger = Ledger(folder / "events.log", lambda: NOON, Actor(user="ada", host="h"))
    ledger.append(facts)
    return Projection(folder / "registry.duckdb", ledger.path)


def parent(number: int, role: str = "source", *, circumstance: bool = False) -> Parent:
    return Parent(role=role, digest=digest(number), circumstance=circumstance)


def relative(number: int, depth: int, *roles: str, circumstance: bool = False) -> Relative:
    return Relative(
        digest=digest(number),
        kind=Kind.DATASET,
        depth=depth,
        roles=roles or ("source",),
        circumstance=circumstance,
    )


def test_a_chain_is_walked_both_ways_with_depth_and_role(tmp_path: Path) -> None:
    found = registry(
        tmp_path,
        made(1),
        made(2, parent(1, "teacher")),
        made(3, parent(2), parent(9, "environment", circumstance=True)),
        made(9),
    )
    assert ancestors(found, digest(3)) == (
        relative(2, 1),
        relative(9, 1, "environment", circumstance=True),
        relative(1, 2, "teacher"),
    )
    assert descendants(found, digest(1)) == (relative(2, 1, "teacher"), relative(3, 2))
    assert ancestors(found, digest(1)) == ()
    assert ancestors(found, digest(77)) == ()


def test_a_cycle_ends(tmp_path: Path) -> None:
    found = registry(tmp_path, made(1, parent(3)), made(2, parent(1)), made(3, parent(2)))
    assert ancestors(found, digest(1)) == (relative(3, 1), relative(2, 2))
    assert descendants(found, digest(1)) == (relative(2, 1), relative(3, 2))


def test_a_diamond_keeps_the_shortest_way_and_all_its_roles(tmp_path: Path) -> None:
    found = registry(
        tmp_path,
        made(1),
        made(2, parent(1, "b")),
        made(3, parent(1, "a")),
        made(4, parent(2), parent(3)),
    )
    assert ancestors(found, digest(4)) == (
        relative(2, 1),
        relative(3, 1),
        relative(1, 2, "a", "b"),
    )


edges = st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=14)


@given(edges)
@settings(max_examples=5, deadline=None)
def test_any_graph_is_walked_like_by_hand(
    tmp_path_factory: pytest.TempPathFactory, arrows: set[tuple[int, int]]
) -> None:
    facts = [made(n, *(parent(p) for c, p in sorted(arrows) if c == n)) for n in range(8)]
    found = registry(tmp_path_factory.mktemp("graph"), *facts)
    for root in (0, 5):
        assert {(r.digest, r.depth) for r in ancestors(found, digest(root))} == by_hand(
            root, arrows
        )
        assert {(r.digest, r.depth) for r in descendants(found, digest(root))} == by_hand(
            root, {(p, c) for c, p in arrows}
        )


def by_hand(root: int, arrows: set[tuple[int, int]]) -> set[tuple[str, int]]:
    depths = {root: 0}
    for depth in range(1, 9):
        for near, far in arrows:
            if depths.get(near) == depth - 1:
                depths.setdefault(far, depth)
    return {(digest(n), depth) for n, depth in depths.items() if n != root}
