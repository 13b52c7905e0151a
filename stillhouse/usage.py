"""Disk usage: who holds the bytes of the store, and what lies beside it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillhouse.registry.keeping.presence import require_present
from stillhouse.registry.keeping.usage import By, Holder, holders
from stillhouse.registry.state.references import resolve_reference
from stillhouse.stock import Stocktaker
from stillhouse.store.objects.paths import TEMPORARY

if TYPE_CHECKING:
    from stillhouse.registry.home import Home
    from stillhouse.session import Session


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Who holds the bytes; all sizes in bytes."""

    by: By
    holders: tuple[Holder, ...]
    """The largest first."""
    store: int
    """Of all objects: `unique` and `shared` together."""
    unique: int
    """Of objects that have one holder."""
    shared: int
    condemned: int
    """Of objects that wait to be swept."""
    until: str | None
    """When the last of the condemned artifacts may be swept (RFC 3339 UTC)."""
    left_overs: int
    """Of what is being put, or was half put by a process that died."""
    run_folders: int
    """Of what runs left that have not succeeded."""
    left_out: int
    """Holders that are not listed."""


def usage_of(
    session: Session, reference: str | None = None, *, by: By = By.KIND, top: int = 20
) -> Usage:
    """The `top` largest holders, or with a reference that artifact alone, beside all others.

    Raises InputError when the artifact is unknown or its bytes are not here, StorageError.
    """
    from stillhouse.phases.reactor.folders import size_of

    taker = Stocktaker(session)
    stock, state = taker.look(), taker.state
    only = None if reference is None else resolve_reference(state, reference)
    if only is not None:
        require_present(state, only)
        by = By.ARTIFACT
    each, shared = holders(state, stock, by)
    rows = tuple(row for row in each if only in (None, row.holder))
    size = stock.size(stock.objects)
    return Usage(
        by=by,
        holders=rows[:top],
        store=size,
        unique=size - shared,
        shared=shared,
        condemned=stock.size(stock.condemned.keys() - stock.placed.keys()),
        until=max(state.condemned.values(), default=None),
        left_overs=sum(_left_overs(session.home)),
        run_folders=size_of(session.home.runs),
        left_out=max(0, len(rows) - top),
    )


def _left_overs(home: Home) -> Iterator[int]:
    """Bytes of each file that is still being put, or that a dead process left half put."""
    for path in (home.objects / TEMPORARY).rglob("*"):
        with suppress(FileNotFoundError):
            status = path.lstat()
            yield status.st_size if stat.S_ISREG(status.st_mode) else 0
