"""Names that come out the same on every file system. Pure.

Owns the rules for the paths in a tree: relative, `/` between components, NFC, at most 1024 bytes
(what macOS opens), 255 per component; no component is empty, `.` or `..`; no control characters, so
that a name breaks neither a line nor a terminal; no backslash, which is a separator elsewhere; no
two paths, folders included, differ only in case or normalisation; no file is also a folder.
The functions only say what is wrong; the caller decides which error that is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

MAX_PATH = 1024
"""Bytes."""
MAX_COMPONENT = 255
"""Bytes."""


def component_fault(name: str) -> str | None:
    """Say what is wrong with one component of a path, as the end of a sentence; None if nothing."""
    if name in {"", ".", ".."}:
        return "is empty or a dot name"
    if "/" in name or "\\" in name or any(unicodedata.category(c) == "Cc" for c in name):
        return "contains a slash, a backslash or a control character"
    if unicodedata.normalize("NFC", name) != name:
        return "is not in Unicode normal form C"
    if len(name.encode()) > MAX_COMPONENT:
        return f"is longer than {MAX_COMPONENT} bytes"
    return None


def path_faults(paths: Iterable[str]) -> Iterator[str]:
    """Say what is wrong with these paths taken together; yields nothing if they may share a tree.

    Components are not looked at; see `component_fault`.
    """
    spelling: dict[str, str] = {}
    files: set[str] = set()
    for path in paths:
        if len(path.encode()) > MAX_PATH:
            yield f"the path {path[:120]!r}… is longer than {MAX_PATH} bytes"
        if path in files:
            yield f"{path!r} is listed twice"
        files.add(path)
        for part in _with_folders(path):
            other = spelling.setdefault(_folded(part), part)
            if other != part:
                yield f"{other!r} and {part!r} are the same name on other file systems"
            if part != path and part in files:
                yield f"{part!r} is both a file and a folder"


def _with_folders(path: str) -> Iterator[str]:
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)
    yield path


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
