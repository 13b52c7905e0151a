"""Lineage: what an artifact was made from, what was made from it, and how two relate.

Answered from the adjacency index and a release's manifest; only a plan's needs the folded ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stillhouse.registry.lineage import subgraph
from stillhouse.registry.lineage.graph import Lineage, Way
from stillhouse.registry.lineage.own import OwnLineage
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import IntegrityError, StillError

if TYPE_CHECKING:
    from stillhouse.registry.lineage.subgraph import Subgraph
    from stillhouse.session import Session


def closure(
    session: Session,
    reference: str,
    way: Way = "up",
    depth: int | None = None,
    *,
    plan: str | None = None,
    everything: bool = False,
) -> Subgraph:
    """Everything that shaped an artifact, or that it shaped; `depth`: only so many arrows away.

    Upwards from a release, what its own plan's runs used; `plan`: from any artifact, what that
    plan's runs used; `everything`: what any run used that made equal bytes. Raises ReferenceError_.
    """
    lineage = _lineage(session)
    node = _node(session, lineage, reference)
    own = None if everything or way == "down" else _own(session, lineage, node, plan)
    found = subgraph.closure(own or lineage, node, way, depth)
    return _told(found, own, node)


def derivation(
    session: Session,
    reference: str,
    other: str,
    *,
    circumstances: bool = False,
    plan: str | None = None,
    everything: bool = False,
) -> Subgraph:
    """A shortest way between two artifacts, up or down; `circumstances`: also over those.

    Of a release, and within a plan, over their own arrows, as `closure`. Raises ReferenceError_,
    and StillError when neither was made from the other.
    """
    lineage = _lineage(session)
    root, goal = (_node(session, lineage, text) for text in (reference, other))
    own = None if everything else _own(session, lineage, root, plan)
    if own is None and not everything:
        own = _own(session, lineage, goal, plan)
    walked = own or lineage
    found = walked.derivation(root, goal, circumstances=circumstances)
    if found is None:
        raise _unrelated(lineage, walked, root, goal)
    below = root if found.way == "up" else goal
    return _told(subgraph.derivation(lineage, root, goal, found), own, below)


def _told(found: Subgraph, own: OwnLineage | None, below: int) -> Subgraph:
    """The part; where only own arrows count, with how many artifacts others made too."""
    if own is None:
        return found
    return replace(found, head={**found.head, "also_made_by_others": own.shared(below)})


def _own(session: Session, lineage: Lineage, node: int, plan: str | None) -> OwnLineage | None:
    """The arrows of a plan's own runs; None where nothing says whose they are."""
    if plan is not None:
        return OwnLineage(lineage, _of_plan(session, plan))
    if lineage.publication(node).kind is not Kind.RELEASE:
        return None
    parents = _of_release(session, lineage, node)
    return None if parents is None else OwnLineage(lineage, parents)


def _of_release(
    session: Session, lineage: Lineage, node: int
) -> Mapping[Digest, Sequence[Parent]] | None:
    """As its manifest tells it; None for one of rule 1, or that can not be read."""
    from stillhouse.release import read_manifest  # only a release needs it
    from stillhouse.schemas.release import Manifest

    release = lineage.digest(node)
    try:
        manifest = Manifest.model_validate_json(read_manifest(session.store, release))
    except (IntegrityError, ValueError):
        return None
    if manifest.rule == 1:
        return None
    found = {
        release: [
            Parent(role=a.role, digest=lineage.digest(a.node), circumstance=a.circumstance)
            for a in lineage.arrows(node, "up")
        ]
    }
    for run in manifest.provenance:
        given = [Parent(role=r, digest=d) for r, digests in run.inputs.items() for d in digests]
        beside = {"recipe": run.plan, "environment": run.environment}
        given += [Parent(role=r, digest=d, circumstance=True) for r, d in beside.items() if d]
        for made in run.outputs.values():
            found.setdefault(made, []).extend(given)
    return found


def _of_plan(session: Session, plan: str) -> Mapping[Digest, Sequence[Parent]]:
    """As its recorded runs tell it. Raises ReferenceError_."""
    from stillhouse.phases.catalog import CATALOG
    from stillhouse.registry.planning.provenance import Provenance
    from stillhouse.registry.state.references import resolve_reference

    state = session.state()
    digest = resolve_reference(state, plan, kind=Kind.RECIPE)
    provenance = Provenance(state, CATALOG)
    filled = {fill.slot for fill in state.fills.get(digest, ())}
    steps = (provenance.step(digest, slot, state.seq) for slot in sorted(filled))
    found: dict[Digest, list[Parent]] = {}
    for step, links in provenance.behind(step for step in steps if step).items():
        given = [
            Parent(role=link.role, digest=link.digest, circumstance=link.circumstance)
            for link in links
        ]
        given.append(Parent(role="recipe", digest=step.plan, circumstance=True))
        for made in step.fill.success.outputs.values():
            found.setdefault(made, []).extend(given)
    return found


def _lineage(session: Session) -> Lineage:
    return Lineage(session.home.log, session.home.lineage)


def _node(session: Session, lineage: Lineage, reference: str) -> int:
    """The node that a reference names.

    Only one that names nothing, or too much, needs the folded state: to say what is near.
    """
    found = lineage.resolve(reference)
    if found is None:
        from stillhouse.registry.state.references import resolve_reference

        found = resolve_reference(session.state(), reference)
    return lineage.node(found)


def _unrelated(lineage: Lineage, walked: Lineage | OwnLineage, root: int, goal: int) -> StillError:
    one, other = (f"{p.kind} {p.digest[:SHORT]}" for p in map(lineage.publication, (root, goal)))
    remedy = "`still diff` tells where they begin to differ."
    if walked.derivation(root, goal, circumstances=True):
        remedy = "`--circumstances` shows how they relate all the same."
    elif walked is not lineage and lineage.derivation(root, goal, circumstances=True):
        remedy = "Other runs that made equal bytes relate them: see `--all`."
    return StillError(
        f"Neither {one} nor {other} was made from the other.",
        remedy=remedy,
        code="lineage.unrelated",
    )
