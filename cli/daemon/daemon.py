"""The daemon: publishes what is dropped into the inbox, and advances every plan.

What is taken stays where it is. The same content is never published twice. A dropped recipe becomes
a plan. A dropped checkpoint takes the place of training in the default recipe (`--recipe`, else the
built-in one). So a verified package follows without a command.

Of several daemons on one registry, the holder of `reactor.lock` works; the others stand by.

Rules: between two turns the daemon waits once, and does nothing else. A turn takes a few items at
most, so that a full inbox does not keep ended workers waiting.

SIGTERM takes effect between two steps of the reactor. It interrupts only the reading of a dropped
item, never the recording or folding of events. By default the workers go on, and the next daemon
takes them up; when draining, they end first. A second signal, and Ctrl-C, end the workers that this
daemon started. The workers that it took up go on.

An item that cannot be taken because a disk is full or something is held is tried again. An item
that is itself at fault is tried again when it changes.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from stillhouse import publish, recipes
from stillhouse.cli.daemon.inbox import Inbox, Item, changed, is_utf8, unfinished_part
from stillhouse.documents import read_document
from stillhouse.notices import Refusal
from stillhouse.phases.reactor.leader import advancer
from stillhouse.phases.reactor.waiting import Wakeups
from stillhouse.registry.planning.views import PlanView, Status
from stillhouse.schemas.artifact import PUBLISHABLE, Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import BusyError, InputError, StillError, StorageError
from stillhouse.schemas.recipe import (
    ConversionSection,
    ExportSection,
    Given,
    Recipe,
    VerificationSection,
)
from stillhouse.store.disk.durable import reading, shown

if TYPE_CHECKING:
    from stillhouse.notices import Watcher
    from stillhouse.phases.reactor.reactor import Reactor
    from stillhouse.session import Session

_STANDBY_SECONDS = 0.5
"""Between two tries to get the reactor's lock."""

_PROBED_SECONDS = 0.2
_PROBED_AGAIN_SECONDS = 0.02
"""How long a daemon that does not stand by tries the lock, and the time between two tries.

A process that only looks whether somebody has the lock holds it for a moment.
"""

_TAKEN_AT_ONCE = 8
_BUILT_IN_POLICY = Path(__file__).with_name("built_in_policy.toml")


def watch(
    session: Session,
    watcher: Watcher,
    *,
    inbox: Path | None = None,
    recipe: Path | None = None,
    once: bool = False,
    drain: bool = False,
    poll: float | None = None,
) -> bool:
    """Run the daemon until it is stopped; with `once`, until inbox and plans are quiet.

    drain: at SIGTERM, let live runs end first; with `once`, do so from the beginning.
    poll: seconds between two looks at the inbox, where the system gives no notice of changes.
    Returns whether every plan that was asked for is done and nothing was refused; True, too, when
    SIGTERM stopped it.

    Raises InputError: `watch.no_inbox`; with `once`, `watch.busy`.
    """
    reactor = session.reactor(watcher.hear)
    watcher.follow(reactor)
    folder = _required(inbox) if inbox else session.home.inbox
    default = recipes.resolve(session, recipe) if recipe else None
    with (
        _Stop.listening() as stop,
        Wakeups(session.home.log, inbox=folder, poll=poll, tell=watcher.note) as wakeups,
    ):
        daemon = _Daemon(
            session,
            reactor,
            watcher,
            inbox=Inbox(folder=folder),
            wakeups=wakeups,
            stop=stop,
            default=default,
        )
        try:
            return daemon.serve(once=once, drain=drain)
        except KeyboardInterrupt:
            reactor.stop()
            raise


class _Asked(BaseException):
    """SIGTERM came in the middle of something that may be given up at any moment."""


class _Stop:
    """Whether the daemon has to stop (SIGTERM)."""

    def __init__(self) -> None:
        self.asked = False
        self._at_once = False

    @classmethod
    @contextmanager
    def listening(cls) -> Iterator[_Stop]:
        """Listen for SIGTERM meanwhile; the second one is as Ctrl-C."""
        stop = cls()
        before = signal.signal(signal.SIGTERM, stop._hear)
        try:
            yield stop
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raises _Asked, from anywhere inside, when SIGTERM comes; at once, when it came before."""
        self._at_once = True
        try:
            if self.asked:
                raise _Asked
            yield
        finally:
            self._at_once = False

    def _hear(self, _signal: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self._at_once:
            raise _Asked


class _Daemon:
    """One holder of the reactor's lock."""

    def __init__(
        self,
        session: Session,
        reactor: Reactor,
        watcher: Watcher,
        *,
        inbox: Inbox,
        wakeups: Wakeups,
        stop: _Stop,
        default: Digest | None,
    ) -> None:
        self._session, self._reactor, self._watcher = session, reactor, watcher
        self._inbox, self._wakeups = inbox, wakeups
        self._default, self._stop = default, stop
        self._refused = False
        self._inbox.look(time.monotonic())

    def serve(self, *, once: bool, drain: bool) -> bool:
        """Work while the lock is ours, and stand by while it is not; what `watch` returns."""
        until = time.monotonic() + _PROBED_SECONDS
        stands_by = False
        while not self._stop.asked:
            with self._reactor.advancing() as mine:
                if mine:
                    if stands_by:
                        taken = "Nobody else advances this registry any more: taking over."
                        self._watcher.note(taken)
                    return self._advance(once=once, drain=drain)
            late = time.monotonic() >= until
            if once and late:
                raise InputError(
                    f"{self._other()} is advancing this registry.",
                    remedy="Leave the work to it, or stop it first.",
                    code="watch.busy",
                )
            if late and not stands_by:
                stands_by = True
                beside = f"{self._other()} advances this registry"
                self._watcher.note(f"{beside}: standing by to take over from it.")
            self._reactor.refresh()
            self._wait(_PROBED_AGAIN_SECONDS if once else _STANDBY_SECONDS)
        return True

    def _other(self) -> str:
        """Who advances instead, as the beginning of a sentence."""
        pid = advancer(self._session.home)
        return "Another process" if pid is None else f"Process {pid}"

    def _advance(self, *, once: bool, drain: bool) -> bool:
        """Work until all is quiet, or until SIGTERM."""
        quiet = not (drain and once) and self._work(once=once)
        if drain:
            self._note_running("Starting nothing more; runs that are still to end")
            self._drain()
        self._reactor.hand_over()
        self._note_running(
            "Runs that go on, and are taken up by whoever advances this registry next"
        )
        return self._all_done() if quiet else True

    def _note_running(self, what: str) -> None:
        if live := len(self._reactor.state.running()):
            self._watcher.note(f"{what}: {live}.")

    def _work(self, *, once: bool) -> bool:
        """Turn until SIGTERM; with `once`, until all is quiet. Returns whether it is."""
        while not self._stop.asked:
            taken = self._take_some()
            if self._reactor.tick() or taken:
                continue
            if once and self._quiet():
                return True
            self._reactor.warm()
            self._wait(self._patience())
        return False

    def _drain(self) -> None:
        """Let live runs end and record them; start nothing."""
        while True:
            if self._reactor.tick(start=False):
                continue
            if not self._reactor.state.running():
                return
            self._wait(self._reactor.pause())

    def _wait(self, seconds: float | None) -> None:
        """Wait until something happens, for `seconds` at most; first show all that is known."""
        self._reactor.report_progress()
        self._watcher.draw()
        self._wakeups.wait(seconds)

    def _all_done(self) -> bool:
        """Whether every requested plan is done and nothing was refused or waits to be taken."""
        plans = self._reactor.state.wanted()
        taken = not (self._refused or self._inbox.owing)
        return taken and all(self._reactor.view(plan).done for plan in plans)

    def _quiet(self) -> bool:
        """Whether nothing more will happen by itself."""
        if not self._reactor.idle:
            return False
        self._inbox.look(time.monotonic())
        return self._inbox.resting

    def _patience(self) -> float | None:
        """Seconds until something is due although nothing happens; None: never."""
        waits = [self._reactor.pause(), self._inbox.settles_in(time.monotonic())]
        return min((seconds for seconds in waits if seconds is not None), default=None)

    # -- taking --------------------------------------------------------------------------------

    def _take_some(self) -> bool:
        """Take what has come to rest, a few items at most; whether there were any."""
        now = time.monotonic()
        if self._wakeups.inbox_noticed() or self._inbox.settles_in(now) == 0:
            self._inbox.look(now)
        items = self._inbox.take(now, _TAKEN_AT_ONCE)
        with suppress(_Asked):
            for item in items:
                self._take(item)
        return bool(items)

    def _take(self, item: Item) -> None:
        if self._stop.asked:
            return
        try:
            self._publish(item)
        except (StorageError, BusyError) as error:
            self._put_off(item, error)
        except StillError as error:
            self._refuse(item, error)
        except Exception as error:  # noqa: BLE001  # one odd file must not end the daemon for all
            told = InputError(
                f"{shown(item.path)} could not be taken in: {type(error).__name__}: {error}.",
                remedy="Remove it; if it is a sound file, please report this.",
                code="inbox.crashed",
            )
            told.__cause__ = error
            self._refuse(item, told)

    def _publish(self, item: Item) -> None:
        if item.kind is None:
            raise _of_no_kind(item.path)
        _require_whole(item)
        if item.kind is Kind.RECIPE:
            self._publish_recipe(item.path)
            return
        published = publish.take_in(
            self._session, item.path, item.kind, while_reading=self._stop.at_once
        )
        if item.kind is Kind.CHECKPOINT:
            self._request(self._plan_for(published.digest))

    def _publish_recipe(self, path: Path) -> None:
        recipe = recipes.read(read_document(path), where=shown(path))
        self._request(recipes.resolve_recipe(self._session, recipe, base=None))

    def _refuse(self, item: Item, error: StillError) -> None:
        """Complain, unless it changed while it was read: then it comes to rest once more."""
        if not changed(item):
            self._refused = True
            self._watcher.refused(Refusal(path=item.path, error=error))

    def _put_off(self, item: Item, error: StillError) -> None:
        """Try it again later, as it is not to blame; complain the first time."""
        if not changed(item) and self._inbox.put_off(item, time.monotonic()):
            self._watcher.refused(Refusal(path=item.path, error=error))

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
        policy=publish.publish_policy(session, _BUILT_IN_POLICY).digest,
        given=Given(checkpoint="0" * 64),  # replaced by with_checkpoint
        export=ExportSection(prefill=(128,), primary=128, decode_capacity=128),
        conversion=ConversionSection(),
        verification=VerificationSection(),
    )


def _required(inbox: Path) -> Path:
    with reading(inbox):
        found = inbox.is_dir()
    if not found:
        raise InputError(
            f"There is no folder {shown(inbox)} to watch.",
            remedy="Make it, with one folder in it for each kind that is to be dropped there.",
            code="watch.no_inbox",
        )
    return inbox


def _of_no_kind(path: Path) -> InputError:
    kinds = ", ".join(sorted(PUBLISHABLE))
    return InputError(
        f"{shown(path)} is no folder of a kind, so nothing of it is published.",
        remedy=f"Move what is to be published into a folder beside it that is named as its kind: "
        f"{kinds}.",
        code="inbox.no_kind",
    )


def _require_whole(item: Item) -> None:
    """Raises InputError: it can not be looked at or named, or a download in it is not finished."""
    with reading(item.path):
        if item.fault:
            raise item.fault
    if not is_utf8(item.path.name):
        raise InputError(
            f"The name of {shown(item.path)} is not UTF-8, and no event can hold it.",
            remedy="Rename it; it is looked at again then.",
            code="inbox.not_utf8",
        )
    part = unfinished_part(item)
    if part is not None:
        raise InputError(
            f"{shown(item.path)} holds {shown(part)}, which is not complete.",
            remedy="Finish or remove it; the folder is looked at again when it changes.",
            code="inbox.unfinished",
        )
