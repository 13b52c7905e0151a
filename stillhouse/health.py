"""The health of a registry: every event, every stored byte, and which artifacts damage concerns.

Works on a broken ledger: as far as it verifies, it says what the store must hold. Repairs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from stillhouse.progress import Meter, Unseen
from stillhouse.registry.ledger.witness import check_noted
from stillhouse.registry.state.state import State
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import IntegrityError
from stillhouse.store.check.fsck import FsckReport, Problem, fsck
from stillhouse.store.trees.trees import read_tree

if TYPE_CHECKING:
    from stillhouse.registry.ledger.ledger import Audit
    from stillhouse.schemas.artifact import Form
    from stillhouse.schemas.events import ArtifactPublished
    from stillhouse.session import Session


@dataclass(frozen=True, kw_only=True)
class Health:
    """What a check of a whole registry found."""

    ok: bool
    """Whether ledger and store are what was recorded, as far as was looked."""
    ledger: Audit
    store: FsckReport


def check_registry(
    session: Session, *, share: float = 1.0, resume: bool = False, meter: Meter | None = None
) -> Health:
    """Read the whole ledger, and of the store's bytes `share` (0 to 1; 0: only names and sizes).

    `resume`: a full check goes on where an interrupted one stopped. Raises StorageError when the
    store cannot be listed or swept.
    """
    audit = _audit(session)
    state = State().apply_all(islice(session.ledger.read(), audit.events))
    watched = meter or Unseen()

    def tell(done: int, of: int) -> None:
        watched.of = of
        watched.move(done)

    report = fsck(
        session.store,
        expected=_expected(state),
        now=time.time(),
        share=share,
        bookmark=session.home.fsck_state,
        resume=resume,
        progress=tell,
    )
    ok = report.ok and audit.fault is None
    return Health(ok=ok, ledger=audit, store=_named(session, state, report))


def _audit(session: Session) -> Audit:
    """Read the whole ledger; one that verifies may still have lost its end."""
    audit = session.ledger.audit()
    if audit.fault is None:
        try:
            check_noted(session.home.projection, session.home.log)
        except IntegrityError as error:
            return replace(audit, fault=error)
    return audit


def _expected(state: State) -> Iterator[tuple[Digest, Form]]:
    """Everything that the ledger says is in the store: artifacts, then logs."""
    for digest, found in state.artifacts.items():
        if digest not in state.absent:
            yield digest, found[0].form
    for log in sorted(state.logs()):
        yield log, "blob"


def _named(session: Session, state: State, report: FsckReport) -> FsckReport:
    """The report, each problem with the artifacts that need the object."""
    problems = (*report.missing, *report.corrupt, *report.exposed)
    needing: dict[str, list[str]] = {problem.digest: [] for problem in problems}
    for digest, found in state.artifacts.items() if needing else ():
        fact = found[0].fact
        words = " ".join(filter(None, (fact.kind, fact.name, digest[:SHORT])))
        for member in needing.keys() & _members(session, fact):
            needing[member].append(words)

    def told(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
        return tuple(replace(p, artifacts=tuple(needing[p.digest])) for p in problems)

    return replace(
        report,
        missing=told(report.missing),
        corrupt=told(report.corrupt),
        exposed=told(report.exposed),
    )


def _members(session: Session, fact: ArtifactPublished) -> set[Digest]:
    """The objects that an artifact needs, as far as it can be read."""
    members = {fact.digest}
    if fact.form == "tree":
        with suppress(IntegrityError):  # then the tree itself is among the problems
            members |= {entry.digest for entry in read_tree(session.store, fact.digest)}
    return members
