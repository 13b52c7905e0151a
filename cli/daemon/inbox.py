"""The inbox: what lies in `inbox/<kind>/`, and since when it has been still.

An item is a file, or a folder with at least one file in it. The inbox hands out an item when it did
not change for two seconds. It hands the same item out again only after a change, or after the taker
put it off. A file that an editor or a download is still making is no item. A link is one, and the
taker refuses it. Each entry beside the folders of kinds is one item, however it changes. Nothing
here is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from stillhouse.schemas.artifact import PUBLISHABLE, Kind

SETTLE_SECONDS = 2.0
"""A dropped item is taken when it did not change for this long."""

_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 300.0
"""Seconds until an item that was put off begins to rest again; each time twice as many."""

_UNFINISHED = ("~", ".swp", ".swx", ".tmp", ".part", ".partial", ".crdownload", ".download")
"""Ends of names that editors, downloads and copies give to what they have not finished."""

_VIM_PROBE = "4913"
"""Vim creates and removes a file of this name to find out what it may do in a folder."""

Signature = tuple[tuple[str, int, int, int, int], ...]
"""(relative path, inode, size, mtime_ns, ctime_ns) of every file of an item.

The inode tells a file that was renamed into place from one of the same size and age; ctime tells
that one may be read now that could not be read before.
"""


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something that lies in the inbox."""

    kind: Kind | None
    """None: its folder is not named as a kind, and `path` is that folder."""
    path: Path
    signature: Signature
    fault: OSError | None = None
    """Why it can not even be looked at."""


@dataclass(kw_only=True)
class _Seen:
    item: Item
    since: float
    """When it was first seen as it is, or is to begin to rest again; monotonic seconds."""
    taken: bool = False
    put_off: int = 0
    """How often it was, as it is."""


@dataclass(kw_only=True)
class Inbox:
    """What lies in the inbox. Times are monotonic seconds."""

    folder: Path
    _seen: dict[Path, _Seen] = field(default_factory=dict)

    def look(self, now: float) -> None:
        """Look again at everything; what is gone is forgotten."""
        present = {item.path: item for item in _scan(self.folder)}
        for gone in set(self._seen) - set(present):
            del self._seen[gone]
        for path, item in present.items():
            seen = self._seen.get(path)
            if seen is None or seen.item.signature != item.signature:
                self._seen[path] = _Seen(item=item, since=now)

    def take(self, now: float, limit: int) -> list[Item]:
        """At most `limit` items that have come to rest and were not handed out as they are."""
        due = [s for s in self._seen.values() if not s.taken and _rests(s, now)][:limit]
        for seen in due:
            seen.taken = True
        return [seen.item for seen in due]

    def settles_in(self, now: float) -> float | None:
        """Seconds until the next item comes to rest if nothing changes; None: there is none."""
        since = min((s.since for s in self._seen.values() if not s.taken), default=None)
        return None if since is None else max(0.0, since + SETTLE_SECONDS - now)

    @property
    def resting(self) -> bool:
        """Whether everything that is here was handed out."""
        return all(seen.taken or seen.put_off for seen in self._seen.values())

    def put_off(self, item: Item, now: float) -> bool:
        """Hand out once more, after a pause, what was just taken; whether it is the first time."""
        seen = self._seen[item.path]
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**seen.put_off)
        seen.taken, seen.since = False, now + pause
        seen.put_off += 1
        return seen.put_off == 1

    @property
    def owing(self) -> bool:
        """Whether anything was put off and is still to be handed out again."""
        return any(seen.put_off and not seen.taken for seen in self._seen.values())


def changed(item: Item) -> bool:
    """Whether it is gone, or not what it was when it was handed out."""
    if item.kind is None:
        return not os.path.lexists(item.path)
    try:
        return item.fault is None and _signature(item.path) != item.signature
    except FileNotFoundError:
        return True
    except OSError:
        return False


def is_utf8(name: str) -> bool:
    """Whether a file's name is text; on Linux it may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def unfinished_part(item: Item) -> str | None:
    """A file inside of it that a download or a copy has not finished, if there is one."""
    for name, *_ in item.signature:
        if name.lower().endswith(_UNFINISHED) and not name.endswith("~"):
            return name
    return None


def _rests(seen: _Seen, now: float) -> bool:
    return now - seen.since >= SETTLE_SECONDS


def _scan(folder: Path) -> Iterator[Item]:
    """Every item of the inbox. A folder of a kind that can not be read is one, with its fault."""
    for kind in sorted(PUBLISHABLE):
        try:
            paths = sorted((folder / kind).iterdir())
        except FileNotFoundError:
            continue
        except OSError as error:
            yield _faulty(kind, folder / kind, error)
            continue
        for path in paths:
            if not _is_unfinished(path.name) and (item := _item(kind, path)):
                yield item
    yield from _of_no_kind(folder)


def _of_no_kind(folder: Path) -> Iterator[Item]:
    """What was dropped beside the folders of kinds; an empty folder is nothing yet."""
    with suppress(OSError):  # what the folders hold can be looked at all the same
        for path in sorted(folder.iterdir()):
            if path.name not in PUBLISHABLE and not _is_unfinished(path.name) and _holds(path):
                yield Item(kind=None, path=path, signature=((".", 0, 0, 0, 0),))


def _holds(path: Path) -> bool:
    """Whether it is a file, or a folder with one in it."""
    if path.is_symlink() or not path.is_dir():
        return True
    return any(files for _, _, files in os.walk(path))


def _is_unfinished(name: str) -> bool:
    """Whether the name is one of those that programs give to what is not meant to be seen."""
    if name.startswith(".") or name == _VIM_PROBE:  # .#name: Emacs; ._name, .DS_Store: macOS
        return True
    return name.lower().endswith(_UNFINISHED) or (name.startswith("#") and name.endswith("#"))


def _item(kind: Kind, path: Path) -> Item | None:
    """None when nothing is there: it was moved away, or is a folder without a file."""
    try:
        signature = _signature(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return _faulty(kind, path, error)
    return Item(kind=kind, path=path, signature=signature) if signature else None


def _faulty(kind: Kind, path: Path, error: OSError) -> Item:
    """What cannot be looked at comes to rest too: the taker says why."""
    told = error.strerror or "unknown error"
    return Item(kind=kind, path=path, signature=((told, 0, 0, 0, 0),), fault=error)


def _signature(path: Path) -> Signature:
    if path.is_symlink() or not path.is_dir():
        return (_stamp(".", path),)
    found = []
    for root, _, files in os.walk(path):
        for name in files:
            inside = Path(root) / name
            with suppress(FileNotFoundError):  # it is gone, and so not part of the item
                found.append(_stamp(os.fspath(inside.relative_to(path)), inside))
    return tuple(sorted(found))


def _stamp(name: str, path: Path) -> tuple[str, int, int, int, int]:
    status = path.lstat()
    return (name, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
