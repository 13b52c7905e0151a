"""Lineage: what an artifact was made from, what was made from it, and how two relate.

Answered from the adjacency index, never by folding the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse.registry.lineage import subgraph
from stillhouse.registry.lineage.graph import Lineage, Way
from stillhouse.registry.state.references import resolve_reference
from stillhouse.schemas.digest import SHORT
from stillhouse.schemas.errors import StillError

if TYPE_CHECKING:
    from stillhouse.registry.lineage.subgraph import Subgraph
    from stillhouse.session import Session


def closure(
    session: Session, reference: str, way: Way = "up", depth: int | None = None
) -> Subgraph:
    """Everything that shaped an artifact, or that it shaped; `depth`: only so many arrows away.

    Raises ReferenceError_.
    """
    lineage = _lineage(session)
    return subgraph.closure(lineage, _node(session, lineage, reference), way, depth)


def derivation(
    session: Session, reference: str, other: str, *, circumstances: bool = False
) -> Subgraph:
    """A shortest way between two artifacts, up or down; `circumstances`: also over those.

    Raises ReferenceError_, and StillError when neither was made from the other.
    """
    lineage = _lineage(session)
    root, goal = (_node(session, lineage, text) for text in (reference, other))
    found = lineage.derivation(root, goal, circumstances=circumstances)
    if found is None:
        raise _unrelated(lineage, root, goal, circumstances=circumstances)
    return subgraph.derivation(lineage, root, goal, found)


def _lineage(session: Session) -> Lineage:
    return Lineage(session.home.log, session.home.lineage)


def _node(session: Session, lineage: Lineage, reference: str) -> int:
    """The node that a reference names.

    Only one that names nothing, or too much, needs the folded state: to say what is near.
    """
    found = lineage.resolve(reference) or resolve_reference(session.state(), reference)
    return lineage.node(found)


def _unrelated(lineage: Lineage, root: int, goal: int, *, circumstances: bool) -> StillError:
    ends = (lineage.publication(node) for node in (root, goal))
    one, other = (f"{end.kind} {end.digest[:SHORT]}" for end in ends)
    beside = not circumstances and lineage.derivation(root, goal, circumstances=True)
    return StillError(
        f"Neither {one} nor {other} was made from the other.",
        remedy="`--circumstances` shows how they relate all the same."
        if beside
        else "`still diff` tells where they begin to differ.",
        code="lineage.unrelated",
    )
