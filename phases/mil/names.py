"""Names of files inside a package, as its manifest and its program spell them.

Rule: a name is a relative POSIX path that never climbs. Links are followed: a worker's inputs are
links into the store, and the store takes no folder that holds one (store/trees/scan.py).
"""

from __future__ import annotations

from pathlib import PurePosixPath

_FORBIDDEN = ("\0", "\\")


def inner_parts(name: str) -> tuple[str, ...]:
    """The components of a name that stays inside its folder; () when it does not, or is empty."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or any(bad in name for bad in _FORBIDDEN):
        return ()
    return path.parts
