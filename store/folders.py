"""Reading somebody's folder: what is in it, and whether a tree may hold it.

Owns the walk. Rules: symbolic links and special files are refused, never followed; names are taken
in Unicode normal form C (macOS hands out other forms of the same name); folders without files are
passed over; a whole folder is looked at before anything is read.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import InputError
from store.durable import reading, shown
from store.names import MAX_PATH, component_fault, path_faults
from store.staging import refuse_special


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file of a folder, as the scan saw it."""

    source: Path
    path: str
    status: os.stat_result


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
    found = sorted(_walk(folder, ""), key=lambda file: file.path.encode())
    if not found:
        raise InputError(
            f"{shown(folder)} contains no files.",
            remedy="Put something in it first; empty folders are not recorded.",
            code="tree.empty",
        )
    _refuse_clashes(folder, found)
    return tuple(found)


def _walk(folder: Path, prefix: str) -> Iterator[Found]:
    if len(prefix.encode()) > MAX_PATH:  # before a bottomless folder exhausts the stack
        raise _bad_name(folder, f"makes a path longer than {MAX_PATH} bytes")
    with reading(folder), os.scandir(folder) as listing:
        children = list(listing)
    for child in children:
        source = Path(child.path)
        name = _portable_name(source, child.name)
        with reading(source):
            status = child.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(source, f"{prefix}{name}/")
            continue
        refuse_special(source, status.st_mode)
        yield Found(source=source, path=prefix + name, status=status)


def _portable_name(source: Path, name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise _bad_name(source, "is not UTF-8") from error
    normal = unicodedata.normalize("NFC", name)
    fault = component_fault(normal)
    if fault is not None:
        raise _bad_name(source, fault)
    return normal


def _bad_name(source: Path, what: str) -> InputError:
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
