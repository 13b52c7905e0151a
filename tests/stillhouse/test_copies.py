"""Copies that a person gives: what is found in them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillhouse.copies import copy_at
from stillhouse.schemas.errors import InputError
from stillhouse.store.disk.hashing import hash_bytes
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.trees.trees import put_tree


@pytest.fixture
def disk(tmp_path: Path) -> BlobStore:
    """A store of its own."""
    BlobStore.create(tmp_path / "objects")
    return BlobStore(tmp_path / "objects")


def test_a_folder_that_is_copied_names_every_file_and_its_list(
    tmp_path: Path, disk: BlobStore
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "one").write_bytes(b"one")
    (folder / "two").write_bytes(b"two")
    (folder / "two").chmod(0o755)
    digest = put_tree(disk, folder).digest
    copy = copy_at(folder, digest, "tree")
    assert copy.how == "file"
    assert copy.files == {
        hash_bytes(name.encode()).digest: folder / name for name in ("one", "two")
    }
    assert copy.tree is not None
    assert hash_bytes(copy.tree).digest == digest


def test_a_copy_that_changes_after_it_was_hashed_is_refused(
    tmp_path: Path, disk: BlobStore
) -> None:
    path = tmp_path / "copy"
    path.write_bytes(b"good")
    digest = hash_bytes(b"good").digest
    copy = copy_at(path, digest, "blob")
    path.write_bytes(b"bad!")
    with pytest.raises(InputError) as caught:
        copy.put(disk, digest)
    assert caught.value.code == "repair.other_bytes"
    assert not disk.has(digest)


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"good")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(InputError):
        copy_at(tmp_path / "link", hash_bytes(b"good").digest, "blob")
