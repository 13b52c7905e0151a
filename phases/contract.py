"""What every phase sees and returns. The only door between a phase and the rest.

A phase is `run(context) -> tuple[Product, ...]`: it reads its inputs by role, writes into `scratch`
(which survives attempts, so work can be resumed), puts what it made into the store through the
context, and returns products. It never appends an event. Its module also holds `SPEC`, its row of
the catalog, which must be importable without heavy libraries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import FileFact, Form, Kind, Product
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.facts import FORMS, Facts, ReportFacts
from stillhouse.schemas.report import Report
from stillhouse.schemas.rows import ReleaseRows


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input artifact, materialised read-only."""

    role: str
    digest: Digest
    kind: Kind
    form: Form
    path: Path
    """A file for a blob, a folder for a tree."""
    facts: Mapping[str, Any]
    """What its event carries."""


@dataclass(frozen=True, kw_only=True)
class Put:
    """What the store answers."""

    digest: Digest
    size: int
    """Payload bytes."""
    files: tuple[FileFact, ...]
    """With SHA-256, when asked for."""


class Sink(Protocol):
    """Where products go: the content-addressed store."""

    def put_file(self, path: Path, *, sha256: bool = False) -> Put:
        """Store one file durably."""
        ...

    def put_tree(self, folder: Path, *, sha256: bool = False) -> Put:
        """Store a folder durably."""
        ...


class Progress(Protocol):
    """Where a phase tells how far it is. Cheap; called as often as you like."""

    def __call__(self, label: str, done: int, total: int, **figures: float) -> None:
        """`done` of `total` units of `label` are finished."""
        ...


@dataclass(frozen=True, kw_only=True)
class Context:
    """Everything that a phase may touch."""

    slot: str
    params: Mapping[str, Any]
    inputs: Mapping[str, Sequence[Input]]
    """By role."""
    scratch: Path
    """Private to the run key; survives attempts."""
    sink: Sink
    progress: Progress
    rows: ReleaseRows | None = None
    """What the verified ledger says of a release; only a phase that seals one has it."""

    def one(self, role: str) -> Input:
        """The only input of a role. Raises KeyError when there is not exactly one."""
        found = self.inputs.get(role, ())
        if len(found) != 1:
            raise KeyError(f"{self.slot} expects one input {role!r}, has {len(found)}")
        return found[0]

    def maybe(self, role: str) -> Input | None:
        """The only input of a role, or None."""
        found = self.inputs.get(role, ())
        return found[0] if found else None

    def file(
        self,
        role: str,
        kind: Kind,
        path: Path,
        *,
        name: str | None = None,
        facts: Facts | Mapping[str, Any] | None = None,
        sha256: bool = False,
    ) -> Product:
        """Store a file and describe it as a product."""
        put = self.sink.put_file(path, sha256=sha256)
        return _product(role, kind, "blob", name, facts, put)

    def tree(
        self,
        role: str,
        kind: Kind,
        folder: Path,
        *,
        name: str | None = None,
        facts: Facts | Mapping[str, Any] | None = None,
        sha256: bool = False,
    ) -> Product:
        """Store a folder and describe it as a product."""
        put = self.sink.put_tree(folder, sha256=sha256)
        return _product(role, kind, "tree", name, facts, put)

    def report(self, report: Report, *, role: str = "report") -> Product:
        """Store a report as canonical JSON; its metrics travel in the event."""
        path = self.scratch / f"{role}.json"
        path.write_bytes(canonical.encode(report.to_json()))
        facts = ReportFacts(
            phase=report.phase,
            subject=report.subject,
            metrics=report.metrics,
            not_run=report.not_run,
        )
        return self.file(role, Kind.REPORT, path, name=report.phase, facts=facts)


def _product(  # noqa: PLR0917  # private, and called in one way
    role: str,
    kind: Kind,
    form: Form,
    name: str | None,
    facts: Facts | Mapping[str, Any] | None,
    put: Put,
) -> Product:
    """Describe what was stored. Raises TypeError when its facts are not of the kind's form."""
    if not isinstance(facts, FORMS.get(kind, object)):
        raise TypeError(f"the facts of a {kind} are {FORMS[kind].__name__}, not {facts!r}")
    return Product(
        role=role,
        kind=kind,
        digest=put.digest,
        form=form,
        size=put.size,
        name=name,
        facts=facts.to_json() if isinstance(facts, Facts) else dict(facts or {}),
        files=put.files,
    )


class Phase(Protocol):
    """One phase's work."""

    def __call__(self, context: Context, /) -> tuple[Product, ...]:
        """Do the work; return what was made. Raises PhaseError (or any StillError)."""
        ...
