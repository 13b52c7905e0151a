"""How far a full check came, so that the next one can go on from there.

Owns `fsck.state`: one JSON object, replaced whole every so often. It is derived and not fsynced: at
worst some objects are read twice. What it does not understand it takes for no bookmark.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from stillhouse.schemas.digest import is_digest

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Bookmark:
    """All objects up to one digest, in order, have been verified."""

    after: str
    """The last of them."""
    began: float
    """Unix time at which the check began."""
    corrupt: tuple[str, ...]
    """Digests that were not right."""


def read_bookmark(path: Path) -> Bookmark | None:
    """What an interrupted check left; None without one."""
    try:
        data = json.loads(path.read_bytes())
        found = Bookmark(
            after=data["after"], began=float(data["began"]), corrupt=tuple(data["corrupt"])
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
    whole = data.get("version") == _VERSION
    return found if whole and all(map(is_digest, (found.after, *found.corrupt))) else None


def write_bookmark(path: Path, bookmark: Bookmark) -> None:
    """Replace the bookmark; a disk that refuses it does not end the check."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        new.write_text(json.dumps({"version": _VERSION, **asdict(bookmark)}), encoding="utf-8")
        new.replace(path)
