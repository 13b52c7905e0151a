"""Repairing: good bytes in the place of missing or damaged ones, proved by their digests.

They come from a copy that is given (stillhouse/copies.py), else by repeating the runs that made
them (stillhouse/rewind.py). Rules: other bytes than the recorded ones change nothing. A damaged
object is removed only when the good one is durable (store/objects/damaged.py). At the end every
object is read again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stillhouse.copies import copy_at
from stillhouse.registry.keeping.recovery import runs_to
from stillhouse.registry.state.references import form_of, resolve_reference
from stillhouse.rewind import Repeated, Watcher, remake, tools_changed_since
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.events import ArtifactRestored
from stillhouse.stock import alone
from stillhouse.store.objects.damaged import Aside, examine, forget, put_back, set_aside
from stillhouse.store.trees.trees import read_tree

if TYPE_CHECKING:
    from stillhouse.registry.home import Home
    from stillhouse.schemas.artifact import Form
    from stillhouse.session import Session
    from stillhouse.store.objects.local import BlobStore

How = Literal["run", "file", "registry"]


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What repairing one artifact came to."""

    digest: Digest
    missing: tuple[Digest, ...]
    """Objects that were not there, and are again."""
    corrupt: tuple[Digest, ...]
    """Objects whose bytes were not the recorded ones, and are again."""
    how: How | None
    """Where the good bytes are from; None: every byte was what was recorded."""


def repair(
    session: Session,
    reference: str,
    source: Path | None = None,
    *,
    watcher: Watcher | None = None,
) -> Repair:
    """Get the bytes of an artifact back, from the copy at `source` or by the runs that made it.

    Raises InputError when the copy holds other bytes, or none is given and no run made it;
    IntegrityError when a run makes something else now; PhaseError, BusyError, StorageError.
    """
    state, store = session.state(), session.store
    digest = resolve_reference(state, reference)
    form = form_of(state, digest)
    with store.lease():
        before = examine(store, _objects(store, digest, form))
        how: How | None = None
        if not before.objects:
            if digest in state.absent:  # given up, and nobody has taken it away yet
                how = from_copy(session, digest, session.home.root)
        elif source is not None:
            how = from_copy(session, digest, source)
        else:
            how = _by_runs(session, digest, watcher or Watcher())
    forget(session.home.damaged, _objects(store, digest, form))
    return Repair(digest=digest, missing=before.missing, corrupt=before.corrupt, how=how)


def from_copy(session: Session, digest: Digest, source: Path) -> How:
    """Put the bytes that were given in the place of bad ones, and record it; under a lease.

    What was damaged stays in `damaged/`. Raises InputError when the copy holds other bytes.
    """
    state, store = session.state(), session.store
    form = form_of(state, digest)
    copy = copy_at(source, digest, form)
    objects = {*copy.files, digest}
    damage = examine(store, objects)
    with _set_aside(session.home, damage.corrupt):
        # What was given up may be swept at any time, so all of it is put again.
        for needed in objects if digest in state.absent else damage.objects:
            if needed in copy.files:
                copy.put(store, needed)
        if copy.tree is not None:
            store.put_bytes(copy.tree)
        _prove(store, digest, form)
    session.ledger.append([ArtifactRestored(digest=digest, how=copy.how)])
    return copy.how


def _by_runs(session: Session, digest: Digest, watcher: Watcher) -> How:
    """Repeat the runs that made it. Raises InputError when none did."""
    state, store = session.state(), session.store
    form = form_of(state, digest)
    missing = {*state.absent, digest}
    runs = runs_to(state, digest, missing)
    watcher.changed(tools_changed_since(runs))
    for _ in range(2):  # once the list of files is back, damage to the files can be seen
        damage = examine(store, _objects(store, digest, form))
        if not damage.objects:
            break
        with _set_aside(session.home, damage.corrupt):
            for step in remake(session, runs, missing=missing, target=digest, watcher=watcher):
                _require_same(step, digest)
            store.verify(digest)
    _prove(store, digest, form)
    return "run"


def _require_same(step: Repeated, digest: Digest) -> None:
    for found in step.differed:
        if found.recorded == digest or not step.restored:
            raise IntegrityError(
                f"{step.slot} is not deterministic here: as {found.role}, {found.recorded} was "
                f"recorded and {found.made} made now.",
                remedy=f"Give a copy: `still repair {digest[:SHORT]} --from PATH`.",
                code="repair.differed",
            )


@contextmanager
def _set_aside(home: Home, corrupt: Collection[Digest]) -> Iterator[None]:
    """Make room for good bytes. If the block fails, the damaged ones come back."""
    moved: tuple[Aside, ...] = ()
    if corrupt:
        with alone(home):
            moved = set_aside(home.objects, home.damaged, corrupt)
    with ExitStack() as failed:  # however it fails, by Ctrl-C too
        failed.callback(put_back, home.damaged, moved)
        yield
        failed.pop_all()


def _prove(store: BlobStore, digest: Digest, form: Form) -> None:
    """Read it all again. Raises IntegrityError."""
    for needed in (digest, *_objects(store, digest, form)):
        store.verify(needed)


def _objects(store: BlobStore, digest: Digest, form: Form) -> tuple[Digest, ...]:
    """What an artifact consists of; only its list of files where that can not be read."""
    if form == "blob":
        return (digest,)
    try:
        entries = read_tree(store, digest)
    except IntegrityError:
        return (digest,)
    return (digest, *sorted({entry.digest for entry in entries} - {digest}))
