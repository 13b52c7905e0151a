"""What an advancer waits for: one wait that ends as soon as there is something to do.

It ends when the log grew, when something changed in the inbox, when a child process ended, at a
signal, or when the time is over. Rules: nothing is done while waiting; a notice that comes between
two waits ends the next one, so none is lost; a notice says that it is worth looking, never what
there is to see.

The log is watched through the kernel (inotify on Linux, kqueue on macOS) and not through
watchfiles: that wakes up every few milliseconds to look for notices, which at a delay of 20 ms
costs 0.35 % of a core and at 5 ms 0.8 %. For the inbox, whose items settle for seconds anyway, its
recursion is what is wanted, and a quarter of a second is early enough. Where neither is to be had
(network file systems tell nobody of other machines' writes; inotify has limits), both are looked
at now and then: `poll`.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Protocol, Self

POLL_SECONDS = 2.0
"""Between two looks, where nothing tells of changes."""

_STEP_MS = 250
_GROUP_MS = 1000
"""A burst of changes in the inbox is one notice, at most so often."""


class Wakeups:
    """The waiting of one process. Entered in its main thread: it takes over SIGCHLD."""

    def __init__(
        self,
        log: Path,
        *,
        inbox: Path | None = None,
        poll: float | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`poll`: look every so many seconds instead of waiting for the kernel's notices.

        `tell` hears why it looks although it was not asked to.
        """
        self._log, self._inbox = log, inbox
        self._poll, self._tell = poll, tell
        self._selector = selectors.DefaultSelector()
        self._entered = ExitStack()
        self._noticed = False
        self._deaf: RuntimeError | None = None
        self._size = -1
        self._looked = 0.0

    def __enter__(self) -> Self:
        """Begin to listen."""
        with ExitStack() as stack:
            stack.enter_context(self._selector)
            self._hear_signals(stack)
            if self._poll is None:
                try:
                    self._hear_files(stack)
                except (OSError, RuntimeError) as error:
                    self._fall_back(error)
            self._size = _size(self._log)
            self._looked = time.monotonic()
            self._entered = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.close()

    @property
    def polling(self) -> bool:
        """Whether it looks now and then because nothing tells."""
        return self._poll is not None

    def wait(self, seconds: float | None) -> None:
        """Until something happened, at most so long; None: as long as it takes."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            left = _sooner(None if end is None else end - time.monotonic(), self._poll)
            heard = self._selector.select(left)
            for key, _ in heard:
                key.data()
            if heard or (self._poll is not None and self._look()):
                return
            if end is not None and time.monotonic() >= end:
                return

    def inbox_noticed(self) -> bool:
        """Whether it is worth looking into the inbox again; asking forgets."""
        noticed, self._noticed = self._noticed, False
        return noticed

    # -- what is listened to -------------------------------------------------------------------

    def _hear_signals(self, stack: ExitStack) -> None:
        """Let every signal that Python handles end the wait; the end of a child is one."""
        reader = self._pipe(stack, lambda: None)
        old = signal.set_wakeup_fd(reader, warn_on_full_buffer=False)
        stack.callback(signal.set_wakeup_fd, old)
        stack.callback(signal.signal, signal.SIGCHLD, signal.signal(signal.SIGCHLD, _no_action))

    def _hear_files(self, stack: ExitStack) -> None:
        """Raises OSError or RuntimeError where the kernel's notices are not to be had."""
        notices = stack.enter_context(_log_notices(self._log))
        self._selector.register(notices.fileno(), selectors.EVENT_READ, notices.drain)
        if self._inbox is not None:
            self._hear_inbox(stack, self._inbox)

    def _hear_inbox(self, stack: ExitStack, inbox: Path) -> None:
        # watchfiles documents this class as its "Rust backend"; its generators would find out only
        # in the thread that notices are not to be had.
        from watchfiles._rust_notify import RustNotify

        notify = RustNotify([os.fspath(inbox)], False, False, 0, True, True)
        stop = threading.Event()
        writer = self._pipe(stack, self._notice_inbox)

        def listen() -> None:
            try:
                while notify.watch(_GROUP_MS, _STEP_MS, 0, stop) != "stop":
                    os.write(writer, b"\0")
            except RuntimeError as error:
                self._deaf = error
                os.write(writer, b"\0")

        thread = threading.Thread(target=listen, name="inbox", daemon=True)
        thread.start()
        stack.callback(notify.close)
        stack.callback(thread.join)
        stack.callback(stop.set)

    def _pipe(self, stack: ExitStack, then: Callable[[], None]) -> int:
        """A descriptor to write to; what is written ends the wait, and `then` is called."""
        reader, writer = os.pipe()
        for descriptor in (reader, writer):
            os.set_blocking(descriptor, False)
            stack.callback(os.close, descriptor)

        def drain() -> None:
            _drain(reader)
            then()

        self._selector.register(reader, selectors.EVENT_READ, drain)
        return writer

    def _notice_inbox(self) -> None:
        self._noticed = True
        if self._deaf is not None:  # as when a dropped folder has more folders than may be watched
            self._fall_back(self._deaf)
            self._deaf = None

    def _fall_back(self, error: Exception) -> None:
        self._poll = POLL_SECONDS
        self._tell(_why_polling(error))

    def _look(self) -> bool:
        """In polling mode: whether there is something to do; the inbox is always worth a look."""
        size, before = _size(self._log), self._size
        self._size = size
        now = time.monotonic()
        if self._poll is not None and now - self._looked >= self._poll:
            self._looked = now
            self._noticed = self._inbox is not None
        return self._noticed or size != before


class _LogNotices(Protocol):
    """The kernel's notices about one file, as a descriptor that becomes readable."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def fileno(self) -> int:
        """The descriptor."""
        ...

    def drain(self) -> None:
        """Forget what was noticed."""
        ...


def _log_notices(log: Path) -> _LogNotices:
    """Raises OSError where they are not to be had."""
    if sys.platform == "darwin":
        return _Kqueue(log)
    return _Inotify(log)


class _Inotify:
    """inotify(7), for which the standard library has no door."""

    _MODIFY = 0x2

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise _last_error()
        if libc.inotify_add_watch(self._descriptor, os.fsencode(path), self._MODIFY) < 0:
            error = _last_error()
            os.close(self._descriptor)
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def drain(self) -> None:
        _drain(self._descriptor)


if sys.platform == "darwin":
    import select

    class _Kqueue:
        """kqueue(2) on the file's vnode."""

        def __init__(self, path: Path) -> None:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._queue = select.kqueue()
            wanted = select.kevent(
                self._file,
                select.KQ_FILTER_VNODE,
                select.KQ_EV_ADD | select.KQ_EV_CLEAR,
                select.KQ_NOTE_WRITE | select.KQ_NOTE_EXTEND,
            )
            self._queue.control([wanted], 0)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self._queue.close()
            os.close(self._file)

        def fileno(self) -> int:
            return self._queue.fileno()

        def drain(self) -> None:
            self._queue.control(None, 8, 0)


def _no_action(_signal: int, _frame: FrameType | None) -> None:
    """A signal without a handler in Python does not reach the wake-up descriptor."""


def _drain(descriptor: int) -> None:
    with suppress(BlockingIOError):
        while os.read(descriptor, 4096):
            pass


def _size(path: Path) -> int:
    with suppress(OSError):  # gone for a moment, as on a network file system: look again
        return path.stat().st_size
    return -1


def _sooner(left: float | None, poll: float | None) -> float | None:
    found = [max(0.0, seconds) for seconds in (left, poll) if seconds is not None]
    return min(found) if found else None


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _why_polling(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else error
    return (
        f"The system gives no notice of changed files here ({reason}), so they are looked at every "
        f"{POLL_SECONDS:g} s. Raise fs.inotify.max_user_watches and max_user_instances to mend it."
    )
