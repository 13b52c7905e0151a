"""Garbage collection as it is answered: the fate of artifacts, orphans, and totals. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from stillhouse.registry.keeping.collection import Decision
from stillhouse.registry.keeping.retention import Keep, Kept
from stillhouse.registry.state.state import State
from stillhouse.schemas.digest import Digest


@dataclass(frozen=True, kw_only=True)
class ArtifactFate:
    """What happens to one artifact."""

    digest: Digest
    kind: str
    name: str
    bytes: int
    """Of its objects that nothing keeps."""
    fate: str
    """`reprieve`, `sweep` and `condemn` happen now; `condemned` happened before."""
    why: str


@dataclass(frozen=True, kw_only=True)
class KeptArtifact:
    """One artifact that is kept."""

    digest: Digest
    kind: str
    name: str
    bytes: int
    """Of all its objects."""
    reason: str
    """The name for scripts."""
    detail: str
    why: str
    """Reason and detail in words."""


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """An object that belongs to no artifact."""

    digest: Digest
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Total:
    """What one reason keeps, or one fate takes."""

    reason: str
    artifacts: int
    bytes: int
    """Each object is counted once, at the first of the reasons that it falls under."""


def fates(found: Decision) -> Iterator[ArtifactFate]:
    """Every artifact that something happens to, or is to."""
    for digest in found.reprieved:
        kept = found.kept.get(digest)
        yield _fate(found, digest, "reprieve", _why(kept) if kept else "others keep all its bytes")
    for digest in found.swept:
        yield _fate(found, digest, "sweep", "condemned longer ago than the grace")
    for digest in found.condemned:
        yield _fate(found, digest, "condemn", _until(found.until))
    told = {*found.swept, *found.condemned, *found.reprieved}
    for digest, until in found.earlier.items():
        if digest not in told:
            yield _fate(found, digest, "condemned", _until(until))


def kept_artifacts(found: Decision) -> Iterator[KeptArtifact]:
    """Every artifact that is kept, and the first reason."""
    for digest, kept in found.kept.items():
        kind, name = _named(found.state, digest)
        yield KeptArtifact(
            digest=digest,
            kind=kind,
            name=name,
            bytes=found.stock.size(found.stock.needs.get(digest, ())),
            reason=kept.reason.code,
            detail=kept.detail,
            why=_why(kept),
        )


def orphans(found: Decision, objects: Collection[Digest]) -> tuple[Orphan, ...]:
    """Those of the objects that belong to no artifact."""
    return tuple(
        Orphan(digest=digest, bytes=found.stock.size((digest,)))
        for digest in found.orphans(objects)
    )


def totals(found: Decision) -> Iterator[Total]:
    """What keeps or takes how much; together every byte of the store. None that are empty."""
    counted: set[Digest] = set()
    for reason, artifacts, objects in _groups(found):
        fresh = set(objects) - counted
        counted |= fresh
        if artifacts or fresh:
            yield Total(reason=reason, artifacts=artifacts, bytes=found.stock.size(fresh))


def _groups(found: Decision) -> Iterator[tuple[str, int, Collection[Digest]]]:
    """(reason, artifacts, objects); an object may be in several."""
    stock, marks = found.stock, found.marks
    for reason in Keep:
        kept = [digest for digest, why in found.kept.items() if why.reason is reason]
        needed = (stock.needs.get(digest, frozenset()) for digest in kept)
        yield f"kept: {reason.value}", len(kept), frozenset().union(*needed)
    yield "kept: a log, or not recorded yet", 0, stock.held & stock.objects
    yield "swept now", len(found.swept), found.gone
    yield "condemned now", len(found.condemned), marks.doomed
    yield "condemned before", 0, marks.waiting
    yield "kept: young objects", 0, stock.objects


def _fate(found: Decision, digest: Digest, fate: str, why: str) -> ArtifactFate:
    kind, name = _named(found.state, digest)
    losing = found.stock.needs[digest] - found.marks.live
    size = found.stock.size(losing)
    return ArtifactFate(digest=digest, kind=kind, name=name, bytes=size, fate=fate, why=why)


def _named(state: State, digest: Digest) -> tuple[str, str]:
    fact = state.artifacts[digest][-1].fact
    return str(fact.kind), fact.name or fact.role or ""


def _why(kept: Kept) -> str:
    return f"{kept.reason.value}: {kept.detail}"


def _until(moment: str) -> str:
    return f"nothing keeps it; swept after {moment}"
