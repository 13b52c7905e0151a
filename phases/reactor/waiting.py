"""What an advancer waits for: one wait that ends as soon as there is something to do.

The wait ends when the log grew, the inbox changed, a child process ended, or a signal came. It also
ends when the time is over. Rules: nothing is done while waiting. A notice that comes between two
waits ends the next one, so none is lost. A notice says that it is worth looking, never what there
is to see. A notice that never comes costs ten minutes at most: no wait is longer.

The kernel watches the log (inotify on Linux, kqueue on macOS); watchfiles does not. Watchfiles
wakes up every few milliseconds to look for notices. At a delay of 20 ms that costs 0.35 % of a
core, at 5 ms 0.8 %. Watchfiles does watch the inbox, whose items settle for seconds anyway. There
its recursion is what is wanted, and a quarter of a second is early enough.

Both are known by their paths. When another file or folder is put there (restored from a copy,
removed and made again), the wait listens to that one. Where the kernel gives no notices, both are
looked at now and then: `poll`. Network file systems report no writes of other machines, and inotify
has limits.
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
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol, Self

POLL_SECONDS = 2.0
"""Between two looks, where nothing tells of changes."""

LONGEST_SECONDS = 600.0
"""No wait is longer. It bounds how long a lost notice is missed; epoll(7) takes 24 days at most."""

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
        self._followed: list[_Followed] = []
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

    def wait(self, seconds: float | None) -> None:
        """Wait until something happened; at most `seconds`, and at most `LONGEST_SECONDS`."""
        longest = LONGEST_SECONDS if seconds is None else min(seconds, LONGEST_SECONDS)
        end = time.monotonic() + longest
        while True:
            left = max(0.0, end - time.monotonic())
            heard = self._selector.select(min(left, self._step()))
            for key, _ in heard:
                key.data()
            found = [followed for followed in self._followed if self._find(followed)]
            if self._look() or heard or found:
                return
            if time.monotonic() >= end:
                return

    def inbox_noticed(self) -> bool:
        """Whether it is worth looking into the inbox again; asking forgets."""
        noticed, self._noticed = self._noticed, False
        return noticed

    # -- what is listened to -------------------------------------------------------------------

    def _hear_signals(self, stack: ExitStack) -> None:
        """Let every signal that Python handles end the wait; the end of a child is one."""
        writer = self._pipe(stack, lambda: None)
        old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        stack.callback(signal.set_wakeup_fd, old)
        stack.callback(signal.signal, signal.SIGCHLD, signal.signal(signal.SIGCHLD, _no_action))

    def _hear_files(self, stack: ExitStack) -> None:
        """Raises OSError or RuntimeError where the kernel's notices are not to be had."""
        self._follow(stack, self._log, content=True, anew=lambda: None)
        if self._inbox is not None:
            self._hear_inbox(stack, self._inbox)

    def _hear_inbox(self, stack: ExitStack, inbox: Path) -> None:
        writer = self._pipe(stack, self._notice_inbox)
        listening = stack.enter_context(ExitStack())

        def anew() -> None:
            listening.close()
            self._listen(listening, inbox, writer)

        self._follow(stack, inbox, content=False, anew=anew)

    def _follow(
        self, stack: ExitStack, path: Path, *, content: bool, anew: Callable[[], None]
    ) -> None:
        """Hear of the file or folder that the path names; `anew`: when that is another one.

        content: of changes in it, too. Raises what `anew` raises, and OSError.
        """
        notices = stack.enter_context(_notices(path, content=content))
        followed = _Followed(notices=notices, anew=anew)
        if notices.follow():
            anew()
        self._selector.register(
            notices.fileno(), selectors.EVENT_READ, lambda: self._attend(followed)
        )
        self._followed.append(followed)
        stack.callback(self._followed.remove, followed)

    def _attend(self, followed: _Followed) -> None:
        """Forget what was noticed, and see what the path names now."""
        followed.notices.drain()
        try:
            if followed.notices.follow():
                self._noticed = self._inbox is not None
                followed.anew()
        except (OSError, RuntimeError) as error:
            self._fall_back(error)

    def _find(self, followed: _Followed) -> bool:
        """Whether what was gone is there again."""
        if not followed.notices.lost:
            return False
        self._attend(followed)
        return not followed.notices.lost

    def _listen(self, stack: ExitStack, inbox: Path, writer: int) -> None:
        """Write to `writer` whenever something changes in the inbox, until the stack is closed."""
        # watchfiles documents this class as its "Rust backend"; its generators would find out only
        # in the thread that notices are not to be had.
        from watchfiles._rust_notify import RustNotify

        notify = RustNotify([os.fspath(inbox)], False, False, 0, True, True)
        stop = threading.Event()

        def listen() -> None:
            try:
                while notify.watch(_GROUP_MS, _STEP_MS, 0, stop) != "stop":
                    _ring(writer)
            except RuntimeError as error:
                self._deaf = error
                _ring(writer)

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
        if self._poll is None:
            self._poll = POLL_SECONDS
            self._tell(_why_polling(error))

    def _step(self) -> float:
        """Seconds until it looks for itself."""
        lost = any(followed.notices.lost for followed in self._followed)
        return self._poll or (POLL_SECONDS if lost else LONGEST_SECONDS)

    def _look(self) -> bool:
        """Look for oneself when it is time to; whether there is something to do."""
        now = time.monotonic()
        if now - self._looked >= (self._poll or LONGEST_SECONDS):
            self._looked = now
            self._noticed = self._inbox is not None
        if self._poll is None:
            return False
        size, before = _size(self._log), self._size
        self._size = size
        return self._noticed or size != before


class _Notices(Protocol):
    """The kernel's notices about what one path names, as a descriptor that becomes readable."""

    lost: bool
    """Whether the path named nothing when it was last followed."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def fileno(self) -> int:
        """The descriptor."""
        ...

    def drain(self) -> None:
        """Forget what was noticed."""
        ...

    def follow(self) -> bool:
        """Listen to what the path names now; whether that is another one, or there again.

        Raises OSError where notices are not to be had.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class _Followed:
    """Something that is listened to by its path."""

    notices: _Notices
    anew: Callable[[], None]
    """What to do when the path names another one."""


def _notices(path: Path, *, content: bool) -> _Notices:
    """Raises OSError where they are not to be had. content: also of changes in the file."""
    if sys.platform == "darwin":
        return _Kqueue(path, content=content)
    return _Inotify(path, content=content)


class _Inotify:
    """inotify(7), for which the standard library has no door."""

    _CONTENT = 0x2 | 0x4
    """Modified; or its number of links changed, as when another file takes its name."""
    _SELF = 0x400 | 0x800
    """Removed; moved."""

    def __init__(self, path: Path, *, content: bool) -> None:
        self._path = os.fsencode(path)
        self._wanted = self._SELF | (self._CONTENT if content else 0)
        self._watch = -1
        self.lost = False
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise _last_error()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def drain(self) -> None:
        _drain(self._descriptor)

    def follow(self) -> bool:
        # Watching what is watched already answers the same number; numbers are not used twice,
        # while a new file often gets the inode of the one before it.
        before, lost = self._watch, self.lost
        watch: int = self._libc.inotify_add_watch(self._descriptor, self._path, self._wanted)
        self.lost = watch < 0
        if self.lost:
            error = _last_error()
            if isinstance(error, FileNotFoundError):
                return False
            raise error
        self._watch = watch
        if before not in (-1, watch):
            self._libc.inotify_rm_watch(self._descriptor, before)  # it may have ended by itself
        return lost or watch != before


if sys.platform == "darwin":
    import select

    class _Kqueue:
        """kqueue(2) on the vnode, which is held open: so no other one gets its number."""

        def __init__(self, path: Path, *, content: bool) -> None:
            self._path = path
            self._wanted = select.KQ_NOTE_DELETE | select.KQ_NOTE_RENAME
            if content:
                self._wanted |= select.KQ_NOTE_WRITE | select.KQ_NOTE_EXTEND
            self._file: int | None = None
            self.lost = False
            self._queue = select.kqueue()

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self._queue.close()
            if self._file is not None:
                os.close(self._file)

        def fileno(self) -> int:
            return self._queue.fileno()

        def drain(self) -> None:
            self._queue.control(None, 8, 0)

        def follow(self) -> bool:
            before, lost = self._file, self.lost
            try:
                file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self.lost = True
                return False
            self.lost = False
            if before is not None and os.path.sameopenfile(file, before):
                os.close(file)
                return lost
            self._file = file
            wanted = select.kevent(
                file,
                select.KQ_FILTER_VNODE,
                select.KQ_EV_ADD | select.KQ_EV_CLEAR,
                self._wanted,
            )
            self._queue.control([wanted], 0)
            if before is not None:
                os.close(before)  # its notices end with it
            return True


def _no_action(_signal: int, _frame: FrameType | None) -> None:
    """A signal without a handler in Python does not reach the wake-up descriptor."""


def _drain(descriptor: int) -> None:
    with suppress(BlockingIOError):
        while os.read(descriptor, 4096):
            pass


def _ring(descriptor: int) -> None:
    with suppress(BlockingIOError):  # full of what was not heard yet, so it is heard anyway
        os.write(descriptor, b"\0")


def _size(path: Path) -> int:
    with suppress(OSError):  # gone for a moment, as on a network file system: look again
        return path.stat().st_size
    return -1


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _why_polling(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else error
    return (
        f"The system gives no notice of changed files here ({reason}), so they are looked at every "
        f"{POLL_SECONDS:g} s. Raise fs.inotify.max_user_watches and max_user_instances to mend it."
    )
