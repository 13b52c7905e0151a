"""What lies in the store, by name, size and mode; no byte is read.

Owns the listing that every check begins with. A million objects take seconds, so the loop is plain.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stillhouse.store.disk.durable import shown
from stillhouse.store.objects.paths import (
    CONDEMNED,
    LEASES,
    OBJECT_FILE,
    OBJECT_FOLDER,
    OBJECT_MODE,
    TEMPORARY,
)

_AS_WRITTEN = stat.S_IFREG | OBJECT_MODE
_OURS = frozenset({TEMPORARY, CONDEMNED, LEASES})


@dataclass(kw_only=True)
class Survey:
    """The objects of a store, condemned ones after the others."""

    digests: list[str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    """Bytes of each."""
    exposed: list[str] = field(default_factory=list)
    """Digests of objects whose mode is not that of an object any more: somebody changed it."""
    linked: int = 0
    """Objects with names outside the store, through which they could be edited."""
    condemned: int = 0
    foreign: list[str] = field(default_factory=list)
    """Paths below `objects/` that are not ours."""


def survey(objects: Path) -> Survey:
    """List the store. Raises OSError when it cannot be listed."""
    found = Survey()
    _list(objects, "", found)
    kept = len(found.digests)
    if (objects / CONDEMNED).is_dir():
        _list(objects / CONDEMNED, f"{CONDEMNED}/", found)
    found.condemned = len(found.digests) - kept
    return found


def _list(root: Path, prefix: str, found: Survey) -> None:
    with os.scandir(root) as listing:
        folders = sorted(listing, key=_name)
    for folder in folders:
        if OBJECT_FOLDER.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False):
            _take(folder, prefix, found)
        elif prefix or folder.name not in _OURS:
            found.foreign.append(shown(prefix + folder.name))


def _take(folder: os.DirEntry[str], prefix: str, found: Survey) -> None:
    for entry, status in _files(folder):
        if not stat.S_ISREG(status.st_mode) or OBJECT_FILE.fullmatch(entry.name) is None:
            found.foreign.append(shown(f"{prefix}{folder.name}/{entry.name}"))
            continue
        found.digests.append(folder.name + entry.name)
        found.sizes.append(status.st_size)
        if status.st_mode != _AS_WRITTEN:
            found.exposed.append(folder.name + entry.name)
        if status.st_nlink > 1:
            found.linked += 1


def _files(folder: os.DirEntry[str]) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=_name)
    for entry in entries:
        try:
            yield entry, entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # condemned, restored or swept since it was listed
            continue


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name
