"""Condemned objects: out of their place, not yet gone, still readable.

Owns `objects/condemned/`. Rules: an object moves there in one step of the file system, so it always
has a name in one of the two places. The move sets its ctime, which says since when it is condemned.
A process that wants the object links it back. Only garbage collection, of which one runs at a time,
removes condemned names. If a put removed them, an object condemned again meanwhile would lose its
last name.

When to sweep is not decided here: docs/store.md has the rule that keeps this safe.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from stillhouse.store.disk.durable import sync_folder, sync_folders, writing
from stillhouse.store.disk.hashing import hash_file
from stillhouse.store.objects.paths import (
    CONDEMNED,
    OBJECT_FOLDER,
    OBJECT_MODE,
    condemned_path,
    listed,
    matching,
    object_path,
)

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class Condemned(NamedTuple):
    """An object that will be swept."""

    digest: str
    size: int
    """Bytes."""
    at_ns: int
    """When it was condemned, by the clock of the store's file system, Unix time."""


def condemn(objects: Path, digests: Iterable[str]) -> None:
    """Move these objects out of their places, durably; one that is not there is passed over.

    Raises StorageError.
    """
    moves = [(object_path(objects, digest), condemned_path(objects, digest)) for digest in digests]
    if not moves:
        return
    folders = {path.parent for move in moves for path in move}
    with writing(objects), _inside(objects) as within:
        for _, target in moves:
            target.parent.mkdir(parents=True, exist_ok=True)
        # First of all: what is moved into a folder that a power cut takes away is lost.
        sync_folders([objects / CONDEMNED, objects], within)
        for source, target in moves:
            with suppress(FileNotFoundError):
                source.rename(target)
                _take_name_away(source, target)
                target.chmod(OBJECT_MODE)  # sets ctime also where a rename does not
        sync_folders(sorted(folder for folder in folders if folder.is_dir()), within)


def condemned(objects: Path) -> Iterator[Condemned]:
    """Every condemned object, in order of digest."""
    for digest, entry in listed(objects / CONDEMNED):
        with suppress(FileNotFoundError):  # swept or restored since it was listed
            status = entry.stat(follow_symlinks=False)
            yield Condemned(digest, status.st_size, status.st_ctime_ns)


def prefixes(objects: Path) -> frozenset[str]:
    """The first two characters of every digest that may be condemned."""
    return frozenset(folder.name for folder in matching(objects / CONDEMNED, OBJECT_FOLDER))


def restore(objects: Path, digest: str) -> bool:
    """Put a condemned object back into its place, durably. False: it was not condemned.

    For garbage collection only, as all that removes names here. Raises StorageError.
    """
    with writing(objects):
        if not link_back(objects, digest):
            return False
        sync_folder(object_path(objects, digest).parent)
        sync_folder(objects)
        condemned_path(objects, digest).unlink(missing_ok=True)
    return True


def revive(objects: Path, digest: str, size: int) -> bool:
    """Link a condemned object back if its bytes are what its name says; not durable yet.

    The condemned name stays, for `restore` or `sweep`. Raises OSError.
    """
    path = condemned_path(objects, digest)
    try:
        if path.stat().st_size != size or hash_file(path).digest != digest:
            return False
    except FileNotFoundError:
        return False
    return link_back(objects, digest)


def link_back(objects: Path, digest: str) -> bool:
    """Give a condemned object its place again. False: it is not condemned. Raises OSError."""
    path, place = condemned_path(objects, digest), object_path(objects, digest)
    place.parent.mkdir(exist_ok=True)
    try:
        place.hardlink_to(path)
    except FileExistsError:
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _move_back(path, place)
    return True


def sweep(objects: Path, digests: Iterable[str]) -> int:
    """Remove these from among the condemned, for good; returns the bytes that this freed.

    Raises StorageError.
    """
    freed = 0
    with writing(objects), _inside(objects) as within:
        folders = set()
        for digest in digests:
            path = condemned_path(objects, digest)
            with suppress(FileNotFoundError):
                status = path.stat()
                path.unlink()
                folders.add(path.parent)
                freed += status.st_size if status.st_nlink == 1 else 0
        sync_folders(sorted(folders), within)
    return freed


def _take_name_away(source: Path, target: Path) -> None:
    """Finish a move between two names of one file, which rename(2) leaves as they are."""
    with suppress(FileNotFoundError):
        if source.samefile(target):
            source.unlink()


def _move_back(path: Path, place: Path) -> bool:
    sync_folder(place.parent.parent)  # the folder it goes to may be new
    with suppress(FileNotFoundError):
        path.rename(place)
        return True
    return place.exists()


@contextmanager
def _inside(objects: Path) -> Iterator[int]:
    descriptor = os.open(objects, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
