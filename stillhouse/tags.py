"""Tags: names that people give to artifacts, and move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillhouse.registry.state.references import check_tag_name, resolve_reference
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import ReferenceError_
from stillhouse.schemas.events import TagMoved

if TYPE_CHECKING:
    from stillhouse.session import Session


@dataclass(frozen=True, kw_only=True)
class Tag:
    """One name."""

    name: str
    digest: Digest
    kind: str


@dataclass(frozen=True, kw_only=True)
class Tags:
    """Names in their order."""

    tags: tuple[Tag, ...]

    def to_json(self) -> dict[str, Digest]:
        """Name -> digest."""
        return {tag.name: tag.digest for tag in self.tags}


def list_tags(session: Session, name: str | None = None) -> Tags:
    """Every tag, or the one that is named. Raises ReferenceError_ when there is none."""
    state = session.state()
    if name is not None and name not in state.tags:
        raise ReferenceError_(
            f"There is no tag {name!r}.",
            remedy="See `still tag` for all of them, or make it with `still tag NAME REF`.",
            code="tag.unknown",
        )
    found = []
    for each in sorted(state.tags) if name is None else [name]:
        published = state.published(state.tags[each])
        kind = str(published.kind) if published else ""
        found.append(Tag(name=each, digest=state.tags[each], kind=kind))
    return Tags(tags=tuple(found))


def tag(session: Session, name: str, reference: str) -> Tags:
    """Let `name` mean what a reference names; the tag. Raises InputError, ReferenceError_."""
    move_tag(session, name, resolve_reference(session.state(), reference))
    return list_tags(session, name)


def move_tag(session: Session, name: str, digest: Digest) -> None:
    """Record that `name` now means `digest`; nothing when it does already. Raises InputError."""
    before = session.state().tags.get(check_tag_name(name))
    if before == digest:
        session.ledger.settle()
    else:
        session.ledger.append([TagMoved(name=name, digest=digest, previous=before)])
