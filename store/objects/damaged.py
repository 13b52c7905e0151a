"""Damaged objects: set aside while good bytes are put in their place, and removed only then.

Owns `damaged/`, beside `objects/`. Rules: an object is set aside under both names that it may have,
its own and the condemned one. If what follows fails, it gets them back, unless good bytes have them
by then. A repair that was killed leaves it in `damaged/`, and the next one forgets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import IntegrityError
from stillhouse.store.disk.durable import sync_folder, writing
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.objects.paths import condemned_path, object_path


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What is wrong with some objects."""

    missing: tuple[Digest, ...]
    corrupt: tuple[Digest, ...]

    @property
    def objects(self) -> tuple[Digest, ...]:
        """All that are not as they should be."""
        return (*self.missing, *self.corrupt)


def examine(store: BlobStore, objects: Iterable[Digest]) -> Damage:
    """Read every byte of these objects. Raises StorageError."""
    missing: list[Digest] = []
    corrupt: list[Digest] = []
    for digest in objects:
        try:
            store.verify(digest)
        except IntegrityError as error:
            (missing if error.code == "store.missing" else corrupt).append(digest)
    return Damage(missing=tuple(missing), corrupt=tuple(corrupt))


class Aside(NamedTuple):
    """A damaged object that was moved."""

    place: Path
    """Where it was."""
    kept: Path
    """Where it is now."""


def set_aside(objects: Path, damaged: Path, digests: Iterable[Digest]) -> tuple[Aside, ...]:
    """Move these objects out of their places, durably. Raises StorageError.

    The caller is the only process that takes objects away.
    """
    with writing(damaged):
        damaged.mkdir(exist_ok=True)
        moved = tuple(one for digest in digests for one in _moved(objects, damaged, digest))
        _sync(damaged, moved)
    return moved


def put_back(damaged: Path, moved: Iterable[Aside]) -> None:
    """Give damaged objects their names again, where nothing good has them. Raises StorageError."""
    moved = tuple(moved)
    with writing(damaged):
        for place, kept in moved:
            if not place.exists():
                kept.rename(place)
        _sync(damaged, moved)


def forget(damaged: Path, digests: Iterable[Digest]) -> None:
    """Remove what was set aside of these, now that good bytes are durable. Raises StorageError."""
    with writing(damaged):
        for digest in digests:
            for name in _names(digest):
                (damaged / name).unlink(missing_ok=True)


def _moved(objects: Path, damaged: Path, digest: Digest) -> Iterator[Aside]:
    places = (object_path(objects, digest), condemned_path(objects, digest))
    for place, name in zip(places, _names(digest), strict=True):
        if place.exists():
            yield Aside(place, place.rename(damaged / name))


def _names(digest: Digest) -> tuple[str, str]:
    return digest, f"{digest}.condemned"


def _sync(damaged: Path, moved: Iterable[Aside]) -> None:
    for folder in sorted({damaged.parent, *(path.parent for one in moved for path in one)}):
        sync_folder(folder)
