"""The folders below `runs/`: how large each is, and which may go.

A run's folder goes when its success is recorded. The folders of other runs stay, since their
scratch saves work when the runs are taken up again. Nothing that is recorded rests on that scratch.
So such a folder may go under two conditions. The run ended longer ago than the grace, and no plan
that is asked for would take it up.

Rules: a folder is never touched while its lock is held, while its run goes on, or before the end of
its run is recorded. All this is looked at again under the lock, without which no run starts in the
folder. The folder gets another name before anything in it is removed, so that no run ever goes on
from half of it.
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from stillhouse.phases.catalog import CATALOG
from stillhouse.phases.reactor.repeat import repeat_key
from stillhouse.phases.reactor.site import Surroundings
from stillhouse.phases.workers.launch import Launcher
from stillhouse.registry.home import Home
from stillhouse.registry.planning.assess import assess
from stillhouse.registry.planning.views import Site, Status
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import State
from stillhouse.schemas import moment
from stillhouse.schemas.digest import SHORT, Digest, is_digest
from stillhouse.schemas.limits import Limits
from stillhouse.store.disk.durable import writing

_GOING = "removed-"
"""What the name of a folder begins with that is being removed."""

_HOW = {
    "succeeded": "succeeded",
    "failed": "failed",
    "abandoned": "was abandoned",
    "cancelled": "was cancelled",
}


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """One folder below `runs/`."""

    name: str
    """The run key, but for what repeats a run, and for what is half removed."""
    slot: str
    """Of the run; empty where none was recorded."""
    bytes: int
    """Bytes that are free without it."""
    fate: Literal["remove", "keep"]
    why: str
    """Why it may go, or stays."""

    @property
    def over(self) -> bool:
        """Whether it may go."""
        return self.fate == "remove"


class RunFolders:
    """What lies below `runs/` of one registry."""

    def __init__(self, home: Home, state: State, limits: Limits) -> None:
        """`state`: folded by the caller, who may go on folding."""
        self._home, self._state, self._limits = home, state, limits
        self._wanted: dict[Digest, Digest] = {}
        """Run key that a plan would execute -> that plan …"""
        self._wanted_seq = -1
        """… as of this event."""

    def look(self, now: str, since: str) -> tuple[RunFolder, ...]:
        """Every folder as it stands at `now`; what ended before `since` is old (RFC 3339 UTC)."""
        paths = sorted(path for path in self._home.runs.glob("*") if _is_ours(path))
        return tuple(self._folder(path, now, since) for path in paths)

    def remove(
        self, found: RunFolder, now: str, since: str, *, refresh: Callable[[], object]
    ) -> bool:
        """Remove a folder that may go; False: somebody has it, or it may not go any more.

        refresh: folds what was recorded meanwhile; called under the folder's lock. Raises
        StorageError.
        """
        path = self._home.runs / found.name
        if not found.name.startswith(_GOING):
            with Launcher(self._home).locked(found.name) as lock:
                if lock is None:
                    return False
                refresh()
                if not self._fate(path, now, since)[0]:
                    return False
                aside = path.with_name(f"{_GOING}{found.name}")
                with writing(path):
                    _remove(aside)  # what a killed removal left of an earlier folder
                    path = path.rename(aside)
        with writing(path):
            _remove(path)
        return True

    def _folder(self, path: Path, now: str, since: str) -> RunFolder:
        over, why = self._fate(path, now, since)
        if over and self._is_held(path.name):
            over, why = False, "a live worker has it"
        run = self._state.runs.get(path.name)
        slot = run.started.slot if run else self._repeated.get(path.name, "")
        fate: Literal["remove", "keep"] = "remove" if over else "keep"
        return RunFolder(name=path.name, slot=slot, bytes=size_of(path), fate=fate, why=why)

    def _fate(self, path: Path, now: str, since: str) -> tuple[bool, str]:
        """Whether it may go, and why it may or may not; what costs most to know is asked last."""
        run = self._state.runs.get(path.name)
        if path.name.startswith(_GOING):
            return True, "its removal was interrupted"
        if run is not None and run.going_on:
            return False, "the run goes on, or its end is not recorded yet"
        if (run.ended_ts if run else _touched(path)) >= since:
            return False, "it is younger than the grace period"
        if plan := self._own_plan(run) or self._taken_up(now).get(path.name):
            return False, f"plan {plan[:SHORT]} would take it up again"
        if run is not None:
            how = _HOW[run.status]
            return True, f"the run {how} longer ago than the grace"
        given_up = path.name in self._repeated
        return True, "a rewind was given up" if given_up else "no run of it was recorded"

    def _is_held(self, name: str) -> bool:
        if not self._home.run_lock(name).exists():
            return False
        with Launcher(self._home).locked(name) as lock:
            return lock is None

    def _own_plan(self, run: Run | None) -> Digest | None:
        """The plan that the run was started for, if it is asked for and the slot is not filled.

        Whether its slot would have this very key now may depend on a gate that is yet to open.
        """
        if run is None or run.last == "succeeded":
            return None
        plan = run.started.plan
        filled = (plan, run.started.slot) in self._state.filled
        return plan if self._state.wants(plan) and not filled else None

    def _taken_up(self, now: str) -> dict[Digest, Digest]:
        """Run key that a plan would execute -> that plan."""
        if self._wanted_seq != self._state.seq:
            self._wanted_seq = self._state.seq
            self._wanted = {
                slot.key: plan
                for plan in self._state.wanted()
                for slot in assess(self._state, plan, CATALOG, self._site, now).slots
                if slot.key is not None and slot.status is not Status.FILLED
            }
        return self._wanted

    @cached_property
    def _site(self) -> Site:
        return Surroundings(self._limits).site

    @cached_property
    def _repeated(self) -> dict[Digest, str]:
        """Name of the folder in which a run would be repeated -> the run's slot."""
        return {repeat_key(run.key): run.started.slot for run in self._state.runs.values()}


def size_of(path: Path) -> int:
    """Bytes of the files in a folder that have no other name, as objects in the store have."""
    return sum(_sizes(path))


def _sizes(path: Path) -> Iterator[int]:
    for file in path.rglob("*"):
        with suppress(FileNotFoundError):
            status = file.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                yield status.st_size


def _is_ours(path: Path) -> bool:
    named = is_digest(path.name.removeprefix(_GOING))
    return named and path.is_dir() and not path.is_symlink()


def _touched(path: Path) -> str:
    """When something was last written into the folder itself (RFC 3339 UTC)."""
    latest = path.lstat().st_mtime
    for file in path.iterdir():
        with suppress(FileNotFoundError):
            latest = max(latest, file.lstat().st_mtime)
    return moment.spell(datetime.fromtimestamp(latest, UTC))


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(path)
