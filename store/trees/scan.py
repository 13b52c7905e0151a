"""Reading somebody's folder: what is in it, and whether a tree may hold it.

Owns the walk. Rules: symbolic links and special files are refused, never followed. Names are taken
in Unicode normal form C (macOS hands out other forms of the same name). Folders without files are
passed over. A whole folder is looked at before anything is read.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from stillhouse.schemas.errors import InputError
from stillhouse.store.disk.durable import reading, shown, unreadable
from stillhouse.store.objects.sources import refuse_special
from stillhouse.store.trees.names import MAX_PATH, component_fault, path_faults, plain


class Found(NamedTuple):
    """A file of a folder, as the scan saw it."""

    source: str
    """Where it is."""
    path: str
    """What a tree calls it."""
    status: os.stat_result
    """Not followed."""


def scan(folder: Path) -> tuple[Found, ...]:
    """Every file below `folder`, sorted as a tree is. Raises InputError as put_tree does."""
    with reading(folder):
        status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode):
        refuse_special(folder, status.st_mode)
        raise InputError(
            f"{shown(folder)} is a file, not a folder.",
            remedy="Publish it as a single file, or name the folder around it.",
            code="tree.not_folder",
        )
    # By code point, which is the order of UTF-8 too.
    found = sorted(_walk(os.fspath(folder), ""), key=attrgetter("path"))
    if not found:
        raise InputError(
            f"{shown(folder)} contains no files.",
            remedy="Put something in it first; empty folders are not recorded.",
            code="tree.empty",
        )
    _refuse_clashes(folder, found)
    return tuple(found)


def look_again(folder: Path | str) -> dict[str, os.stat_result]:
    """The status of all but folders, below one that was scanned, by source. Raises InputError."""
    found: dict[str, os.stat_result] = {}
    with reading(folder), os.scandir(folder) as listing:
        for child in listing:
            status = _status(child)
            if stat.S_ISDIR(status.st_mode):
                found |= look_again(child.path)
            else:
                found[child.path] = status
    return found


def _walk(folder: str, prefix: str) -> Iterator[Found]:
    if len(prefix.encode()) > MAX_PATH:  # before a bottomless folder exhausts the stack
        raise _bad_name(folder, f"makes a path longer than {MAX_PATH} bytes")
    with reading(folder), os.scandir(folder) as listing:
        children = list(listing)
    for child in children:
        name = _portable_name(child)
        status = _status(child)
        if stat.S_ISREG(status.st_mode):
            yield Found(child.path, prefix + name, status)
        elif stat.S_ISDIR(status.st_mode):
            yield from _walk(child.path, f"{prefix}{name}/")
        else:
            refuse_special(child.path, status.st_mode)


def _status(child: os.DirEntry[str]) -> os.stat_result:
    try:
        return child.stat(follow_symlinks=False)
    except OSError as error:
        raise unreadable(child.path, error) from error


def _portable_name(child: os.DirEntry[str]) -> str:
    name = child.name
    if plain(name):
        return name
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise _bad_name(child.path, "is not UTF-8") from error
    normal = unicodedata.normalize("NFC", name)
    fault = component_fault(normal)
    if fault is not None:
        raise _bad_name(child.path, fault)
    return normal


def _bad_name(source: str, what: str) -> InputError:
    return InputError(
        f"The name of {shown(source)} {what}.",
        remedy="Rename it, then publish again; nothing was written.",
        code="tree.bad_name",
    )


def _refuse_clashes(folder: Path, found: Sequence[Found]) -> None:
    fault = next(path_faults([file.path for file in found]), None)
    if fault is not None:
        raise InputError(
            f"{shown(folder)} cannot be a tree: {fault}.",
            remedy="Rename one of them, then publish again; nothing was written.",
            code="tree.clash",
        )
