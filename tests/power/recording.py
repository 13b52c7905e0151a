"""A shim between the code and the disk: every call that changes a folder, or syncs, is noted.

Owns the interception. It wraps what Python offers in `os`, the files that `open` makes, and what
store/disk/kernel.py asks of libc; the calls are carried out, and noted in the terms of disk.py once
they returned. Only what lies below the watched folder is noted. What it cannot see is found by a
test: the notes alone must rebuild the real folder, byte by byte.

A process can be killed: from a chosen call on nothing it does reaches the disk, until it is buried.
"""

from __future__ import annotations

import fcntl
import io
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from stillhouse.store.disk import kernel

from .disk import (
    ROOT,
    Chmod,
    Create,
    History,
    Image,
    Kind,
    Link,
    Node,
    Operation,
    Remove,
    Rename,
    Resize,
    Sync,
    SyncAll,
    Told,
    Write,
)

_FICLONE = 0x40049409


class Died(BaseException):
    """What a killed process sees of its own death."""


class Recorder:
    """Notes what is done below `root`, which is taken to be durable as it is now."""

    def __init__(self, root: Path) -> None:
        self._numbers: dict[tuple[int, int], int] = {}
        self._real: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._fatal: list[str] = []
        self._dead = False
        self._base = Image({}, {})
        self._operations: list[Operation] = []
        self._adopt(root)

    def tell(self, what: str, value: object = None) -> None:
        """Note what the code has promised by now."""
        self._note(Told(what, value))

    def kill_at(self, *calls: str) -> None:
        """Kill the process before the last of these calls, once the others have been seen."""
        self._fatal = list(calls)

    def bury(self) -> None:
        """End the death: another process is at work."""
        assert self._dead, "nobody died"
        self._dead = False

    def history(self) -> History:
        """What was noted so far."""
        return History(self._base, self._operations)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Intercept."""
        with ExitStack() as stack:
            for name in _WRAPPED:
                self._real[name] = getattr(os, name)
            for name in _WRAPPED:
                stack.enter_context(mock.patch.object(os, name, getattr(self, f"_{name}")))
            opened, ioctl, libc = io.open, fcntl.ioctl, _Libc(self, kernel._libc())
            for module in ("io.open", "builtins.open"):
                stack.enter_context(mock.patch(module, _Opener(self, opened)))
            stack.enter_context(mock.patch.object(fcntl, "ioctl", self._ioctl(ioctl)))
            stack.enter_context(mock.patch.object(kernel, "_libc", return_value=libc))
            yield

    # -- nodes ---------------------------------------------------------------------------------

    def _adopt(self, root: Path) -> None:
        for place, folders, files in os.walk(root):
            here = self._adopted(place, "folder") if self._numbers else ROOT
            if here == ROOT:
                status = os.stat(place)  # noqa: PTH116
                self._numbers[status.st_dev, status.st_ino] = ROOT
                self._base.nodes[ROOT] = Node("folder", stat.S_IMODE(status.st_mode))
            self._base.names[here] = {
                name: self._adopted(f"{place}/{name}", kind)
                for kind, names in (("folder", folders), ("file", files))
                for name in names
            }

    def _adopted(self, path: str, kind: Any) -> int:
        status = os.lstat(path)
        identity = status.st_dev, status.st_ino
        if identity not in self._numbers:
            number = self._numbers[identity] = len(self._numbers)
            data = Path(path).read_bytes() if kind == "file" else b""
            self._base.nodes[number] = Node(kind, stat.S_IMODE(status.st_mode), data, number)
        return self._numbers[identity]

    def _born(self, status: os.stat_result, folder: int, name: str, kind: Kind) -> None:
        number = max(self._numbers.values()) + 1
        self._numbers = {
            identity: old
            for identity, old in self._numbers.items()
            if identity != (status.st_dev, status.st_ino)
        }
        self._numbers[status.st_dev, status.st_ino] = number
        self._note(Create(folder, name, number, kind, stat.S_IMODE(status.st_mode)))

    def _node(self, status: os.stat_result) -> int | None:
        return self._numbers.get((status.st_dev, status.st_ino))

    def node_of(self, descriptor: int) -> int | None:
        """The number of an open file; None when it is none of ours."""
        return self._node(os.fstat(descriptor))

    def _slot(self, path: Any, dir_fd: int | None = None) -> tuple[int | None, str]:
        """The folder (None: none of ours) and the name that a path means."""
        head, name = os.path.split(os.fsdecode(path))
        try:
            return self._node(os.stat(head or ".", dir_fd=dir_fd)), name
        except (FileNotFoundError, NotADirectoryError):
            return None, name

    def inside(self, path: Any) -> bool:
        """Whether a path is below the watched folder."""
        return not isinstance(path, int) and self._slot(path)[0] is not None

    def _note(self, operation: Operation) -> None:
        with self._lock:
            self._operations.append(operation)

    def step(self, call: str) -> None:
        """Be asked before each call that changes the disk or syncs it."""
        if self._fatal and self._fatal[0] == call:
            self._fatal.pop(0)
            self._dead = not self._fatal
        if self._dead:
            raise Died

    # -- the calls -----------------------------------------------------------------------------

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        folder, name = self._slot(path, dir_fd)
        changes = flags & (os.O_CREAT | os.O_TRUNC)
        if folder is None or not changes:
            return int(self._real["open"](path, flags, mode, dir_fd=dir_fd))
        self.step("open")
        there = _there(path, dir_fd)
        descriptor = int(self._real["open"](path, flags, mode, dir_fd=dir_fd))
        if not there:
            self._born(os.fstat(descriptor), folder, name, "file")
        elif flags & os.O_TRUNC:
            self._resized(descriptor, 0)
        return descriptor

    def _write(self, descriptor: int, data: Any) -> int:
        node = self.node_of(descriptor)
        if node is None:
            return int(self._real["write"](descriptor, data))
        self.step("write")
        done = int(self._real["write"](descriptor, data))
        end = os.lseek(descriptor, 0, os.SEEK_CUR)
        self._note(Write(node, end - done, bytes(memoryview(data).cast("B")[:done])))
        return done

    def _pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        node = self.node_of(descriptor)
        if node is None:
            return int(self._real["pwrite"](descriptor, data, offset))
        self.step("pwrite")
        done = int(self._real["pwrite"](descriptor, data, offset))
        self._note(Write(node, offset, bytes(memoryview(data).cast("B")[:done])))
        return done

    def _ftruncate(self, descriptor: int, size: int) -> None:
        if self.node_of(descriptor) is not None:
            self.step("ftruncate")
        self._real["ftruncate"](descriptor, size)
        self._resized(descriptor, size)

    def _resized(self, descriptor: int, size: int) -> None:
        if (node := self.node_of(descriptor)) is not None:
            self._note(Resize(node, size))

    def _rename(
        self,
        old: Any,
        new: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        call: str = "rename",
    ) -> None:
        source, before = self._slot(old, src_dir_fd)
        folder, name = self._slot(new, dst_dir_fd)
        if source is None or folder is None:
            self._real[call](old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            return
        self.step(call)
        node = self._node(os.lstat(old, dir_fd=src_dir_fd))
        self._real[call](old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        assert node is not None
        if not _there(old, src_dir_fd):  # between two names of one file rename(2) does nothing
            self._note(Rename(source, before, folder, name, node))

    def _replace(self, old: Any, new: Any, **named: Any) -> None:
        self._rename(old, new, **named, call="replace")

    def _link(self, old: Any, new: Any, **named: Any) -> None:
        folder, name = self._slot(new)
        if folder is not None:
            self.step("link")
        self._real["link"](old, new, **named)
        node = self._node(os.lstat(new))
        if folder is not None:
            assert node is not None
            self._note(Link(folder, name, node))

    def _unlink(self, path: Any, *, dir_fd: int | None = None, call: str = "unlink") -> None:
        folder, name = self._slot(path, dir_fd)
        if folder is None:
            self._real[call](path, dir_fd=dir_fd)
            return
        self.step(call)
        node = self._node(os.lstat(path, dir_fd=dir_fd)) if _there(path, dir_fd) else None
        self._real[call](path, dir_fd=dir_fd)
        assert node is not None
        self._note(Remove(folder, name, node))

    def _remove(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._unlink(path, dir_fd=dir_fd, call="remove")

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._unlink(path, dir_fd=dir_fd, call="rmdir")

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        folder, name = self._slot(path, dir_fd)
        if folder is not None:
            self.step("mkdir")
        self._real["mkdir"](path, mode, dir_fd=dir_fd)
        if folder is not None:
            self._born(os.lstat(path, dir_fd=dir_fd), folder, name, "folder")

    def _chmod(self, path: Any, mode: int, **named: Any) -> None:
        node = self._node(os.stat(path))  # noqa: PTH116
        if node is not None:
            self.step("chmod")
        self._real["chmod"](path, mode, **named)
        if node is not None:
            self._note(Chmod(node, mode))

    def _fchmod(self, descriptor: int, mode: int) -> None:
        node = self.node_of(descriptor)
        if node is not None:
            self.step("fchmod")
        self._real["fchmod"](descriptor, mode)
        if node is not None:
            self._note(Chmod(node, mode))

    def _fsync(self, descriptor: int) -> None:
        self._synced("fsync", descriptor)

    def _fdatasync(self, descriptor: int) -> None:
        self._synced("fdatasync", descriptor)

    def _synced(self, call: str, descriptor: int) -> None:
        node = self.node_of(descriptor)
        if node is not None:
            self.step(call)
        self._real[call](descriptor)
        if node is not None:
            self._note(Sync(node, data_only=call == "fdatasync"))

    def synced_all(self, descriptor: int) -> None:
        """Take note of a syncfs that succeeded."""
        if self.node_of(descriptor) is not None:
            self._note(SyncAll())

    def _ioctl(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def ioctl(descriptor: int, request: int, *given: Any) -> Any:
            result = real(descriptor, request, *given)
            node = self.node_of(descriptor)
            if request == _FICLONE and node is not None:
                self._note(Write(node, 0, Path(f"/proc/self/fd/{descriptor}").read_bytes()))
            return result

        return ioctl


_WRAPPED = (
    *("open", "write", "pwrite", "ftruncate", "rename", "replace", "link", "unlink", "remove"),
    *("rmdir", "mkdir", "chmod", "fchmod", "fsync", "fdatasync"),
)


class _Libc:
    """The C library, watched where it is asked to sync."""

    def __init__(self, recorder: Recorder, real: Any) -> None:
        self._recorder = recorder
        self._real = real

    def syncfs(self, descriptor: int) -> int:
        self._recorder.step("syncfs")
        result = int(self._real.syncfs(descriptor))
        if result == 0:
            self._recorder.synced_all(descriptor)
        return result

    def __getattr__(self, name: str) -> Any:
        # fallocate keeps the length here, sync_file_range promises nothing: neither is noted
        return getattr(self._real, name)


class _Opener:
    """`open`, for files whose writes have to pass through `os`."""

    def __init__(self, recorder: Recorder, real: Callable[..., Any]) -> None:
        self._recorder = recorder
        self._real = real

    def __call__(
        self, file: Any, mode: str = "r", buffering: int = -1, *given: Any, **named: Any
    ) -> Any:
        writes = not set(mode).isdisjoint("wax+")
        if not writes or not self._recorder.inside(file):
            return self._real(file, mode, buffering, *given, **named)
        raw = _Raw(file, mode.replace("b", "").replace("t", ""), opener=_through_os)
        if "b" in mode and buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *given, **named)


class _Raw(io.FileIO):
    def write(self, data: Any) -> int:
        return os.write(self.fileno(), data)

    def truncate(self, size: int | None = None) -> int:
        length = self.tell() if size is None else size
        os.ftruncate(self.fileno(), length)
        return length


def _through_os(path: str, flags: int) -> int:
    return os.open(path, flags, 0o666)


def _there(path: Any, dir_fd: int | None) -> bool:
    try:
        os.lstat(path, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    return True
