"""Damaged objects: told from missing ones, set aside, and never in the way of good ones."""

from __future__ import annotations

from stillhouse.store.objects.damaged import examine, forget, put_back, set_aside
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.objects.paths import condemned_path, object_path


def _damaged(store: BlobStore, data: bytes) -> str:
    digest = store.put_bytes(data).digest
    path = store.path(digest)
    path.chmod(0o644)
    path.write_bytes(b"x" + data[1:])
    return digest


def test_what_is_missing_is_told_from_what_is_corrupt(store: BlobStore) -> None:
    good, bad, gone = store.put_bytes(b"good").digest, _damaged(store, b"bad"), "ab" * 32
    found = examine(store, (good, bad, gone))
    assert (found.missing, found.corrupt) == ((gone,), (bad,))
    assert found.objects == (gone, bad)
    assert not examine(store, (good,)).objects


def test_what_is_set_aside_comes_back_under_each_name_that_it_had(store: BlobStore) -> None:
    folder = store.root.parent / "damaged"
    digest = _damaged(store, b"condemned")
    store.condemn([digest])
    _damaged(store, b"condemned")
    before = store.path(digest).read_bytes()
    moved = set_aside(store.root, folder, [digest])
    assert len(moved) == 2
    assert not store.has(digest)
    put_back(folder, moved)
    assert object_path(store.root, digest).exists()
    assert condemned_path(store.root, digest).read_bytes() == before
    assert list(folder.iterdir()) == []


def test_good_bytes_that_came_meanwhile_are_not_replaced(store: BlobStore) -> None:
    folder = store.root.parent / "damaged"
    digest = _damaged(store, b"mended")
    moved = set_aside(store.root, folder, [digest])
    store.put_bytes(b"mended")
    put_back(folder, moved)
    assert store.read(digest) == b"mended"
    assert [path.name for path in folder.iterdir()] == [digest]
    forget(folder, [digest, "ab" * 32])
    assert list(folder.iterdir()) == []
