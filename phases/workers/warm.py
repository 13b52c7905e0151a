"""The warm worker: a process that has imported everything and waits for its one job.

Both ends of one socket pair, and what is said over it:

 1. worker: READY, when everything is imported;
 2. launcher: the run key, with two descriptors: the run's lock and its log;
 3. worker: TAKEN, before it does anything else.

Rules: a worker that does not say TAKEN is killed before another gets the job. Descriptors on their
way live in the worker's end of the socket. So the lock is released when the worker dies, at any
moment. An idle worker sleeps in the kernel. End of file there means that the launcher is gone,
however it went, and the worker ends.

A warm worker starts with the environment and in the folder of a cold one. It is not used when those
have changed since. After step 3 the two differ in nothing but speed.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

from stillhouse.schemas.digest import Digest

_READY, _TAKEN = b"R", b"T"
_LONGEST_MESSAGE = 256
_TAKE_SECONDS = 1.0
"""How long a worker may need to take a job before it is given up; it needs less than a thousandth,
unless it was paused or swapped out."""
_WATCH_MILLISECONDS = 200


class WarmWorker:
    """One waiting worker, as its launcher sees it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it: `command` gets the number of its end of the socket as its last argument.

        Raises OSError.
        """
        self._socket, theirs = socket.socketpair()
        self._ready = False
        self._circumstances = _circumstances(environment)
        with theirs:
            self.process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment,
                start_new_session=True,
            )

    def alive(self) -> bool:
        """Whether it waits, or prepares to."""
        return self.process.poll() is None

    def ready(self) -> bool:
        """Whether it came as far as waiting for a job."""
        if not self._ready:
            with suppress(BlockingIOError, ConnectionError):
                self._ready = self._socket.recv(1, socket.MSG_DONTWAIT) == _READY
        return self._ready

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether a cold worker started now would be given what this one was."""
        return _circumstances(environment) == self._circumstances

    def take(self, run: Digest, lock: int, log: int) -> bool:
        """Hand a job over; False: the worker is dead and has not done anything with it."""
        taken = False
        with suppress(TimeoutError, ConnectionError):
            self._socket.settimeout(_TAKE_SECONDS)
            socket.send_fds(self._socket, [run.encode()], [lock, log])
            taken = self._socket.recv(1) == _TAKEN
        if taken:
            self._socket.close()
        else:
            self.end()
        return taken

    def end(self) -> None:
        """End it; nothing is lost."""
        self._socket.close()
        self.process.kill()
        self.process.wait()


def _circumstances(environment: Mapping[str, str]) -> tuple[dict[str, str], tuple[int, int]]:
    here = Path().stat()  # a folder that was removed still is the one we are in
    return dict(environment), (here.st_dev, here.st_ino)


def wait_for_job(descriptor: int, modules: Iterable[str]) -> tuple[Digest, int, int] | None:
    """In the worker: import, wait, and take a run: its key, lock and log.

    None when the launcher went away.
    """
    with socket.socket(fileno=descriptor) as launcher:
        with _ending_with(launcher):
            _import(modules)
        with suppress(ConnectionError):
            launcher.sendall(_READY)
            message, received, _, _ = socket.recv_fds(launcher, _LONGEST_MESSAGE, 2)
            if not message:
                return None
            with suppress(ConnectionError):  # gone since: a cold worker would go on as well
                launcher.sendall(_TAKEN)
            lock, log = received
            return message.decode(), lock, log
    return None


def _import(modules: Iterable[str]) -> None:
    for module in modules:
        with suppress(ImportError):  # for the phase that needs it to complain of
            import_module(module)


@contextmanager
def _ending_with(launcher: socket.socket) -> Iterator[None]:
    """Exit, in the middle of an import too, when the launcher goes away.

    The thread that looks for that is over before a job can be taken.
    """
    imported = threading.Event()
    hung_up = select.poll()
    hung_up.register(launcher, 0)

    def watch() -> None:
        while not imported.is_set():
            if hung_up.poll(_WATCH_MILLISECONDS):
                os._exit(0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield
    imported.set()
    watcher.join()
