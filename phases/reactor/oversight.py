"""Live workers: how far they are, what they take, and when they have to end.

Owns the watch over them. A run ends early for three reasons: it was cancelled, it took longer than
its phase may, or it holds more memory. Looking at workers costs reads of files, so it happens only
now and then. That a run was cancelled or is over time is known at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from stillhouse.phases.workers.job import Ending
from stillhouse.phases.workers.launch import Launcher
from stillhouse.registry.state.runs import Run
from stillhouse.schemas import moment
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import StorageError
from stillhouse.schemas.limits import Limits

LOOK_SECONDS = 0.5
"""Between two looks at what live workers take, and how far they are."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far one live run is."""

    run: Digest
    slot: str
    attempt: int
    label: str
    done: int
    total: int
    figures: Mapping[str, float]
    at: float = 0.0
    """Seconds since the attempt began to work."""


class Oversight:
    """What one reactor knows of the workers at work."""

    def __init__(
        self,
        launcher: Launcher,
        clock: Callable[[], datetime],
        listener: Callable[[Progress], None],
    ) -> None:
        self._launcher, self._clock, self._listener = launcher, clock, listener
        self._ending: set[tuple[Digest, int]] = set()
        """Attempts whose worker was signalled to end."""
        self._began: dict[tuple[Digest, int], float] = {}
        """Attempt -> when it started, by time.monotonic()."""
        self._looked = 0.0
        self._shown: dict[Digest, tuple[str, int]] = {}

    def look_after(self, runs: Sequence[Run], limits: Limits) -> None:
        """End runs that were cancelled or that take too much; keep logs bounded; `report`."""
        look = time.monotonic() - self._looked >= LOOK_SECONDS
        if look:
            self._looked = time.monotonic()
        for run in runs:
            self._look_at(run, limits, closely=look)
        if look:
            self.report(runs)

    def report(self, runs: Iterable[Run]) -> None:
        """Tell the listener how far runs are, where that changed."""
        for run in runs:
            note = self._launcher.progress(run.key)
            if note and self._shown.get(run.key) != (note["label"], note["done"]):
                self._shown[run.key] = (note["label"], note["done"])
                self._listener(
                    Progress(run=run.key, slot=run.started.slot, attempt=run.attempts, **note)
                )

    def time_left(self, run: Run, limits: Limits) -> float | None:
        """Seconds that a run may still take; None: as many as it wants."""
        seconds = limits.of(run.started.phase).seconds
        return None if seconds is None else seconds - self.age(run)

    def age(self, run: Run) -> float:
        """Seconds since a run started: by the wall until it is met, then by a clock nobody sets."""
        now = time.monotonic()
        if (run.key, run.attempts) not in self._began:
            old = (self._clock() - moment.parse(run.ts)).total_seconds()
            self._began[run.key, run.attempts] = now - max(0.0, old)
        return now - self._began[run.key, run.attempts]

    def forget(self, run: Digest, attempt: int) -> None:
        """An attempt has ended, and that is recorded."""
        self._shown.pop(run, None)
        self._began.pop((run, attempt), None)
        self._ending.discard((run, attempt))

    def _look_at(self, run: Run, limits: Limits, *, closely: bool) -> None:
        attempt = run.key, run.attempts
        why = self._too_long(run, limits)
        if closely and why is None:
            why = self._launcher.ending(*attempt) or self._too_large(run, limits)
        # A worker that has to end is signalled again now and then, until the grace is over.
        if why and (closely or attempt not in self._ending):
            self._ending.add(attempt)
            self._launcher.end(*attempt, why)
        if closely:
            with suppress(StorageError):  # a full disk is for the work to meet
                self._launcher.shorten_log(*attempt)

    def _too_long(self, run: Run, limits: Limits) -> Ending | None:
        if run.cancelled_seq:
            return Ending.CANCELLED
        left = self.time_left(run, limits)
        return Ending.TIME if left is not None and left <= 0 else None

    def _too_large(self, run: Run, limits: Limits) -> Ending | None:
        limit = limits.of(run.started.phase).memory
        taken = self._launcher.memory(run.key) if limit else None
        return Ending.MEMORY if limit and taken and taken > limit else None
