"""Bounded reading, and the walk over a folder from outside. Shared by the checks."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from stillhouse.schemas import canonical
from stillhouse.schemas.canonical import Json
from stillhouse.schemas.errors import InputError, UntrustedFileError
from stillhouse.store.disk.durable import reading, shown

MAX_FILES = 100_000
"""Files in one folder."""
_MAX_DEPTH = 32


def refused(path: Path, what: str, *, code: str, remedy: str) -> UntrustedFileError:
    """Make the error for `path`; `what` ends a sentence that begins with its name."""
    return UntrustedFileError(f"{shown(path.name)} {what}.", remedy=remedy, code=code)


def read_bounded(path: Path, *, limit: int, code: str, remedy: str) -> bytes:
    """Return all of `path`. Raises UntrustedFileError above `limit` bytes, InputError."""
    with reading(path), path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise refused(path, f"is larger than {limit} bytes", code=code, remedy=remedy)
    return data


def read_json(path: Path, *, limit: int, code: str) -> Json:
    """Return the JSON object in `path`. Raises UntrustedFileError, also above `limit` bytes."""
    remedy = "Download or export it again."
    data = read_bounded(path, limit=limit, code=code, remedy=remedy)
    try:
        return canonical.decode(data)
    except InputError as error:
        raise refused(
            path, f"is not a JSON object ({error.message})", code=code, remedy=remedy
        ) from error


def regular_files(folder: Path) -> dict[str, Path]:
    """Return every file below `folder` by its relative POSIX path, sorted.

    A link to a file counts as that file, because workers read trees through links; what is
    published goes through store/trees/scan.py, which refuses every link. Links to folders, dangling
    links, special files, names that are not UTF-8 and bottomless folders raise UntrustedFileError.
    """
    found: dict[str, Path] = {}
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        with reading(here), os.scandir(here) as listing:
            children = [Path(child.path) for child in listing]
        for child in children:
            relative = child.relative_to(folder)
            if _is_folder(child):
                _refuse_depth(child, relative)
                waiting.append(child)
            else:
                found[relative.as_posix()] = child
        if len(found) > MAX_FILES:
            raise refused(
                folder,
                f"holds more than {MAX_FILES} files",
                code="folder.too_many_files",
                remedy="Give a folder that holds one model.",
            )
    return dict(sorted(found.items()))


def _is_folder(path: Path) -> bool:
    if not path.name.isprintable():
        raise refused(
            path,
            "is a name with unprintable or undecodable characters",
            code="folder.bad_name",
            remedy="Rename it.",
        )
    mode = os.lstat(path).st_mode
    if stat.S_ISDIR(mode):
        return True
    if stat.S_ISREG(mode) or (stat.S_ISLNK(mode) and path.is_file()):
        return False
    raise refused(
        path,
        "is neither a file nor a folder (a link to a folder, a dangling link, or a special file)",
        code="folder.special",
        remedy="Give a copy with the links resolved (`cp -rL`), without special files.",
    )


def _refuse_depth(path: Path, relative: Path) -> None:
    if len(relative.parts) > _MAX_DEPTH:
        raise refused(
            path,
            f"lies deeper than {_MAX_DEPTH} folders",
            code="folder.too_deep",
            remedy="Give a folder that holds one model.",
        )
