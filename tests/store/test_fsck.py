from __future__ import annotations

import os
import time
from pathlib import Path

from store.blobs import BlobStore
from store.fsck import LEFTOVER_AGE, FsckReport, fsck
from store.trees import put_tree

NOW = time.time()


def audit(store: BlobStore, *digests: tuple[str, str], full: bool = True) -> FsckReport:
    expected = [(digest, "tree" if form == "tree" else "blob") for digest, form in digests]
    return fsck(store, expected=expected, now=NOW, full=full)  # type: ignore[arg-type]  # narrowed above


def spoil(store: BlobStore, digest: str, data: bytes) -> None:
    place = store.path(digest)
    place.chmod(0o644)
    place.write_bytes(data)


def test_a_sound_store_has_no_problems(store: BlobStore, folder: Path) -> None:
    tree = put_tree(store, folder)
    blob = store.put_bytes(b"abc")
    report = audit(store, (tree.digest, "tree"), (blob.digest, "blob"))
    assert report.ok
    assert report.checked == 6
    assert report.bytes == tree.size + tree.payload + 3
    assert (report.foreign, report.swept_temp) == ((), ())


def test_a_flipped_bit_is_found_and_named(store: BlobStore, folder: Path) -> None:
    tree = put_tree(store, folder)
    victim = next(entry for entry in tree.entries if entry.path == "config.json")
    spoil(store, victim.digest, b"{]\n")
    report = audit(store, (tree.digest, "tree"))
    assert [problem.digest for problem in report.corrupt] == [victim.digest]
    assert victim.digest in report.corrupt[0].what
    assert not report.ok
    assert audit(store, (tree.digest, "tree"), full=False).ok  # only lengths are compared


def test_a_wrong_length_is_found_without_hashing(store: BlobStore, folder: Path) -> None:
    tree = put_tree(store, folder)
    victim = tree.entries[0]
    spoil(store, victim.digest, b"")
    report = audit(store, (tree.digest, "tree"), full=False)
    assert [problem.digest for problem in report.corrupt] == [victim.digest]
    assert "config.json" in report.corrupt[0].what


def test_missing_artifacts_and_missing_files_of_trees_are_named(
    store: BlobStore, folder: Path
) -> None:
    tree = put_tree(store, folder)
    blob = store.put_bytes(b"abc").digest
    lost = tree.entries[0]
    store.path(lost.digest).unlink()
    store.path(blob).unlink()
    report = audit(store, (blob, "blob"), (tree.digest, "tree"))
    assert [problem.digest for problem in report.missing] == [blob, lost.digest]
    assert lost.path in report.missing[1].what
    assert report.corrupt == ()


def test_a_corrupt_tree_and_a_blob_that_is_no_tree_are_named(
    store: BlobStore, folder: Path
) -> None:
    tree = put_tree(store, folder)
    blob = store.put_bytes(b"abc").digest
    spoil(store, tree.digest, b"stillhouse tree v1\nnonsense\n")
    report = audit(store, (tree.digest, "tree"), (blob, "tree"))
    assert {problem.digest for problem in report.corrupt} == {tree.digest, blob}


def test_every_problem_is_reported_not_only_the_first(store: BlobStore) -> None:
    blobs = [store.put_bytes(bytes([n])).digest for n in range(10)]
    for digest in blobs[:3]:
        spoil(store, digest, b"other")
    report = audit(store)
    assert {problem.digest for problem in report.corrupt} == set(blobs[:3])
    assert report.checked == 10


def test_foreign_files_are_told_and_not_touched(store: BlobStore) -> None:
    store.put_bytes(b"abc")
    (store.root / "README").touch()
    (store.root / "64" / "notes.txt").touch()
    (store.root / "zz").mkdir()
    report = audit(store)
    assert report.foreign == ("64/notes.txt", "README", "zz")
    assert (store.root / "README").exists()
    assert report.ok


def test_leftovers_of_the_dead_are_swept_and_work_in_progress_is_not(store: BlobStore) -> None:
    dead = store.root / "tmp" / "put-dead"
    dead.mkdir()
    (dead / "0").write_bytes(b"half")
    young = store.root / "tmp" / "put-young"
    young.mkdir()
    with store.batch() as batch:
        batch.add_bytes(b"abc")
        for path in (store.root / "tmp").iterdir():
            if path != young:
                os.utime(path, (NOW - 2 * LEFTOVER_AGE, NOW - 2 * LEFTOVER_AGE))
        report = fsck(store, expected=(), now=NOW)
        assert report.swept_temp == ("put-dead",)
        assert not dead.exists()
        assert young.exists()
        batch.commit()
    assert audit(store).checked == 1


def test_progress_is_told_after_each_object(store: BlobStore) -> None:
    for n in range(3):
        store.put_bytes(bytes(n))
    seen: list[tuple[int, int]] = []

    def note(*, objects: int, size: int) -> None:
        seen.append((objects, size))

    fsck(store, expected=(), now=NOW, progress=note)
    assert [objects for objects, _ in seen] == [1, 2, 3]
    assert seen[-1][1] == 3
