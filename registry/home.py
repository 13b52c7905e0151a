"""Where a registry keeps its things: the layout of `.still/`.

objects/            the store                      events.log       the ledger
registry.duckdb     the projection                 runs/<run key>/  scratch, log, resume state
inbox/<kind>/       dropped here = published       reactor.lock     held by the one advancer
config.toml         limits                         lineage.idx      the adjacency index
gc.lock             held by who takes objects away
damaged/            objects that a repair replaces
stat.cache/         digests of unchanged files     fsck.state       how far a check came
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError

FOLDER = ".still"
LEDGER = "events.log"
PROJECTION = "registry.duckdb"
VARIABLE = "STILL_REGISTRY"


@dataclass(frozen=True)
class Home:
    """The paths of one registry."""

    root: Path

    @property
    def objects(self) -> Path:
        """The store's folder."""
        return self.root / "objects"

    @property
    def log(self) -> Path:
        """The ledger."""
        return self.root / LEDGER

    @property
    def projection(self) -> Path:
        """The DuckDB file."""
        return self.root / PROJECTION

    @property
    def lineage(self) -> Path:
        """The adjacency index: derived from the ledger, and built again at will."""
        return self.root / "lineage.idx"

    @property
    def inbox(self) -> Path:
        """What is dropped into its folders is published in watch mode."""
        return self.root / "inbox"

    @property
    def config(self) -> Path:
        """Limits, as TOML."""
        return self.root / "config.toml"

    @property
    def reactor_lock(self) -> Path:
        """Held by the one process that advances this registry."""
        return self.root / "reactor.lock"

    @property
    def gc_lock(self) -> Path:
        """Held by the one process that takes objects away."""
        return self.root / "gc.lock"

    @property
    def damaged(self) -> Path:
        """Objects whose bytes are not what their names say, until good ones are durable."""
        return self.root / "damaged"

    @property
    def stat_cache(self) -> Path:
        """Digests of files that did not change since they were read: derived."""
        return self.root / "stat.cache"

    @property
    def fsck_state(self) -> Path:
        """How far an interrupted check of the store came: derived."""
        return self.root / "fsck.state"

    @property
    def runs(self) -> Path:
        """The folders of runs; a run's goes when its success is recorded."""
        return self.root / "runs"

    def run(self, key: Digest) -> Path:
        """The folder of one run key."""
        return self.runs / key

    def run_lock(self, key: Digest) -> Path:
        """Held by the worker of that run for as long as it lives."""
        return self.run(key) / "lock"

    @property
    def exists(self) -> bool:
        """Whether a registry was made here."""
        return self.config.is_file()

    def require(self) -> Home:
        """This home, if a registry was made here; else InputError."""
        if not self.exists:
            raise InputError(
                f"There is no registry at {self.root}.",
                remedy="Make one with `still init`, or name another with --registry DIR.",
                code="registry.missing",
            )
        return self


def locate(explicit: Path | None, cwd: Path) -> Home:
    """The home that a command means: --registry, else STILL_REGISTRY, else the nearest .still/.

    Without any, `.still/` in the current folder, which may not exist yet.
    """
    if explicit is None and not os.environ.get(VARIABLE):
        for folder in (cwd, *cwd.parents):
            if (folder / FOLDER / "config.toml").is_file():
                return Home(folder / FOLDER)
    return place(explicit, cwd)


def place(explicit: Path | None, cwd: Path) -> Home:
    """The home that `still init` makes: --registry, else STILL_REGISTRY, else `.still/` here.

    Unlike `locate` it does not look above `cwd`: a registry may be made below another.
    """
    named = explicit or os.environ.get(VARIABLE)
    return Home(Path(named) if named else cwd / FOLDER)
