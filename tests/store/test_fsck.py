from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from stillhouse.schemas.errors import IntegrityError
from stillhouse.store.check.fsck import FsckReport, Progress, fsck
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.trees.checkout import link_tree
from stillhouse.store.trees.trees import put_tree

NOW = time.time()


def audit(store: BlobStore, *digests: tuple[str, str], full: bool = True) -> FsckReport:
    expected = [(digest, "tree" if form == "tree" else "blob") for digest, form in digests]
    share = 1.0 if full else 0.0
    return fsck(store, expected=expected, now=NOW, share=share)  # type: ignore[arg-type]  # narrowed above


def spoil(store: BlobStore, digest: str, data: bytes) -> None:
    place = store.path(digest)
    place.chmod(0o644)
    place.write_bytes(data)
    place.chmod(0o444)


def test_a_sound_store_has_no_problems(store: BlobStore, folder: Path) -> None:
    tree = put_tree(store, folder)
    blob = store.put_bytes(b"abc")
    report = audit(store, (tree.digest, "tree"), (blob.digest, "blob"))
    assert report.ok
    assert report.objects == 6
    assert report.bytes == tree.size + tree.payload + 3
    assert (report.foreign, report.swept) == ((), ())


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
    assert report.objects == 10


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
    with store.batch() as batch:
        batch.add_bytes(b"abc")
        dead = store.root / "tmp" / "put-dead"
        dead.mkdir()
        (dead / "0").write_bytes(b"half")
        report = fsck(store, expected=(), now=NOW)
        assert report.swept == ("put-dead",)
        assert not dead.exists()
        batch.commit()
    assert audit(store).objects == 1


def test_progress_is_told_to_the_end(store: BlobStore) -> None:
    for n in range(3):
        store.put_bytes(bytes(n))
    seen: list[tuple[int, int]] = []
    fsck(store, expected=(), now=NOW, progress=lambda *told: seen.append(told))
    assert seen[-1] == (3, 3)


def test_an_object_that_was_made_writable_is_told_until_its_bytes_were_read(
    store: BlobStore,
) -> None:
    digest = store.put_bytes(b"abc").digest
    store.path(digest).chmod(0o644)
    looked, read = audit(store, full=False), audit(store)
    assert [problem.digest for problem in looked.exposed] == [digest]
    assert not looked.ok
    assert read.ok


def test_an_edit_through_a_link_that_was_handed_out_is_found_and_named(
    store: BlobStore, folder: Path, tmp_path: Path
) -> None:
    tree = put_tree(store, folder)
    link_tree(store, tree.digest, tmp_path / "out")
    assert audit(store, full=False).linked == len(tree.entries)
    edited = tmp_path / "out" / "config.json"
    edited.chmod(0o644)  # as root the mode would not even matter
    edited.write_bytes(b"{]\n")
    edited.chmod(0o444)
    victim = next(entry.digest for entry in tree.entries if entry.path == "config.json")
    report = audit(store, (tree.digest, "tree"))
    assert [problem.digest for problem in report.corrupt] == [victim]
    with pytest.raises(IntegrityError, match=victim):
        store.read(victim)


def test_a_condemned_object_counts_as_present_and_is_read(store: BlobStore) -> None:
    digest = store.put_bytes(b"abc").digest
    store.condemn([digest])
    report = audit(store, (digest, "blob"))
    assert report.ok
    assert (report.condemned, report.verified) == (1, 1)
    spoil(store, digest, b"abd")
    assert [problem.digest for problem in audit(store).corrupt] == [digest]


def interrupt_after(size: int) -> Progress:
    def note(done: int, _of: int) -> None:
        if done >= size:
            raise KeyboardInterrupt

    return note


def test_an_interrupted_check_goes_on_where_it_was(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the rest and what was corrupt, and its report is that of a check in one go."""
    monkeypatch.setattr("stillhouse.store.check.fsck._MARK_OBJECTS", 1)
    monkeypatch.setattr("stillhouse.store.check.fsck._JOB_OBJECTS", 4)
    digests = sorted(store.put_bytes(bytes([n])).digest for n in range(40))
    spoil(store, digests[1], b"x")
    spoil(store, digests[-1], b"x")
    mark = tmp_path / "fsck.state"
    with pytest.raises(KeyboardInterrupt):
        fsck(store, expected=(), now=NOW, bookmark=mark, progress=interrupt_after(20))
    read: list[str] = []
    verify = BlobStore.verify

    def note(one: BlobStore, digest: str, *, alone: bool) -> int:
        read.append(digest)
        return verify(one, digest, alone=alone)

    monkeypatch.setattr(BlobStore, "verify", note)
    report = fsck(store, expected=(), now=NOW, bookmark=mark, resume=True)
    assert report.resumed_after is not None
    assert sorted(read) == [digests[1], *(d for d in digests if d > report.resumed_after)]
    assert [p.digest for p in report.corrupt] == [digests[1], digests[-1]]
    assert (report.verified, report.verified_bytes) == (40, report.bytes)
    assert not mark.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"after": 1}', '{"version": 9}'])
def test_a_bookmark_that_makes_no_sense_is_none(
    store: BlobStore, tmp_path: Path, text: str
) -> None:
    store.put_bytes(b"abc")
    mark = tmp_path / "fsck.state"
    mark.write_text(text)
    report = fsck(store, expected=(), now=NOW, bookmark=mark, resume=True)
    assert (report.verified, report.resumed_after) == (1, None)


def test_a_sample_reads_its_share_and_says_what_that_proves(store: BlobStore) -> None:
    for n in range(300):
        store.put_bytes(bytes([n % 256]) * (100 + n))
    report = fsck(store, expected=(), now=NOW, share=0.2, chance=random.Random(4))
    assert report.how == "sample"
    assert 0.15 < report.verified_bytes / report.bytes < 0.25
    assert report.damaged_below is not None
    assert 0.02 < report.damaged_below < 0.06  # about 3 / draws
    assert report.ok


def test_a_sample_that_meets_damage_claims_nothing(store: BlobStore) -> None:
    large = store.put_bytes(bytes(100_000)).digest
    store.put_bytes(b"abc")
    spoil(store, large, b"x" * 100_000)
    report = fsck(store, expected=(), now=NOW, share=0.5, chance=random.Random(1))
    assert [problem.digest for problem in report.corrupt] == [large]
    assert report.damaged_below is None


def test_every_flip_cut_and_swap_is_found_by_the_check_and_on_reading(store: BlobStore) -> None:
    """2,000 objects, each damaged in one of three ways: all are named, and nothing else is."""
    chance = random.Random(7)
    contents = {store.put_bytes(n.to_bytes(2, "big") * 20).digest for n in range(2000)}
    sound = {store.put_bytes(b"sound %d" % n).digest for n in range(50)}
    victims = sorted(contents)
    for place, digest in enumerate(victims):
        data = bytearray(store.read(digest))
        if place % 3 == 0:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        elif place % 3 == 1:
            del data[chance.randrange(len(data)) :]
        else:
            data = bytearray(store.read(victims[place - 3], verify=False) + b"!")
        spoil(store, digest, bytes(data))
    report = audit(store)
    assert {problem.digest for problem in report.corrupt} == set(victims)
    for digest in victims:
        with pytest.raises(IntegrityError, match=digest):
            store.read(digest)
    for digest in sound:
        store.verify(digest)
