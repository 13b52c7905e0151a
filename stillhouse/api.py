"""The public Python API: a registry, and what can be read of it.

Values are frozen. Every failure that is not a programmer's own is a StillError with `code`,
`message` and `remedy`. The command line stands on the same functions of the application.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.registry.home import locate, place
from stillhouse.session import make_registry, open_registry

if TYPE_CHECKING:
    from stillhouse.registry.projection.sandbox import Rows
    from stillhouse.registry.state.state import State
    from stillhouse.schemas.event import Event
    from stillhouse.session import Session


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One artifact as it was when it was asked for."""

    digest: str
    """64 hex characters: BLAKE3 of the file, or of the tree of a folder."""
    kind: str
    form: str
    """`blob`: one file. `tree`: a folder."""
    size: int
    """Bytes."""
    origin: str
    """`imported`, `run` or `probe`."""
    name: str | None
    facts: Mapping[str, object]
    """What was recorded of it: metrics of a report, the recipe's text …"""
    tags: tuple[str, ...]
    run: str | None
    """Key of the run that made it."""
    published: str
    """When, in RFC 3339 UTC."""
    present: bool
    """Whether its bytes are here, as the ledger tells it."""


class Registry:
    """An open registry. `open` and `init` make one. One thread uses it at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def root(self) -> Path:
        """The registry's folder."""
        return self._session.home.root

    def get(self, reference: str) -> Artifact:
        """The artifact that a digest prefix, a tag or `kind@latest` names.

        Raises StillError `ref.unknown`, `ref.ambiguous` or `ref.too_short`.
        """
        from stillhouse.registry.state.references import resolve_reference

        state = self._session.state()
        return _artifact(state, resolve_reference(state, reference))

    def sql(
        self,
        statement: str,
        params: Mapping[str, object] | None = None,
        *,
        as_of: str | int | None = None,
    ) -> Rows:
        """The answer to one reading statement (tables and views: docs/sql.md).

        as_of: answer as of an event's number or a time. Raises StillError `sql.refused`,
        `sql.too_long`, `sql.as_of`.
        """
        from stillhouse.registry.projection.asof import as_of as point

        at = None if as_of is None else point(str(as_of))
        return self._session.projection.query(statement, dict(params or {}), at=at)

    def events(self, after: int = 0) -> Iterator[Event]:
        """Every event after number `after`, oldest first, from the verified ledger.

        Raises StillError `ledger.broken` at the first event that does not verify.
        """
        return self._session.ledger.read(after)

    def publish(
        self,
        path: str | os.PathLike[str],
        kind: str,
        *,
        name: str | None = None,
        meta: Mapping[str, str] | None = None,
        tag: str | None = None,
    ) -> Artifact:
        """Take in a file or folder, as `still publish` does; publishing it again changes nothing.

        Raises StillError when it is not what its kind asks for; nothing is recorded then.
        """
        from stillhouse.publish import parse_kind, publish

        wanted = parse_kind(kind)
        done = publish(self._session, Path(path), wanted, name=name, meta=meta, tag=tag)
        return _artifact(self._session.state(), done.digest)


def open(path: str | os.PathLike[str] | None = None) -> Registry:  # noqa: A001  # as sh.open
    """Open the registry at `path`; without one that of STILL_REGISTRY, else the nearest `.still/`.

    Raises StillError `registry.missing` when there is none.
    """
    explicit = None if path is None else Path(path)
    return Registry(open_registry(locate(explicit, Path.cwd())))


def init(path: str | os.PathLike[str] | None = None) -> Registry:
    """Make a registry at `path`, by default STILL_REGISTRY or `.still/` here, and open it.

    One that is there already is opened. Raises StillError when the disk refuses.
    """
    home = place(Path(path) if path else None, Path.cwd())
    make_registry(home)
    return Registry(open_registry(home))


def _artifact(state: State, digest: str) -> Artifact:
    """The artifact by its first publication, and by one of a run where there is one."""
    found = state.from_run(digest) or state.artifacts[digest][0]
    fact = found.fact
    return Artifact(
        digest=digest,
        kind=str(fact.kind),
        form=fact.form,
        size=fact.size,
        origin=fact.origin,
        name=fact.name,
        facts=deepcopy(fact.facts),
        tags=state.tags_of(digest),
        run=fact.run,
        published=found.ts,
        present=digest not in state.absent,
    )
