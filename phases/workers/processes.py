"""Processes as the kernel knows them: which one it is, what it holds, how it and its own end.

A process id names nobody for long, since the kernel gives it out again. The id and the time at
which the process started do. Rule: nothing is signalled by its id alone.

A worker leads a session and a process group of its own. So what a phase spawned is found, and
ended, with it. Only a process that opened yet another session escapes.

Linux answers from /proc (proc(5)), other systems through ps(1).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from stillhouse.schemas.value import Value

_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SWEEPS = 8
"""Rounds of ending what a dead worker left: what is being ended may fork meanwhile."""


class Process(Value):
    """One process, for good."""

    pid: int
    started: str
    """When, as the kernel spells it: only good for telling whether it is the same process."""


def identify(pid: int) -> Process | None:
    """The process that has this id now, if any."""
    if sys.platform == "linux":
        stat = _stat(pid)
        started = stat[1] if stat else ""
    else:
        started = _ps("-o", "lstart=", "-p", str(pid)).strip()
    return Process(pid=pid, started=started) if started else None


def exists(process: Process) -> bool:
    """Whether the process is there still, and is not a stranger with its old id."""
    return identify(process.pid) == process


def signal_group(process: Process, number: signal.Signals) -> None:
    """Signal the process and all of its group, unless it is gone."""
    if exists(process):
        with suppress(ProcessLookupError, PermissionError):  # macOS says EPERM of a zombie's group
            os.killpg(process.pid, number)


def end_left_over(process: Process, sign: tuple[str, str] | None) -> None:
    """Kill what a dead session leader left running in its session.

    sign: a variable and its value that the environment of each must hold; None only when the
    leader has just died, so that its id cannot have come to mean another session meanwhile.
    """
    for _ in range(_SWEEPS):
        found = [pid for pid in _left_over(process) if sign is None or _bears(pid, sign)]
        if not found:
            return
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def resident(process: Process) -> int | None:
    """Bytes of memory that a process and its descendants hold; None when it is gone.

    A page that several of them share is counted once for each.
    """
    if sys.platform != "linux":
        lines = _ps("-o", "rss=", "-g", str(process.pid)).split()
        return sum(map(int, lines)) * 1024 if lines else None
    if not exists(process):
        return None
    return sum(_resident(pid) for pid in _family(process.pid))


def _left_over(process: Process) -> Iterator[int]:
    """Members of the session that were started after its leader.

    The kernel gives no new process an id that a session with members has (on Linux, alloc_pid).
    So when the id is a stranger's, nothing of ours is left.
    """
    now = identify(process.pid)
    if now is not None and now != process:
        return
    if sys.platform != "linux":
        yield from map(int, _ps("-o", "pid=", "-g", str(process.pid)).split())
        return
    for pid in (int(name) for name in os.listdir(_PROC) if name.isdigit()):  # noqa: PTH208  # no paths are wanted
        session, started = _stat(pid) or (0, "0")
        if session == process.pid and int(started) >= int(process.started):
            yield pid


def _bears(pid: int, sign: tuple[str, str]) -> bool:
    if sys.platform == "linux":
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
            return os.fsencode("=".join(sign)) in variables
    return False


def _stat(pid: int) -> tuple[int, str] | None:
    """Session, and start in clock ticks since boot, of a process that is no zombie."""
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is a name in parentheses, which may hold anything, a parenthesis too.
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else (int(fields[3]), fields[19].decode())


def _resident(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        return int((_PROC / str(pid) / "statm").read_bytes().split()[1]) * _PAGE
    return 0


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants. Each thread lists its own children."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                for child in (task / "children").read_bytes().split():
                    yield from _family(int(child))


def _ps(*arguments: str) -> str:
    """What ps(1) prints; nothing when there is no such process."""
    command = ["ps", *arguments]
    environment = {"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment
    ).stdout
