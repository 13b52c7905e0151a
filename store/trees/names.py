"""Names that come out the same on every file system. Pure.

Owns the rules for the paths in a tree:

 - relative, `/` between components, NFC;
 - at most 1024 bytes (what macOS opens), 255 per component;
 - no component is empty, `.` or `..`;
 - no control characters, so that a name breaks neither a line nor a terminal;
 - no backslash, which is a separator elsewhere;
 - no two paths, folders included, differ only in case or normalisation;
 - no file is also a folder.

The functions only say what is wrong; the caller decides which error that is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

MAX_PATH = 1024
"""Bytes."""
MAX_COMPONENT = 255
"""Bytes."""
_WIDEST = 4  # bytes of a character in UTF-8


def plain(name: str) -> bool:
    """Whether a component is ASCII of the kind that needs no closer look (dot names apart)."""
    return (
        name.isascii()
        and name.isprintable()
        and "/" not in name
        and "\\" not in name
        and len(name) <= MAX_COMPONENT
    )


def component_fault(name: str) -> str | None:
    """Say what is wrong with one component of a path, as the end of a sentence; None if nothing."""
    if plain(name) and name not in {"", ".", ".."}:
        return None
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
    folders: set[str] = set()
    for path in paths:
        if len(path) * _WIDEST > MAX_PATH and len(path.encode()) > MAX_PATH:
            yield f"the path {path[:120]!r}… is longer than {MAX_PATH} bytes"
        if path in files:
            yield f"{path!r} is listed twice"
        files.add(path)
        for part in (*_new_folders(path, folders), path):
            other = spelling.setdefault(_folded(part), part)
            if other != part:
                yield f"{other!r} and {part!r} are the same name on other file systems"
            if part != path and part in files:
                yield f"{part!r} is both a file and a folder"
        if path in folders:
            yield f"{path!r} is both a file and a folder"


def _new_folders(path: str, folders: set[str]) -> list[str]:
    """The folders of a path that were not met before, outermost first; they are added."""
    found: list[str] = []
    end = path.rfind("/")
    while end > 0 and path[:end] not in folders:
        found.append(path[:end])
        folders.add(path[:end])
        end = path.rfind("/", 0, end)
    return found[::-1]


def _folded(path: str) -> str:
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
