"""Where things lie below `objects/`, and what is said of an object that is not as it should be.

Owns the names. Nothing here changes anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stillhouse.schemas.errors import IntegrityError

TEMPORARY = "tmp"
"""Copies that are not finished."""
CONDEMNED = "condemned"
"""Objects that garbage collection will remove, laid out as under `objects/`."""
LEASES = "leases"
"""One file for each publisher at work."""

OBJECT_FOLDER = re.compile(r"[0-9a-f]{2}")
OBJECT_FILE = re.compile(r"[0-9a-f]{62}")
OBJECT_MODE = 0o444


def object_path(objects: Path, digest: str) -> Path:
    """Where the object of that name lives: two characters of folder, the rest is the file name."""
    return objects / digest[:2] / digest[2:]


def condemned_path(objects: Path, digest: str) -> Path:
    """Where the object of that name lies once it is condemned."""
    return objects / CONDEMNED / digest[:2] / digest[2:]


def listed(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Each file below `folder` that is named like an object, with its digest, in order."""
    for prefix in matching(folder, OBJECT_FOLDER):
        for entry in matching(prefix, OBJECT_FILE):
            yield prefix.name + entry.name, entry


def matching(folder: Path | os.DirEntry[str], pattern: re.Pattern[str]) -> list[os.DirEntry[str]]:
    """What lies in `folder` under such names, in order; nothing when there is no folder."""
    try:
        with os.scandir(folder) as listing:
            found = [child for child in listing if pattern.fullmatch(child.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda child: child.name)


def corrupt(digest: str, path: Path, what: str) -> IntegrityError:
    """Make the error for an object whose bytes are not what its name says."""
    return IntegrityError(
        f"Object {digest} is corrupt: {what}.",
        remedy="`still fsck` names the artifacts that need it; `still repair REF` gets it back, "
        f"from a copy or by running again. Its file: {path}.",
        code="store.corrupt",
    )


def missing(digest: str) -> IntegrityError:
    """Make the error for an object that is nowhere in the store."""
    return IntegrityError(
        f"Object {digest} is not in the store.",
        remedy="Publish the same content again or restore it from a backup; `still fsck` lists"
        " everything that is missing.",
        code="store.missing",
    )


def vanished(digest: str) -> IntegrityError:
    """Make the error for an object that was removed while the same content was being put."""
    return IntegrityError(
        f"Object {digest} was removed while the same content was being stored.",
        remedy="Run the same command again; nothing was recorded.",
        code="store.vanished",
    )


@contextmanager
def reading_object(digest: str, path: Path) -> Iterator[None]:
    """Turn an OSError raised while reading an object into the error of a corrupt one."""
    try:
        yield
    except OSError as error:
        raise corrupt(digest, path, f"it cannot be read ({error.strerror or error})") from error
