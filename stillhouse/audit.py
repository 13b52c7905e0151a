"""Auditing: whether the ledger is what it was, and all that was made from it agrees.

An audit works on a damaged ledger, changes nothing, and asks every witness there is. The witnesses
are the projection and its tables, the note beside it, the index, the manifests of releases, and
heads that somebody kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stillhouse.registry.audit.arrows import IndexState, compare_index
from stillhouse.registry.audit.audit import Finding, examine, read_copies, read_projection
from stillhouse.registry.audit.report import AuditReport, first_bad, report
from stillhouse.registry.audit.retold import retell
from stillhouse.registry.audit.sealed import ManifestReport, Sealed, compare, sealed
from stillhouse.registry.audit.touched import Touched, parsed, readable, touched
from stillhouse.registry.audit.witnesses import Witness, noted_heads, parse_head
from stillhouse.registry.home import LEDGER, PROJECTION
from stillhouse.registry.state.state import State
from stillhouse.release import read_manifest
from stillhouse.schemas.contract import Contract
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError, IntegrityError, StillError
from stillhouse.schemas.events import ReleaseCut
from stillhouse.schemas.release import RUNTIME_CONFIG, Manifest, RuntimeConfig
from stillhouse.store.trees.trees import read_tree

if TYPE_CHECKING:
    from stillhouse.registry.audit.audit import Projected
    from stillhouse.registry.home import Home
    from stillhouse.registry.ledger.format import Line
    from stillhouse.session import Session


def audit(session: Session, heads: Sequence[str] = ()) -> AuditReport:
    """Read every byte of the ledger and hold it against all that remembers it.

    heads: events' hashes that were kept elsewhere, as `SEQ:HASH`. Raises InputError for what is
    not one.
    """
    given = [parse_head(text) for text in heads]
    home = session.home
    projected = read_projection(home.projection)
    kept, unread = _sealed_heads(session, projected)
    found = examine(home.log, projected, [*given, *noted_heads(home), *kept])
    retold = manifests = None
    index: IndexState = "not compared"
    if not found.findings:
        if projected.state == "read":
            retold = retell(home.projection, home.log, found.offset)
        index = compare_index(home.lineage, home.log)
        state, misfit = _folded(session)
        found = replace(found, findings=misfit)
        manifests = None if state is None else tuple(_manifests(session, state))
    first = first_bad(found, retold)
    hurt = None if first is None else _touched(home, projected, first)
    return report(found, retold, unread, hurt, manifests=manifests, index=index)


def _folded(session: Session) -> tuple[State | None, tuple[Finding, ...]]:
    """The state of the whole ledger; or the event that says what no earlier one allows.

    Neither where a newer program wrote an event: then there is nothing to hold manifests against.
    """
    state = State()
    for line in _lines(session):
        try:
            state.take(line)
        except IntegrityError as error:
            at = line.seq
            return None, (Finding(event=at, after=at - 1, where=LEDGER, what=error.message),)
        except InputError:
            return None, ()
    return state, ()


def _lines(session: Session) -> Iterator[Line]:
    return (line for chunk in session.reader().chunks() for line in chunk)


def _sealed_heads(session: Session, projected: Projected) -> tuple[list[Witness], list[Digest]]:
    """The heads in the manifests of all releases that the log or the projection knows.

    Second: those releases whose manifest cannot be read.
    """
    cut = readable(session.home.log, holding=ReleaseCut.TYPE.encode())
    told = {str(event.data.get("release")) for event in cut if event.type == ReleaseCut.TYPE}
    heads: list[Witness] = []
    unread: list[Digest] = []
    for release in sorted(told | set(projected.releases)):
        try:
            data = read_manifest(session.store, release)
            at = Manifest.model_validate_json(data).depends_on
        except (IntegrityError, ValueError):
            unread.append(release)
        else:
            heads.append(Witness(source=f"release {release[:SHORT]}", seq=at.seq, hash=at.hash))
    return heads, unread


def _manifests(session: Session, state: State) -> Iterator[ManifestReport]:
    """Every release that can be read, its manifest derived again from the verified ledger."""
    from stillhouse.phases.catalog import CATALOG

    for found in sealed(state, _lines(session), CATALOG):
        try:
            manifest = Manifest.model_validate_json(read_manifest(session.store, found.release))
        except (IntegrityError, ValueError):
            continue  # told as unread
        yield compare(found, manifest, _again(session, state, found))


def _again(session: Session, state: State, found: Sealed) -> Manifest | None:
    from stillhouse.phases.deployment.again import manifest_again

    published = state.from_run(found.release)
    if published is None or found.success is None or found.rows is None:
        return None
    try:
        texts = {e.path: e.digest for e in read_tree(session.store, found.release)}
        return manifest_again(
            found.success.started,
            published.fact.files,
            {
                path: Contract.model_validate_json(session.store.read(digest))
                for path, digest in texts.items()
                if path.startswith("contracts/")
            },
            RuntimeConfig.model_validate_json(session.store.read(texts[RUNTIME_CONFIG])),
            found.rows,
        )
    except (StillError, ValueError, KeyError):
        return None


def _touched(home: Home, projected: Projected, seq: int) -> Touched:
    copies = read_copies(home.projection, seq) if projected.state == "read" else ()
    return touched(seq, [(LEDGER, readable(home.log)), (PROJECTION, parsed(copies))])
