"""Where a registry keeps its things: the layout of `.still/`.

objects/            the store                      events.log       the ledger
registry.duckdb     the projection                 runs/<run key>/  scratch, log, resume state
inbox/<kind>/       dropped here = published       reactor.lock     held by the one advancer
config.toml         limits                         lineage.idx      the adjacency index
gc.lock             held by who takes objects away
damaged/            objects that a repair replaces
stat.cache/         digests of unchanged files     fsck.state       how far a check came

Rules: the root may be reached through links. Below it every name is a file or folder itself: what
lies behind a link or a pipe is somebody else's, and would be swept, truncated or waited for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stillhouse.schemas.artifact import PUBLISHABLE
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError

FOLDER = ".still"
LEDGER = "events.log"
PROJECTION = "registry.duckdb"
LINEAGE = "lineage.idx"
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
        return self.root / LINEAGE

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

    def folders(self) -> Iterator[Path]:
        """Every folder of the layout, those within the store and the inbox too."""
        yield from (self.objects, self.runs, self.inbox, self.damaged, self.stat_cache)
        yield from (self.objects / name for name in ("tmp", "leases", "condemned"))
        yield from (self.inbox / kind for kind in PUBLISHABLE)
        yield self.projection.with_name(f"{PROJECTION}.tmp")  # where questions spill

    def files(self) -> Iterator[Path]:
        """Every file of the layout, with those that stand beside one while it is written."""
        yield from (self.log, self.config, self.reactor_lock, self.gc_lock, self.fsck_state)
        for path, endings in (
            (self.projection, ("", ".lock", ".wal", ".new")),
            (self.lineage, ("", ".new")),
        ):
            yield from (path.with_name(path.name + ending) for ending in endings)

    def require(self) -> Home:
        """This home, if a registry was made here and all of it is its own; else InputError."""
        if not self.exists:
            raise InputError(
                f"There is no registry at {self.root}.",
                remedy="Make one with `still init`, or name another with --registry DIR.",
                code="registry.missing",
            )
        self.require_own()
        return self

    def require_own(self) -> None:
        """Raise InputError `registry.not_its_own` for a name of the layout that is a link."""
        for path in self.folders():
            _require_own(path, stat.S_ISDIR, "folder")
        for path in self.files():
            _require_own(path, stat.S_ISREG, "file")


def _require_own(path: Path, is_right: Callable[[int], bool], what: str) -> None:
    """Refuse a name of the layout that is something else. Raises InputError."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not is_right(mode):
        found = "a link" if stat.S_ISLNK(mode) else "something else"
        raise InputError(
            f"{path} must be a {what} of the registry itself, and it is {found}. Nothing behind it "
            "was read or changed.",
            remedy=f"Put the {what} itself there. For another disk, mount it there.",
            code="registry.not_its_own",
        )


def _require_owner(folder: Path) -> None:
    """Refuse a registry of somebody else that nobody named. Raises InputError.

    As git does (CVE-2022-24765): who may write above the current folder could plant one.
    """
    trusted = {os.geteuid()}
    if os.geteuid() == 0:
        named = os.environ.get("SUDO_UID", "")
        trusted.add(int(named) if named.isdecimal() else 0)
    if folder.stat().st_uid not in trusted:
        raise InputError(
            f"The nearest registry, {folder}, belongs to another user.",
            remedy=f"If you trust it, name it: --registry {folder}.",
            code="registry.foreign_owner",
        )


def locate(explicit: Path | None, cwd: Path) -> Home:
    """The home that a command means: --registry, else STILL_REGISTRY, else the nearest .still/.

    Without any, `.still/` in the current folder, which may not exist yet. Raises InputError when
    the nearest one belongs to another user.
    """
    if explicit is None and not os.environ.get(VARIABLE):
        for folder in (cwd, *cwd.parents):
            if (folder / FOLDER / "config.toml").is_file():
                _require_owner(folder / FOLDER)
                return Home(folder / FOLDER)
    return place(explicit, cwd)


def place(explicit: Path | None, cwd: Path) -> Home:
    """The home that `still init` makes: --registry, else STILL_REGISTRY, else `.still/` here.

    Unlike `locate` it does not look above `cwd`: a registry may be made below another.
    """
    named = explicit or os.environ.get(VARIABLE)
    return Home(Path(named) if named else cwd / FOLDER)
