"""Artifacts as they are listed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillhouse.registry.keeping.presence import word_for
from stillhouse.schemas.artifact import Form, Kind, Origin
from stillhouse.schemas.digest import Digest

if TYPE_CHECKING:
    from stillhouse.registry.state.state import Published, State
    from stillhouse.session import Session


@dataclass(frozen=True, kw_only=True)
class ArtifactRow:
    """One artifact of one kind, by its latest publication."""

    digest: Digest
    kind: Kind
    form: Form
    size: int
    """Bytes."""
    origin: Origin
    published: str
    """RFC 3339 UTC."""
    seq: int
    name: str | None
    tags: tuple[str, ...]
    bytes: str
    """`absent` or `condemned`; empty for what is here to stay or not decided on."""


def list_artifacts(session: Session, kind: Kind | None = None) -> tuple[ArtifactRow, ...]:
    """Every artifact, of one kind if that is given, in the order in which they first appeared."""
    state = session.state()
    latest: dict[tuple[Digest, Kind], Published] = {}
    for digest, publications in state.artifacts.items():
        for publication in publications:
            if kind in (None, publication.kind):
                latest[digest, publication.kind] = publication
    return tuple(
        ArtifactRow(
            digest=digest,
            kind=of_kind,
            form=found.form,
            size=found.fact.size,
            origin=_origin(state, digest, found),
            published=found.ts,
            seq=found.seq,
            name=found.fact.name,
            tags=state.tags_of(digest),
            bytes=word_for(state, digest),
        )
        for (digest, of_kind), found in latest.items()
    )


def _origin(state: State, digest: Digest, latest: Published) -> Origin:
    """`imported` only where no run or probe made it as this kind, as in SQL."""
    for published in state.artifacts[digest]:
        if published.kind is latest.kind and published.origin != "imported":
            return published.origin
    return "imported"
