"""The daemon: publishes what is dropped into the inbox, and advances every plan.

`inbox/<kind>/NAME` is taken when it did not change for two seconds. What is taken stays where it
is; the same content is never published twice. A dropped recipe becomes a plan. A dropped checkpoint
takes the place of training in the default recipe (`--recipe`, else the built-in one), so a verified
package follows without a command.

Of several daemons on one registry the holder of `reactor.lock` works; the others stand by.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from cli import intake, recipes
from cli.documents import read_document
from cli.wiring import Session
from phases.reactor import Notice, Reactor
from registry.plans import PlanView, Status
from schemas.artifact import PUBLISHABLE, Kind
from schemas.digest import Digest
from schemas.errors import InputError, StillError
from schemas.recipe import (
    ConversionSection,
    ExportSection,
    Given,
    Recipe,
    VerificationSection,
)
from store.durable import reading, shown

SETTLE_SECONDS = 2.0
"""A dropped item is taken when it did not change for this long."""

_POLL_SECONDS = 0.1
_BUILT_IN_POLICY = Path(__file__).with_name("built_in_policy.toml")

Signature = tuple[tuple[str, int, int], ...]
"""(relative path, size, mtime_ns) of every file of an item."""


@dataclass(kw_only=True)
class _Item:
    signature: Signature
    since: float
    taken: bool = False


@dataclass(kw_only=True)
class Inbox:
    """What lies in the inbox, and since when it has been still."""

    folder: Path
    items: dict[Path, _Item] = field(default_factory=dict)

    def ready(self, now: float) -> list[tuple[Kind, Path]]:
        """Items that have come to rest and were not handed out yet. `now`: monotonic seconds."""
        present = dict(_scan(self.folder))
        for gone in set(self.items) - set(present):
            del self.items[gone]
        found = []
        for path, signature in present.items():
            item = self.items.get(path)
            if item is None or item.signature != signature:
                self.items[path] = _Item(signature=signature, since=now)
            elif not item.taken and now - item.since >= SETTLE_SECONDS:
                item.taken = True
                found.append((Kind(path.parent.name), path))
        return found

    @property
    def resting(self) -> bool:
        """Whether everything that is here was handed out."""
        return all(item.taken for item in self.items.values())


def watch(
    session: Session,
    *,
    inbox: Path | None = None,
    recipe: Path | None = None,
    once: bool = False,
    listener: Callable[[Notice], None],
    complain: Callable[[Path, StillError], None],
) -> bool:
    """Run the daemon until it is stopped; with `once`, until inbox and plans are quiet.

    `complain` is told of each dropped item that was refused. Returns whether every plan that was
    asked for is done and nothing was refused.
    """
    default = recipes.resolve(session, recipe) if recipe else None
    reactor = session.reactor(listener)
    daemon = _Daemon(session, reactor, Inbox(folder=inbox or session.home.inbox), default, complain)
    with _stopping(reactor):
        while True:
            with reactor.advancing() as mine:
                while mine:
                    if not daemon.tick() and once and daemon.quiet():
                        return daemon.all_done()
            if once:
                raise InputError(
                    "Another process is advancing this registry.",
                    remedy="Leave the work to it, or stop it first.",
                    code="watch.busy",
                )
            time.sleep(_POLL_SECONDS)


class _Daemon:
    """One holder of the reactor's lock."""

    def __init__(
        self,
        session: Session,
        reactor: Reactor,
        inbox: Inbox,
        default: Digest | None,
        complain: Callable[[Path, StillError], None],
    ) -> None:
        self._session, self._reactor, self._inbox = session, reactor, inbox
        self._default = default
        self._complain = complain
        self._refused = False

    def tick(self) -> bool:
        """Take what is ready and advance; whether anything happened. Waits a little when not."""
        taken = self._inbox.ready(time.monotonic())
        for kind, path in taken:
            self._take(kind, path)
        moved = self._reactor.tick(tuple(self._reactor.state.requested))
        if not taken and not moved:
            self._reactor.report_progress()
            time.sleep(_POLL_SECONDS)
        return bool(taken) or moved

    def quiet(self) -> bool:
        """Whether nothing more will happen by itself."""
        state = self._reactor.state
        return (
            self._inbox.resting
            and not state.running()
            and not self._reactor.pending(tuple(state.requested))
        )

    def all_done(self) -> bool:
        """Whether every requested plan is done and nothing was refused."""
        plans = self._reactor.state.requested
        return not self._refused and all(self._reactor.view(plan).done for plan in plans)

    def _take(self, kind: Kind, path: Path) -> None:
        try:
            if kind is Kind.RECIPE:
                self._take_recipe(path)
                return
            published = intake.publish(self._session, path, kind)
            if kind is Kind.CHECKPOINT:
                self._request(self._plan_for(published.digest))
        except StillError as error:
            self._refuse(path, error)
        except Exception as error:  # noqa: BLE001  # one odd file must not end the daemon for all
            told = InputError(
                f"{shown(path)} could not be taken in: {type(error).__name__}: {error}.",
                remedy="Remove it; if it is a sound file, please report this.",
                code="inbox.crashed",
            )
            told.__cause__ = error
            self._refuse(path, told)

    def _refuse(self, path: Path, error: StillError) -> None:
        self._refused = True
        self._complain(path, error)

    def _take_recipe(self, path: Path) -> None:
        recipe = recipes.read(read_document(path), where=shown(path))
        self._request(recipes.resolve_recipe(self._session, recipe, base=None))

    def _request(self, plan: Digest) -> None:
        self._reactor.refresh()
        if plan not in self._reactor.state.requested:
            recipes.request(self._session, plan)

    def _plan_for(self, checkpoint: Digest) -> Digest:
        """The plan that a dropped checkpoint starts."""
        if self._default is None:
            recipe = built_in_recipe(self._session)
            return recipes.with_checkpoint(self._session, recipe, checkpoint, None)
        self._reactor.refresh()
        recipe = self._reactor.state.recipe(self._default)
        dataset = recipe.given.dataset or made_dataset(self._reactor.view(self._default))
        return recipes.with_checkpoint(self._session, recipe, checkpoint, dataset)


def made_dataset(view: PlanView) -> Digest | None:
    """The data set that a plan's dataset phase made already, if it did."""
    for slot in view.slots:
        if slot.slot.id == "dataset" and slot.status is Status.FILLED:
            return slot.outputs.get("dataset")
    return None


def built_in_recipe(session: Session) -> Recipe:
    """Export, conversion and verification of one checkpoint, under the built-in policy."""
    return Recipe(
        name="checkpoint",
        policy=intake.publish_policy(session, _BUILT_IN_POLICY).digest,
        given=Given(checkpoint="0" * 64),  # replaced by with_checkpoint
        export=ExportSection(prefill=(128,), primary=128, decode_capacity=128),
        conversion=ConversionSection(),
        verification=VerificationSection(),
    )


def _scan(folder: Path) -> Iterator[tuple[Path, Signature]]:
    """Every item of the inbox with its signature. Hidden and editor temporaries are passed over."""
    for kind in sorted(PUBLISHABLE):
        with reading(folder / kind), suppress(FileNotFoundError):
            for path in sorted((folder / kind).iterdir()):
                if path.name.startswith(".") or path.name.endswith(("~", ".tmp", ".swp", ".part")):
                    continue
                with suppress(FileNotFoundError):  # it was moved away while we looked
                    yield path, _signature_or_fault(path)


def _signature_or_fault(path: Path) -> Signature:
    """An item that cannot be looked at comes to rest too: whoever takes it tells why."""
    try:
        return _signature(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        return ((error.strerror or "unknown error", 0, 0),)


def _signature(path: Path) -> Signature:
    if path.is_symlink() or not path.is_dir():
        status = path.lstat()
        return ((".", status.st_size, status.st_mtime_ns),)
    found = []
    for root, _, files in os.walk(path):
        for name in sorted(files):
            status = (Path(root) / name).lstat()
            relative = (Path(root) / name).relative_to(path).as_posix()
            found.append((relative, status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))


@contextmanager
def _stopping(reactor: Reactor) -> Iterator[None]:
    """End our workers when the daemon is told to stop; the next one takes their runs up again."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        reactor.stop()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
