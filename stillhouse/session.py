"""Where concrete things meet: one registry's ledger, store, state, projection and reactor.

Everything is made on first use, so a command pays only for what it touches.
"""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from stillhouse.registry.home import Home
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.event import Actor

if TYPE_CHECKING:
    from stillhouse.config import Config
    from stillhouse.phases.reactor.reactor import Notice, Reactor
    from stillhouse.registry.ledger.ledger import Ledger, LedgerReader
    from stillhouse.registry.projection.projection import Projection
    from stillhouse.registry.state.state import State
    from stillhouse.schemas.limits import Limits
    from stillhouse.store.objects.local import BlobStore


def clock() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


def actor() -> Actor:
    """Who is running this command."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no passwd entry, as in some containers
        user = f"uid-{os.getuid()}"
    return Actor(user=user, host=platform.node() or "localhost")


@dataclass
class Session:
    """One open registry."""

    home: Home
    _limits_read: tuple[int, Limits] | None = None
    _reactor: Reactor | None = None
    """The latest one: its state is the session's."""

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger."""
        from stillhouse.registry.ledger.ledger import Ledger

        return Ledger(self.home.log, clock, actor(), secrets=self.secrets)

    @cached_property
    def store(self) -> BlobStore:
        """The store."""
        from stillhouse.store.objects.local import BlobStore

        return BlobStore(self.home.objects)

    @cached_property
    def projection(self) -> Projection:
        """The projection; importing DuckDB costs 100 ms."""
        from stillhouse.registry.projection.projection import Projection

        return Projection(self.home.projection, self.home.log)

    def state(self) -> State:
        """The folded state as of now: one object, which follows the ledger whenever it is asked.

        Once there is a reactor it is the reactor's, so that one process folds, and holds, one.
        """
        if self._reactor is not None:
            self._reactor.refresh()
            return self._reactor.state
        folded, reader = self._folded
        return folded.follow(reader)

    def reader(self) -> LedgerReader:
        """Reads the ledger from its beginning, then what is new each time."""
        from stillhouse.registry.ledger.ledger import LedgerReader

        return LedgerReader(self.home.log)

    @cached_property
    def _folded(self) -> tuple[State, LedgerReader]:
        from stillhouse.registry.state.state import State

        return State(), self.reader()

    @cached_property
    def config(self) -> Config:
        """The registry's limits, and where its keys are. Raises InputError."""
        from stillhouse.config import read_config

        return read_config(self.home)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that no event and no log may show. Raises InputError."""
        from stillhouse.schemas.secrets import secret_values

        return secret_values(os.environ, self.config.secrets)

    def _limits(self) -> Limits:
        """The limits as they stand, for those that live long: config.toml is read when it changed.

        One that can not be read, as in the middle of an edit, changes nothing.
        """
        from stillhouse.config import read_config

        with suppress(OSError, InputError):
            stamp = self.home.config.stat().st_mtime_ns
            if self._limits_read is None or self._limits_read[0] != stamp:
                self._limits_read = stamp, read_config(self.home).limits()
        return self._limits_read[1] if self._limits_read else self.config.limits()

    def reactor(
        self,
        listener: Callable[[Notice], None] = lambda _: None,
        wait: Callable[[float], None] | None = None,
    ) -> Reactor:
        """A reactor over this registry with the real catalog. `wait`: see Reactor.

        From now on `state` is this one's, and the listener hears what is folded for either.
        """
        from stillhouse.phases.catalog import CATALOG
        from stillhouse.phases.reactor.reactor import Reactor

        self._reactor = None
        self.__dict__.pop("_folded", None)  # before the next fold: two take twice the room
        self._reactor = Reactor(
            home=self.home,
            ledger=self.ledger,
            store=self.store,
            catalog=CATALOG,
            clock=clock,
            listener=listener,
            limits=self._limits,
            secrets=self.config.secrets,
            **({"wait": wait} if wait else {}),
        )
        return self._reactor


def open_registry(home: Home) -> Session:
    """Open a registry that exists.

    Raises InputError when there is none, IntegrityError `ledger.cut` when its ledger lost events
    that were projected: such a log is never extended.
    """
    from stillhouse.registry.ledger.witness import check_noted

    session = open_unchecked(home)
    check_noted(home.projection, home.log)
    return session


def open_unchecked(home: Home) -> Session:
    """Open a registry that exists, also with a damaged ledger. Raises InputError."""
    return Session(home.require())


def make_registry(home: Home) -> bool:
    """Make an empty registry at `home`; False when there is one already.

    Raises StorageError, and InputError when a name of the layout is there as a link.

    `config.toml`, by which a registry is known, is written last: a kill leaves none, not half one.
    """
    if home.exists:
        return False
    home.require_own()
    from stillhouse.config import TEXT
    from stillhouse.schemas.artifact import PUBLISHABLE
    from stillhouse.store.disk.durable import make_folder, replace_durably, sync_folder, writing
    from stillhouse.store.objects.local import BlobStore

    with writing(home.root):
        make_folder(home.root)
        for folder in (home.runs, *(home.inbox / k for k in PUBLISHABLE)):
            folder.mkdir(parents=True, exist_ok=True)
        BlobStore.create(home.objects)
        home.log.touch()
        for folder in (home.inbox, home.root, home.root.parent):
            sync_folder(folder)
    replace_durably(home.config, TEXT.encode())
    return True
