"""Core ML packages as folders: a sane manifest, and everything it names.

Layout, as coremltools 9.0 writes it: `Manifest.json` with `itemInfoEntries` (identifier: author,
name, path) and `rootModelIdentifier`; each path lies below `Data/`. What is inside the model is the
business of phases/mil.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stillhouse.phases.untrusted.pickles import find_pickle
from stillhouse.phases.untrusted.reading import read_json, refused, regular_files
from stillhouse.schemas.errors import UntrustedFileError

_MAX_MANIFEST = 1 << 20
_MANIFEST = "Manifest.json"


@dataclass(frozen=True, kw_only=True)
class MlpackageSummary:
    """A package that may be opened."""

    model: str
    """Path of the root model, relative to the package."""
    files: tuple[str, ...]
    """Every file, as a relative POSIX path, sorted."""


def check_mlpackage(folder: Path) -> MlpackageSummary:
    """Check a `.mlpackage` folder before its model is read.

    Raises UntrustedFileError (`mlpackage.…`), InputError when it cannot be read.
    """
    files = regular_files(folder)
    if _MANIFEST not in files:
        raise _bad(folder, f"has no {_MANIFEST}")
    stray = next((n for n in files if n != _MANIFEST and not n.startswith("Data/")), None)
    if stray is not None:
        raise _bad(folder, f"holds {stray!r} outside Data/")
    items = _items(files)
    for path in files.values():
        found = find_pickle(path)
        if found is not None:
            raise _bad(path, found)
    return MlpackageSummary(model=items, files=tuple(files))


def _items(files: Mapping[str, Path]) -> str:
    """Check each item of the manifest; return the path of the root model."""
    manifest = files[_MANIFEST]
    table = read_json(manifest, limit=_MAX_MANIFEST, code="mlpackage.bad_manifest")
    entries, root = table.get("itemInfoEntries"), table.get("rootModelIdentifier")
    if not isinstance(entries, dict) or not isinstance(root, str) or root not in entries:
        raise _bad(manifest, "names no root model among its items")
    places: dict[str, str] = {}
    for identifier, item in entries.items():
        path = item.get("path") if isinstance(item, dict) else None
        if not isinstance(path, str) or not _is_inside(path):
            raise _bad(manifest, f"names the path {str(path)[:120]!r}, which is not inside Data/")
        places[identifier] = f"Data/{path}"
        if not _is_there(places[identifier], files):
            raise _bad(manifest, f"names {path!r}, which is not there")
    if places[root] not in files:
        raise _bad(manifest, "names a root model that is not a file")
    return places[root]


def _is_inside(path: str) -> bool:
    return "\\" not in path and all(part not in {"", ".", ".."} for part in path.split("/"))


def _is_there(place: str, files: Mapping[str, Path]) -> bool:
    return place in files or any(name.startswith(place + "/") for name in files)


def _bad(path: Path, what: str) -> UntrustedFileError:
    return refused(
        path,
        what,
        code="mlpackage.bad_manifest" if path.name == _MANIFEST else "mlpackage.malformed",
        remedy="Convert the model again, or copy the package again, complete.",
    )
