"""Lineage as SQL: everything that shaped an artifact, and everything that it shaped.

For registries that have outgrown folding the ledger: the closure is one recursive query over
`edge`, whose cost grows with what is reached, and hardly with what there is. Cycles (an artifact
published again as made from its own result) are walked once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from registry.projection import Projection
from schemas.artifact import Kind
from schemas.digest import Digest


@dataclass(frozen=True, kw_only=True)
class Relative:
    """One artifact above or below another."""

    digest: Digest
    kind: Kind
    depth: int
    """Arrows between the two on the shortest way; 1: direct."""
    roles: tuple[str, ...]
    """What it was for on the last arrow of those ways, sorted."""
    circumstance: bool
    """True: every arrow to it is one that shaped no result (the environment, the recipe)."""


def ancestors(projection: Projection, digest: Digest) -> tuple[Relative, ...]:
    """What shaped an artifact, nearest first. Raises what `Projection.query` raises."""
    return _relatives(projection, "edges_above", digest)


def descendants(projection: Projection, digest: Digest) -> tuple[Relative, ...]:
    """What an artifact shaped, nearest first. Raises what `Projection.query` raises."""
    return _relatives(projection, "edges_below", digest)


@dataclass(frozen=True, kw_only=True)
class _Arrow:
    near: Digest
    far: Digest
    kind: Kind
    role: str
    circumstance: bool


def _relatives(
    projection: Projection, question: Literal["edges_above", "edges_below"], root: Digest
) -> tuple[Relative, ...]:
    arrows = [
        _Arrow(near=near, far=far, kind=Kind(kind), role=role, circumstance=circumstance)
        for near, far, kind, role, circumstance in projection.query(question, {"root": root}).rows
    ]
    depths = _depths(root, arrows)
    found: dict[Digest, list[_Arrow]] = {}
    for arrow in arrows:
        if arrow.far != root:
            found.setdefault(arrow.far, []).append(arrow)
    relatives = (_relative(digest, led, depths) for digest, led in found.items())
    return tuple(sorted(relatives, key=lambda r: (r.depth, r.kind, r.digest)))


def _depths(root: Digest, arrows: Sequence[_Arrow]) -> dict[Digest, int]:
    """Breadth first, so each artifact's first depth is its least."""
    onward: dict[Digest, list[Digest]] = {}
    for arrow in arrows:
        onward.setdefault(arrow.near, []).append(arrow.far)
    depths = {root: 0}
    frontier = [root]
    while frontier:
        following = [far for near in frontier for far in onward.get(near, ()) if far not in depths]
        depths |= dict.fromkeys(following, depths[frontier[0]] + 1)
        frontier = list(dict.fromkeys(following))
    return depths


def _relative(digest: Digest, led: Sequence[_Arrow], depths: dict[Digest, int]) -> Relative:
    depth = depths[digest]
    last = [arrow for arrow in led if depths[arrow.near] == depth - 1]
    return Relative(
        digest=digest,
        kind=led[0].kind,
        depth=depth,
        roles=tuple(sorted({arrow.role for arrow in last})),
        circumstance=all(arrow.circumstance for arrow in led),
    )
