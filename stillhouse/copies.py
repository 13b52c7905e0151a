"""Copies that a person gives of an artifact: a file, a folder, or another registry.

Rules: what is given is hashed before anything here is touched. Other bytes than the recorded ones
are refused, with both digests. Links and special files are never followed.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stillhouse.registry.home import FOLDER, Home
from stillhouse.schemas.artifact import Form
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.store.disk.durable import present, reading, shown
from stillhouse.store.disk.hashing import hash_bytes, hash_file
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.objects.sources import refuse_special
from stillhouse.store.trees.scan import scan
from stillhouse.store.trees.trees import Entry, parse_tree, tree_bytes


@dataclass(frozen=True, kw_only=True)
class Copy:
    """What was given, hashed."""

    source: Path
    how: Literal["file", "registry"]
    files: Mapping[Digest, Path]
    """Where the bytes of each object are."""
    tree: bytes | None
    """The list of files of a folder."""

    def put(self, store: BlobStore, digest: Digest) -> None:
        """Store one of the objects. Raises InputError when it was changed since it was hashed."""
        found = store.put_file(self.files[digest]).digest
        if found != digest:
            raise _other_bytes(self.source, digest, found)


def copy_at(source: Path, digest: Digest, form: Form) -> Copy:
    """Find an artifact's bytes in what was given. Raises InputError when they are not in it."""
    if not present(source):
        raise InputError(
            f"There is nothing at {shown(source)}.", remedy="Check the path.", code="repair.no_copy"
        )
    for home in (Home(source), Home(source / FOLDER)):
        if home.exists:
            return _in_registry(BlobStore(home.objects), digest, form, source)
    return _in_folder(source, digest) if source.is_dir() else _in_file(source, digest)


def _in_file(source: Path, digest: Digest) -> Copy:
    with reading(source):
        refuse_special(source, source.lstat().st_mode)
        found = hash_file(source).digest
    if found != digest:
        raise _other_bytes(source, digest, found)
    return Copy(source=source, how="file", files={digest: source}, tree=None)


def _in_folder(source: Path, digest: Digest) -> Copy:
    entries: list[Entry] = []
    files: dict[Digest, Path] = {}
    for file in scan(source):
        path = Path(file.source)
        with reading(path):
            hashed = hash_file(path)
        entries.append(
            Entry(
                path=file.path,
                size=hashed.size,
                digest=hashed.digest,
                executable=bool(file.status.st_mode & stat.S_IXUSR),
            )
        )
        files[hashed.digest] = path
    tree = tree_bytes(entries)
    found = hash_bytes(tree).digest
    if found != digest:
        raise _other_bytes(source, digest, found)
    return Copy(source=source, how="file", files=files, tree=tree)


def _in_registry(store: BlobStore, digest: Digest, form: Form, source: Path) -> Copy:
    """Another registry's objects, each of them verified there."""
    try:
        store.verify(digest)
        tree = store.read(digest) if form == "tree" else None
        members = {entry.digest for entry in parse_tree(tree)} if tree is not None else {digest}
        for member in members:
            store.verify(member)
    except IntegrityError as error:
        raise InputError(
            f"The registry at {shown(source)} has no good copy: {error.message}",
            remedy="Give another copy; nothing was changed.",
            code="repair.no_copy",
        ) from error
    files = {member: store.path(member) for member in members}
    return Copy(source=source, how="registry", files=files, tree=tree)


def _other_bytes(source: Path, digest: Digest, found: Digest) -> InputError:
    return InputError(
        f"{shown(source)} holds other bytes: {found}, and not {digest}.",
        remedy="Give a copy of the very same bytes; nothing was changed.",
        code="repair.other_bytes",
    )
