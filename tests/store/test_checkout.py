from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.store.disk.hashing import CHUNK
from stillhouse.store.disk.streaming import PIECE
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.objects.statcache import StatCache
from stillhouse.store.trees.checkout import _appearing, checkout, link_tree
from stillhouse.store.trees.trees import put_tree


def contents(root: Path) -> dict[str, tuple[bytes, bool]]:
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in root.rglob("*")
        if path.is_file()
    }


def corrupt(store: BlobStore, digest: str) -> None:
    place = store.path(digest)
    place.chmod(0o644)
    data = bytearray(place.read_bytes())
    data[0] ^= 1
    place.write_bytes(data)


def test_a_tree_comes_out_bit_exact(store: BlobStore, folder: Path, tmp_path: Path) -> None:
    checkout(store, put_tree(store, folder).digest, "tree", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folder)


def test_a_checked_out_tree_has_the_same_digest(
    store: BlobStore, folder: Path, tmp_path: Path
) -> None:
    digest = put_tree(store, folder).digest
    checkout(store, digest, "tree", tmp_path / "out")
    assert put_tree(store, tmp_path / "out").digest == digest


def test_a_large_blob_comes_out_bit_exact(store: BlobStore, tmp_path: Path) -> None:
    data = os.urandom((4 << 20) + 77)
    checkout(store, store.put_bytes(data).digest, "blob", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


def test_editing_a_checkout_cannot_change_the_object(store: BlobStore, tmp_path: Path) -> None:
    digest = store.put_bytes(b"abc").digest
    out = tmp_path / "out"
    checkout(store, digest, "blob", out)
    assert out.stat().st_nlink == 1
    assert out.stat().st_mode & 0o200
    out.write_bytes(b"changed in place")
    assert store.read(digest) == b"abc"


def test_an_existing_destination_is_left_alone(
    store: BlobStore, folder: Path, tmp_path: Path
) -> None:
    digest = put_tree(store, folder).digest
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    before = sorted(tmp_path.iterdir())
    for name in ("file", "empty", "dangling"):
        for take in (checkout_tree, link_tree):
            with pytest.raises(InputError) as error:
                take(store, digest, tmp_path / name)
            assert error.value.code == "checkout.exists"
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert sorted(tmp_path.iterdir()) == before


def checkout_tree(store: BlobStore, digest: str, dest: Path) -> None:
    checkout(store, digest, "tree", dest)


def test_a_destination_without_a_folder_is_refused(store: BlobStore, tmp_path: Path) -> None:
    digest = store.put_bytes(b"abc").digest
    with pytest.raises(InputError) as error:
        checkout(store, digest, "blob", tmp_path / "absent" / "out")
    assert error.value.code == "checkout.no_folder"


def test_a_corrupt_object_never_reaches_the_destination(
    store: BlobStore, folder: Path, tmp_path: Path
) -> None:
    stored = put_tree(store, folder)
    victim = stored.entries[-1].digest
    corrupt(store, victim)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(IntegrityError, match=victim) as error:
        checkout(store, stored.digest, "tree", tmp_path / "out")
    assert error.value.code == "store.corrupt"
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_object_leaves_no_half_checkout(
    store: BlobStore, folder: Path, tmp_path: Path
) -> None:
    stored = put_tree(store, folder)
    store.path(stored.entries[-1].digest).unlink()
    for take in (checkout_tree, link_tree):
        with pytest.raises(IntegrityError, match=stored.entries[-1].digest):
            take(store, stored.digest, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_hostile_tree_writes_nothing_outside(store: BlobStore, tmp_path: Path) -> None:
    digest = store.put_bytes(b"abc").digest
    tree = store.put_bytes(f"stillhouse tree v1\n- 3 {digest} ../escaped\n".encode()).digest
    for take in (checkout_tree, link_tree):
        with pytest.raises(IntegrityError):
            take(store, tree, tmp_path / "out")
    assert not (tmp_path / "escaped").exists()


def test_a_linked_tree_reads_like_the_folder_and_copies_nothing(
    store: BlobStore, folder: Path, tmp_path: Path
) -> None:
    stored = put_tree(store, folder)
    link_tree(store, stored.digest, tmp_path / "linked")
    for entry in stored.entries:
        path = tmp_path / "linked" / entry.path
        assert path.read_bytes() == (folder / entry.path).read_bytes()
        assert path.samefile(store.path(entry.digest))


def test_a_tree_without_files_is_an_empty_folder(store: BlobStore, tmp_path: Path) -> None:
    digest = store.put_bytes(b"stillhouse tree v1\n").digest
    for name, take in (("copied", checkout_tree), ("linked", link_tree)):
        take(store, digest, tmp_path / name)
        assert list((tmp_path / name).iterdir()) == []


def test_a_destination_with_the_longest_name_is_fine(store: BlobStore, tmp_path: Path) -> None:
    dest = tmp_path / ("é" * 127)
    checkout(store, store.put_bytes(b"abc").digest, "blob", dest)
    assert dest.read_bytes() == b"abc"


def test_a_checkout_says_how_its_files_came_about(
    store: BlobStore, folder: Path, tmp_path: Path
) -> None:
    tree = put_tree(store, folder)
    copied = checkout(store, tree.digest, "tree", tmp_path / "copied")
    linked = checkout(store, tree.digest, "tree", tmp_path / "linked", link=True)
    assert sum(copied.files.values()) == len(tree.entries)
    assert sum(copied.bytes.values()) == tree.payload
    assert copied.files.keys() <= {"reflink", "copy"}
    assert linked.files == {"link": len(tree.entries)}
    assert linked.bytes == {"link": tree.payload}


def test_a_single_object_can_be_linked(store: BlobStore, tmp_path: Path) -> None:
    digest = store.put_bytes(b"abc").digest
    assert checkout(store, digest, "blob", tmp_path / "out", link=True).files == {"link": 1}
    assert (tmp_path / "out").samefile(store.path(digest))


def test_where_links_are_impossible_a_linked_checkout_is_a_copy(
    store: BlobStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(_self: Path, _target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    taken = link_tree(store, put_tree(store, folder).digest, tmp_path / "out")
    assert "link" not in taken.files
    assert contents(tmp_path / "out") == contents(folder)


def test_an_edit_through_a_link_is_told_on_every_verified_way_out(
    store: BlobStore, tmp_path: Path
) -> None:
    """Mode 0444 does not stop root, nor the owner who changes it."""
    digest = store.put_bytes(b"abc").digest
    checkout(store, digest, "blob", tmp_path / "link", link=True)
    (tmp_path / "link").chmod(0o644)
    (tmp_path / "link").write_bytes(b"abd")
    with pytest.raises(IntegrityError, match=digest):
        store.read(digest)
    with pytest.raises(IntegrityError, match=digest):
        checkout(store, digest, "blob", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_large_corrupt_object_never_reaches_the_destination(
    store: BlobStore, tmp_path: Path
) -> None:
    digest = store.put_bytes(os.urandom(5 << 20)).digest
    corrupt(store, digest)
    with pytest.raises(IntegrityError, match=digest):
        checkout(store, digest, "blob", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_condemned_tree_comes_out_whole(store: BlobStore, folder: Path, tmp_path: Path) -> None:
    tree = put_tree(store, folder)
    store.condemn([tree.digest, *(entry.digest for entry in tree.entries)])
    checkout(store, tree.digest, "tree", tmp_path / "copied")
    link_tree(store, tree.digest, tmp_path / "linked")
    assert contents(tmp_path / "copied") == contents(folder)


def test_a_file_system_that_clones_gives_clones(
    store: BlobStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small stand-in for FICLONE, which this disk may not have: its result is verified as any."""

    def clone(source: int, target: Path, mode: int) -> bool:
        target.write_bytes(os.pread(source, 1 << 20, 0))
        target.chmod(mode)
        return True

    monkeypatch.setattr("stillhouse.store.disk.kernel.clone", clone)
    tree = put_tree(store, folder)
    taken = checkout(store, tree.digest, "tree", tmp_path / "out")
    assert taken.files == {"reflink": len(tree.entries)}
    large = tmp_path / "large"
    large.write_bytes(bytes(1 << 20) * 6)
    with pytest.raises(InputError, match="changed"):  # the stand-in clones the first mebibyte only
        store.put_file(large)


def test_what_a_killed_checkout_left_goes_with_the_next_one_and_work_in_progress_stays(
    store: BlobStore, folder: Path, tmp_path: Path
) -> None:
    digest = put_tree(store, folder).digest
    child = os.fork()
    if child == 0:
        with _appearing(tmp_path / "killed") as unfinished:
            unfinished.mkdir()
            (unfinished / "half").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.glob(".still-*")
    with _appearing(tmp_path / "slow") as unfinished:
        unfinished.mkdir()
        assert checkout(store, digest, "tree", tmp_path / "out").swept == (left.name,)
        assert [path.name for path in tmp_path.glob(".still-*")] == [unfinished.parent.name]
    assert (tmp_path / "slow").is_dir()
    assert not (tmp_path / "killed").exists()
    assert list(tmp_path.glob(".still-*")) == []


def test_a_folder_that_only_looks_like_an_unfinished_checkout_is_not_followed(
    store: BlobStore, tmp_path: Path
) -> None:
    digest = store.put_bytes(b"abc").digest
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_bytes(b"mine")
    (tmp_path / ".still-unfinished-x").symlink_to(tmp_path / "mine")
    (tmp_path / ".still-backup").mkdir()
    assert checkout(store, digest, "blob", tmp_path / "out").swept == ()
    assert (tmp_path / "mine" / "file").read_bytes() == b"mine"
    assert (tmp_path / ".still-backup").is_dir()


def test_whoever_waits_hears_of_every_byte_once(store: BlobStore, tmp_path: Path) -> None:
    """Read or known, small or streamed: a bar that stops short or runs over tells nothing."""
    source = tmp_path / "in"
    source.mkdir()
    sizes = {"empty": 0, "small": 100, "streamed": CHUNK + 1, "poured": 2 * PIECE + 1}
    for name, size in sizes.items():
        (source / name).write_bytes(os.urandom(size))
        os.utime(source / name, (1, 1))
    (source / "again").write_bytes((source / "poured").read_bytes())
    total = sum(sizes.values()) + sizes["poured"]
    cache = StatCache(tmp_path / "stat.cache")
    told: list[int] = []
    for _ in ("read", "known"):
        told.clear()
        tree = put_tree(store, source, cache=cache, tell=told.append)
        assert sum(told) == tree.payload == total
    told.clear()
    checkout(store, tree.digest, "tree", tmp_path / "out", tell=told.append)
    assert sum(told) == total
    told.clear()
    store.put_file(source / "streamed", tell=told.append)
    assert sum(told) == sizes["streamed"]
