"""Somebody's files, while we read them: what is refused, and how a change is noticed.

Owns opening a source. Rules: links and special files are refused, never followed; a file whose
status is not the same before and after was changed, and is refused.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from operator import attrgetter
from pathlib import Path

from stillhouse.schemas.errors import InputError
from stillhouse.store.disk.durable import shown, unreadable

_SIGNATURE = attrgetter("st_dev", "st_ino", "st_mode", "st_size", "st_mtime_ns", "st_ctime_ns")
# O_NONBLOCK: opening a fifo that nobody writes to would otherwise hang before we can refuse it.
_SOURCE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def open_source(source: Path | str) -> int:
    """Open a file for reading without following a link. Raises InputError."""
    try:
        return os.open(source, _SOURCE)
    except OSError as error:
        with suppress(OSError):  # then the first error says more
            refuse_special(source, os.lstat(source).st_mode)  # a link, a socket
        raise unreadable(source, error) from error


def refuse_special(path: Path | str, mode: int) -> None:
    """Raise InputError unless `mode` (st_mode, not followed) is that of a regular file."""
    if stat.S_ISREG(mode):
        return
    if stat.S_ISLNK(mode):
        raise InputError(
            f"{shown(path)} is a symbolic link.",
            remedy="Publish what it points to, or a copy with the links resolved (`cp -rL`).",
            code="file.symlink",
        )
    kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file (a fifo, socket or device)"
    raise InputError(
        f"{shown(path)} is {kind}.",
        remedy="Only regular files can be stored; leave it out, then try again.",
        code="file.special",
    )


def refuse_changed(
    path: Path | str, before: os.stat_result, after: os.stat_result, size: int | None = None
) -> None:
    """Raise InputError when a file is not what it was; `size` is the number of bytes read."""
    if signature(before) == signature(after) and size in (None, after.st_size):
        return
    raise changed(path)


def changed(path: Path | str) -> InputError:
    """Make the error for a file that somebody writes to while we read it."""
    return InputError(
        f"{shown(path)} changed while it was being read.",
        remedy="Wait until nothing writes to it any more, then try again; nothing was recorded.",
        code="file.changed",
    )


def signature(status: os.stat_result) -> tuple[int, int, int, int, int, int]:
    """Return what changes whenever a file's content may have changed."""
    return _SIGNATURE(status)
