"""The whole store, checked: every object against its name, every artifact against its objects.

Owns the audit. Rules: it streams and never stops at the first problem. Every problem names its
object. It repairs nothing, and removes only what dead processes left in `objects/tmp/`. Objects are
read on every core, in order of digest, so one digest says how far a check came.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

from stillhouse.schemas.artifact import Form
from stillhouse.schemas.errors import IntegrityError, StorageError
from stillhouse.store.check import sampling
from stillhouse.store.check.bookmark import Bookmark, read_bookmark, write_bookmark
from stillhouse.store.check.survey import Survey, survey
from stillhouse.store.objects.leases import absent
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.objects.staging import sweep
from stillhouse.store.trees.trees import read_tree

_JOB_BYTES = 16 << 20
_JOB_OBJECTS = 256
"""What one thread takes at a time: enough that handing it over costs nothing."""
_MARK_EVERY = 256 << 20
"""Bytes between two bookmarks …"""
_MARK_OBJECTS = 20_000
"""… or objects."""

How = Literal["metadata", "sample", "full"]

Progress = Callable[[int, int], object]
"""Takes how many bytes have been verified, of how many."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is not as recorded."""

    digest: str
    """The object that is missing or corrupt."""
    what: str
    """One sentence that names it and says what is wrong."""
    artifacts: tuple[str, ...] = ()
    """What needs it, in words; filled in by a caller who knows, for the store does not."""


@dataclass(frozen=True, kw_only=True)
class FsckReport:
    """What an audit found."""

    objects: int
    """Objects looked at."""
    bytes: int
    """Their sizes together."""
    how: How
    verified: int
    """Objects that were read and hashed, an interrupted check's among them …"""
    verified_bytes: int
    """… and their bytes."""
    damaged_below: float | None
    """Of a sample without a finding: damaged objects hold at most this fraction of all bytes …"""
    confidence: float | None
    """… and how sure that is, 0 to 1."""
    resumed_after: str | None
    """Digest up to which an interrupted check had come."""
    condemned: int
    linked: int
    """Objects with a second name, through which they could be edited (runs at work have such)."""
    missing: tuple[Problem, ...]
    corrupt: tuple[Problem, ...]
    exposed: tuple[Problem, ...]
    """Objects that somebody made writable: harmless once their bytes were verified."""
    foreign: tuple[str, ...]
    """Paths below `objects/` that are not ours; harmless, reported, not touched."""
    swept: tuple[str, ...]
    """Leftovers of dead processes that were removed from `objects/tmp/`."""

    @property
    def ok(self) -> bool:
        """Whether everything expected is there and intact, as far as was looked."""
        doubtful = self.exposed if self.how != "full" else ()
        return not self.missing and not self.corrupt and not doubtful


@dataclass
class _Findings:
    verified: int = 0
    size: int = 0
    missing: dict[str, Problem] = field(default_factory=dict)
    corrupt: dict[str, Problem] = field(default_factory=dict)


def fsck(
    store: BlobStore,
    *,
    expected: Iterable[tuple[str, Form]],
    now: float,
    share: float = 1.0,
    chance: Random | None = None,
    bookmark: Path | None = None,
    resume: bool = False,
    progress: Progress = lambda _done, _of: None,
) -> FsckReport:
    """Check the store, and that it holds all `expected` artifacts down to the files of trees.

    `share` of the bytes is read and hashed: all of them (1), none (0: names, sizes and modes), or a
    sample between, drawn by `chance`. A full check keeps `bookmark`, and with `resume` goes on
    where that says. `now` is the Unix time at which it begins. Raises StorageError
    when the store cannot be listed or swept.
    """
    found = _surveyed(store)
    findings = _Findings()
    how: How = "full" if share >= 1 else "sample" if share > 0 else "metadata"
    mark = read_bookmark(bookmark) if how == "full" and resume and bookmark else None
    draws = sampling.draws_for(found.sizes, share) if how == "sample" else 0
    if how == "full":
        places = _after(found, mark, findings)
    else:
        places = sampling.chosen(found.sizes, draws, chance or Random())  # noqa: S311
    keeper = _Keeper(bookmark if how == "full" else None, mark.began if mark else now)
    _verify_all(store, found, places, findings, keeper=keeper, progress=progress)
    for digest, form in expected:
        _check_artifact(store, digest, form, findings)
    swept = sweep(store.root)
    return _report(found, findings, how=how, draws=draws, mark=mark, swept=swept)


def _surveyed(store: BlobStore) -> Survey:
    try:
        return survey(store.root)
    except FileNotFoundError as error:
        raise absent(store.root) from error
    except OSError as error:
        raise StorageError(
            f"The store at {store.root} cannot be listed: {error.strerror or error}.",
            remedy="Check the permissions of its folders and the disk, then try again.",
            code="store.unreadable",
        ) from error


def _report(
    found: Survey,
    findings: _Findings,
    *,
    how: How,
    draws: int,
    mark: Bookmark | None,
    swept: tuple[str, ...],
) -> FsckReport:
    clean = not findings.missing and not findings.corrupt
    bounded = how == "sample" and clean
    return FsckReport(
        objects=len(found.digests),
        bytes=sum(found.sizes),
        how=how,
        verified=findings.verified,
        verified_bytes=findings.size,
        damaged_below=sampling.bound(draws) if bounded else None,
        confidence=sampling.CONFIDENCE if bounded else None,
        resumed_after=mark.after if mark else None,
        condemned=found.condemned,
        linked=found.linked,
        missing=tuple(findings.missing.values()),
        corrupt=tuple(findings.corrupt.values()),
        exposed=tuple(map(_exposed, found.exposed)),
        foreign=tuple(found.foreign),
        swept=swept,
    )


def _exposed(digest: str) -> Problem:
    what = f"Object {digest} was made writable, or its mode changed: it may have been edited."
    return Problem(digest=digest, what=what)


def _after(found: Survey, mark: Bookmark | None, findings: _Findings) -> list[int]:
    """The places still to be verified: all, or those after the mark and the ones found corrupt."""
    if mark is None:
        return list(range(len(found.digests)))
    in_place = len(found.digests) - found.condemned
    again = set(mark.corrupt)
    places = []
    for place, digest in enumerate(found.digests):
        if place >= in_place or digest > mark.after or digest in again:
            places.append(place)
        else:
            findings.verified += 1
            findings.size += found.sizes[place]
    return places


class _Keeper:
    """Writes the bookmark every so often."""

    def __init__(self, path: Path | None, began: float) -> None:
        self._path = path
        self._began = began
        self._last = (0, 0)

    def keep(self, after: str, findings: _Findings) -> None:
        objects, size = self._last
        if self._path is None or (
            findings.size - size < _MARK_EVERY and findings.verified - objects < _MARK_OBJECTS
        ):
            return
        self._last = (findings.verified, findings.size)
        corrupt = tuple(findings.corrupt)
        write_bookmark(self._path, Bookmark(after=after, began=self._began, corrupt=corrupt))

    def finish(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _verify_all(
    store: BlobStore,
    found: Survey,
    places: Sequence[int],
    findings: _Findings,
    *,
    keeper: _Keeper,
    progress: Progress,
) -> None:
    total = findings.size + sum(found.sizes[place] for place in places)
    in_place = len(found.digests) - found.condemned
    for job, problems in _verified(store, found, places):
        for problem in problems:
            findings.corrupt[problem.digest] = problem
        findings.verified += len(job)
        findings.size += sum(found.sizes[place] for place in job)
        if job[-1] < in_place:
            keeper.keep(found.digests[job[-1]], findings)
        progress(findings.size, total)
    keeper.finish()


def _verified(
    store: BlobStore, found: Survey, places: Sequence[int]
) -> Iterator[tuple[list[int], list[Problem]]]:
    """Verify these objects on every core; yields jobs in order, a few being always under way."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # One that is more than a core's share is hashed by all of them: the others would be idle.
    large = sum(found.sizes[place] for place in places) // (workers or 1)
    waiting: deque[tuple[list[int], Future[list[Problem]]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for job in _jobs(found, places):
                objects = [(found.digests[place], found.sizes[place] > large) for place in job]
                waiting.append((job, pool.submit(_problems, store, objects)))
                if len(waiting) > 2 * (workers or 1):
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _jobs(found: Survey, places: Sequence[int]) -> Iterator[list[int]]:
    job: list[int] = []
    size = 0
    for place in places:
        job.append(place)
        size += found.sizes[place]
        if size >= _JOB_BYTES or len(job) >= _JOB_OBJECTS:
            yield job
            job, size = [], 0
    if job:
        yield job


def _problems(store: BlobStore, objects: Iterable[tuple[str, bool]]) -> list[Problem]:
    problems = []
    for digest, alone in objects:
        try:
            store.verify(digest, alone=alone)
        except IntegrityError as error:
            if error.code != "store.missing":  # swept since the survey; see what is expected
                problems.append(Problem(digest=digest, what=error.message))
    return problems


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
        try:
            size = store.path(entry.digest).stat().st_size
        except IntegrityError:
            _miss(entry.digest, f"Object {entry.digest} ({where}) is missing.", findings)
            continue
        if size != entry.size:
            what = f"Object {entry.digest} ({where}) has {size} bytes instead of {entry.size}."
            findings.corrupt.setdefault(entry.digest, Problem(digest=entry.digest, what=what))


def _miss(digest: str, what: str, findings: _Findings) -> None:
    findings.missing.setdefault(digest, Problem(digest=digest, what=what))
