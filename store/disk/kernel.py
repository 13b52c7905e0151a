"""System calls that Python does not offer: each says whether this machine has it.

Owns every use of ctypes. Rules: a call that is missing, or that the file system does not know, says
so by its return value. None of these calls does more than make things faster. What the disk refuses
is an OSError. Loading ctypes costs 10 ms, so it is done on first use.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import platform
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes

# syncfs(2): since this version it reports pages that could not be written.
_SYNCFS_TELLS_ERRORS = (5, 8)
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE, fallocate(2)
_START_WRITING = 2  # SYNC_FILE_RANGE_WRITE, sync_file_range(2)
_FICLONE = 0x40049409  # _IOW(0x94, 9, int), linux/fs.h; ioctl_ficlonerange(2)
_NOT_HERE = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY})
# File systems without reflinks, or two different ones: copy instead.
_CANNOT_CLONE = _NOT_HERE | {errno.EXDEV, errno.EPERM}


@functools.cache
def can_sync_all() -> bool:
    """Whether `sync_all` waits for everything and tells what was lost."""
    if sys.platform != "linux":
        return False
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    return release is not None and tuple(map(int, release.groups())) >= _SYNCFS_TELLS_ERRORS


def sync_all(descriptor: int) -> None:
    """Make durable all that was written to the file system of `descriptor` since it was opened.

    Raises OSError when any of it was lost.
    """
    if _libc().syncfs(descriptor) != 0:
        raise _error()


def start_writing(descriptor: int, offset: int, size: int) -> None:
    """Ask the kernel to begin writing these bytes to disk now, so that a later fsync is short."""
    if sys.platform == "linux":
        _libc().sync_file_range(
            descriptor, _int64(offset), _int64(size), _START_WRITING
        )  # only a hint: fsync tells errors


def bypass_cache(descriptor: int, *, bypass: bool) -> bool:
    """Let writes through `descriptor` go past the page cache, or no longer; whether that was done.

    Past it, memory, offset and length have to be multiples of the disk's block (open(2)).
    """
    direct = getattr(os, "O_DIRECT", 0)
    try:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | direct if bypass else flags & ~direct)
    except OSError:  # tmpfs, for one
        return False
    return bool(direct)


def reserve(descriptor: int, size: int) -> None:
    """Reserve disk space for `size` bytes, where the file system can; the length stays.

    Raises OSError when there is not enough.
    """
    if sys.platform != "linux" or size == 0:
        return
    if _libc().fallocate(descriptor, _KEEP_SIZE, _int64(0), _int64(size)) != 0:
        error = _error()
        if error.errno not in _NOT_HERE:
            raise error


def clone(source: int, target: Path, mode: int) -> bool:
    """Make `target` a file that shares its bytes with `source` until one of them is written to.

    False, and no file, where the file system cannot. Raises OSError.
    """
    if sys.platform == "darwin":
        return _clone_on_macos(source, target, mode)
    if sys.platform != "linux":
        return False
    writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        fcntl.ioctl(writer, _FICLONE, source)
    except OSError as error:
        target.unlink()
        if error.errno in _CANNOT_CLONE:
            return False
        raise
    finally:
        os.close(writer)
    return True


def nobody_writes(descriptor: int) -> bool:
    """Whether at this moment no one has the file open for writing, nor mapped writable.

    Asks for a read lease and gives it back (fcntl(2)); False also where leases are not granted.
    """
    if sys.platform != "linux":
        return False
    try:
        # The kernel signals the holder of a lease that somebody wants to write; SIGIO would kill.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True


@functools.cache
def boot() -> str:
    """Which start of this machine this is (random(4), boot_id); empty where nobody tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _clone_on_macos(source: int, target: Path, mode: int) -> bool:
    at_cwd = -2  # AT_FDCWD, sys/fcntl.h
    if _libc().fclonefileat(source, at_cwd, os.fsencode(target), 0) != 0:
        error = _error()
        if error.errno in _CANNOT_CLONE:
            return False
        raise error
    target.chmod(mode)
    return True


@functools.cache
def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _int64(value: int) -> ctypes.c_int64:
    import ctypes

    return ctypes.c_int64(value)


def _error() -> OSError:
    import ctypes

    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
