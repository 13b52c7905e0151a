"""The verb `tag`: names that people give to artifacts, and move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.arguments import Json, MaybeRef, session_of
from stillhouse.cli.views import render
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import ReferenceError_
from stillhouse.schemas.events import TagMoved

if TYPE_CHECKING:
    from stillhouse.registry.state.state import State
    from stillhouse.session import Session


def tag(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The tag.")] = None,
    ref: MaybeRef = None,
    *,
    as_json: Json = False,
) -> None:
    """Let NAME mean REF; list tags.

    Without REF: what NAME means; without both: every tag.
    """
    from stillhouse.registry.state.references import resolve_reference

    session = session_of(context)
    state = session.state()
    if name is not None and ref is not None:
        move_tag(session, name, resolve_reference(state, ref))
        state = session.state()
    names = sorted(state.tags) if name is None else [_known(state, name)]
    if as_json:
        render.json_document({name: state.tags[name] for name in names})
        return
    render.table(
        ("tag", "digest", "kind"),
        ((name, render.short(state.tags[name]), _kind(state, name)) for name in names),
    )


def move_tag(session: Session, name: str, digest: Digest) -> None:
    """Record that `name` now means `digest`; nothing when it does already. Raises InputError."""
    from stillhouse.registry.state.references import check_tag_name

    before = session.state().tags.get(check_tag_name(name))
    if before == digest:
        session.ledger.settle()
    else:
        session.ledger.append([TagMoved(name=name, digest=digest, previous=before)])


def _known(state: State, name: str) -> str:
    if name not in state.tags:
        raise ReferenceError_(
            f"There is no tag {name!r}.",
            remedy="See `still tag` for all of them, or make it with `still tag NAME REF`.",
            code="tag.unknown",
        )
    return name


def _kind(state: State, name: str) -> str:
    found = state.published(state.tags[name])
    return str(found.fact.kind) if found else ""
