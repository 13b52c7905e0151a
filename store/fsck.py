"""The whole store, checked: every object against its name, every artifact against its objects.

Owns the audit. Rules: it streams and never stops at the first problem; every problem names its
object; it repairs nothing, and removes only what dead processes left in `objects/tmp/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from schemas.artifact import Form
from schemas.errors import IntegrityError
from store.blobs import BlobStore
from store.durable import shown
from store.places import CONDEMNED, LEASES, OBJECT_FILE, OBJECT_FOLDER, TEMPORARY
from store.staging import sweep
from store.trees import read_tree

LEFTOVER_AGE = 3600.0
"""Seconds before an abandoned temporary file is swept."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is not as recorded."""

    digest: str
    """The object that is missing or corrupt."""
    what: str
    """One sentence that names it and says what is wrong."""


@dataclass(frozen=True, kw_only=True)
class FsckReport:
    """What an audit found."""

    checked: int
    """Objects looked at."""
    bytes: int
    """Their sizes together; hashed when the audit was full."""
    missing: tuple[Problem, ...]
    corrupt: tuple[Problem, ...]
    foreign: tuple[str, ...]
    """Paths below `objects/` that are not ours; harmless, reported, not touched."""
    swept_temp: tuple[str, ...]
    """Leftovers of dead processes that were removed from `objects/tmp/`."""

    @property
    def ok(self) -> bool:
        """Whether everything expected is there and intact."""
        return not self.missing and not self.corrupt


class Progress(Protocol):
    """Told after each object."""

    def __call__(self, *, objects: int, size: int) -> None:
        """So many objects and bytes have been checked."""
        ...


@dataclass
class _Findings:
    checked: int = 0
    size: int = 0
    missing: dict[str, Problem] = field(default_factory=dict)
    corrupt: dict[str, Problem] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)


def fsck(
    store: BlobStore,
    *,
    expected: Iterable[tuple[str, Form]],
    now: float,
    full: bool = True,
    progress: Progress | None = None,
) -> FsckReport:
    """Check the store, and that it holds all `expected` artifacts down to the files of trees.

    `full` hashes every object, else only presence and recorded lengths are compared. `now` is the
    Unix time against which leftovers are aged. Raises StorageError when sweeping fails.
    """
    findings = _Findings()
    for digest in store.digests():
        _check_object(store, digest, findings, full=full)
        if progress is not None:
            progress(objects=findings.checked, size=findings.size)
    for digest, form in expected:
        _check_artifact(store, digest, form, findings)
    findings.foreign.extend(_foreign(store.root))
    return FsckReport(
        checked=findings.checked,
        bytes=findings.size,
        missing=tuple(findings.missing.values()),
        corrupt=tuple(findings.corrupt.values()),
        foreign=tuple(findings.foreign),
        swept_temp=sweep(store.root, now=now, min_age=LEFTOVER_AGE),
    )


def _check_object(store: BlobStore, digest: str, findings: _Findings, *, full: bool) -> None:
    findings.checked += 1
    try:
        findings.size += store.verify(digest) if full else store.size(digest)
    except IntegrityError as error:
        findings.corrupt[digest] = Problem(digest=digest, what=error.message)


def _check_artifact(store: BlobStore, digest: str, form: Form, findings: _Findings) -> None:
    if not store.has(digest):
        _miss(digest, f"Object {digest} is missing.", findings)
        return
    if form == "blob" or digest in findings.corrupt:
        return
    try:
        entries = read_tree(store, digest)
    except IntegrityError as error:
        findings.corrupt[digest] = Problem(digest=digest, what=f"Tree {digest}: {error.message}")
        return
    for entry in entries:
        where = f"{entry.path!r} of tree {digest}"
        if not store.has(entry.digest):
            _miss(entry.digest, f"Object {entry.digest} ({where}) is missing.", findings)
        elif store.size(entry.digest) != entry.size:
            findings.corrupt.setdefault(
                entry.digest,
                Problem(
                    digest=entry.digest,
                    what=f"Object {entry.digest} ({where}) has {store.size(entry.digest)} bytes"
                    f" instead of {entry.size}.",
                ),
            )


def _miss(digest: str, what: str, findings: _Findings) -> None:
    findings.missing.setdefault(digest, Problem(digest=digest, what=what))


def _foreign(root: Path) -> Iterator[str]:
    for child in sorted(root.iterdir()):
        if child.name in {TEMPORARY, CONDEMNED, LEASES}:
            continue
        if not child.is_dir() or OBJECT_FOLDER.fullmatch(child.name) is None:
            yield shown(child.name)
            continue
        for name in sorted(path.name for path in child.iterdir()):
            if OBJECT_FILE.fullmatch(name) is None or not (child / name).is_file():
                yield shown(f"{child.name}/{name}")
