"""The bytes of an artifact, for people: what a folder holds, one file, a copy of either.

Every byte is verified before it is handed out, but for links, which are the stored files.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from stillhouse.progress import Meter, Unseen
from stillhouse.registry.keeping.presence import require_present
from stillhouse.registry.state.references import form_of, resolve_reference
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError
from stillhouse.store.trees.checkout import LinkMode, checkout
from stillhouse.store.trees.trees import Entry, read_tree

if TYPE_CHECKING:
    from stillhouse.registry.state.state import State
    from stillhouse.session import Session


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """An artifact that was copied out of the store."""

    digest: Digest
    path: Path
    files: Mapping[LinkMode, int]
    """How many came about in each way."""
    bytes: Mapping[LinkMode, int]
    """Their bytes."""
    swept: tuple[str, ...]
    """What checkouts that were killed had left in the same folder, and is gone now."""


def open_content(session: Session, reference: str, path: str = "") -> tuple[Entry, ...] | BinaryIO:
    """The files of a folder; or a verified file, open: the artifact, or that at `path` in it.

    Raises InputError when there is none such, IntegrityError when the bytes are not what was
    recorded.
    """
    state = session.state()
    digest = _present(state, reference)
    if form_of(state, digest) == "tree":
        entries = read_tree(session.store, digest)
        if not path:
            return entries
        digest = _member(digest, entries, path)
    elif path:
        raise InputError(
            f"{reference} is one file, not a folder, so there is no {path!r} in it.",
            remedy=f"Use `still cat {reference}`.",
            code="cat.not_a_tree",
        )
    session.store.verify(digest)  # before the first byte is out
    return session.store.open(digest)


def check_out(
    session: Session,
    reference: str,
    dest: Path,
    *,
    link: bool = False,
    meter: Meter | None = None,
) -> Checkout:
    """Copy an artifact to `dest`, which must not exist; `link` hands out the stored files.

    Raises InputError, IntegrityError or StorageError; then there is no `dest`.
    """
    state = session.state()
    digest = _present(state, reference)
    watched = meter or Unseen()
    watched.of = state.artifacts[digest][0].fact.size
    form = form_of(state, digest)
    taken = checkout(session.store, digest, form, dest, link=link, tell=watched.add)
    return Checkout(
        digest=digest, path=dest, files=taken.files, bytes=taken.bytes, swept=taken.swept
    )


def _present(state: State, reference: str) -> Digest:
    digest = resolve_reference(state, reference)
    require_present(state, digest)
    return digest


def _member(digest: Digest, entries: tuple[Entry, ...], path: str) -> Digest:
    members = {entry.path: entry.digest for entry in entries}
    if path not in members:
        near = difflib.get_close_matches(path, members, n=3, cutoff=0.4)
        raise InputError(
            f"The folder {digest[:SHORT]} holds no file {path!r}.",
            remedy=f"Near: {', '.join(near)}." if near else f"See `still cat {digest[:SHORT]}`.",
            code="cat.no_such_file",
        )
    return members[path]
