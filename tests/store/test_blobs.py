from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillhouse.schemas.errors import InputError, IntegrityError, StillError, StorageError
from stillhouse.store.disk.durable import MANY
from stillhouse.store.disk.hashing import CHUNK, Hasher
from stillhouse.store.disk.streaming import PIECE
from stillhouse.store.objects import sources, staging
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.objects.sources import open_source
from stillhouse.store.objects.staging import Batch, Stored

ABC = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"


def code_of(error: pytest.ExceptionInfo[StillError]) -> str:
    assert error.value.remedy
    return error.value.code


def temporaries(store: BlobStore) -> list[Path]:
    return list((store.root / "tmp").iterdir())


def test_an_object_lives_where_its_digest_says_and_is_read_only(store: BlobStore) -> None:
    stored = store.put_bytes(b"abc", sha256=True)
    place = store.root / "64" / ABC[2:]
    assert (stored.digest, stored.size) == (ABC, 3)
    assert stored.sha256 is not None
    assert place.read_bytes() == b"abc"
    assert stat.S_IMODE(place.stat().st_mode) == 0o444
    assert temporaries(store) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(data=st.binary(max_size=5000))
def test_what_was_put_is_read_back(store: BlobStore, data: bytes) -> None:
    digest = store.put_bytes(data).digest
    assert store.read(digest) == data
    assert store.verify(digest) == store.size(digest) == len(data)
    with store.open(digest) as blob:
        assert blob.read() == data


def test_a_file_and_its_bytes_have_one_digest(store: BlobStore, tmp_path: Path) -> None:
    data = os.urandom(5 << 20)  # more than one chunk
    source = tmp_path / "source"
    source.write_bytes(data)
    assert store.put_file(source) == store.put_bytes(data)


def test_a_present_object_is_not_rewritten(store: BlobStore) -> None:
    place = store.path(store.put_bytes(b"abc").digest)
    before = place.stat()
    store.put_bytes(b"abc")
    after = place.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert temporaries(store) == []


def test_putting_onto_a_truncated_object_is_refused_by_name(store: BlobStore) -> None:
    place = store.path(store.put_bytes(b"abc").digest)
    place.chmod(0o644)
    place.write_bytes(b"a")
    with pytest.raises(IntegrityError, match=ABC) as error:
        store.put_bytes(b"abc")
    assert code_of(error) == "store.corrupt"


def test_a_corrupt_object_is_told_by_name_on_read_and_verify(store: BlobStore) -> None:
    place = store.path(store.put_bytes(b"abc").digest)
    place.chmod(0o644)
    place.write_bytes(b"abd")
    with pytest.raises(IntegrityError, match=ABC) as error:
        store.read(ABC)
    assert code_of(error) == "store.corrupt"
    with pytest.raises(IntegrityError, match=ABC):
        store.verify(ABC)
    assert store.read(ABC, verify=False) == b"abd"


def test_a_missing_object_is_told_by_name(store: BlobStore) -> None:
    assert not store.has(ABC)
    with pytest.raises(IntegrityError, match=ABC) as error:
        store.path(ABC)
    assert code_of(error) == "store.missing"


def test_a_text_that_is_no_digest_reaches_no_file(store: BlobStore) -> None:
    for text in ("../../etc/passwd", "", ABC[:12], ABC.upper()):
        with pytest.raises(ValueError, match="not a digest"):
            store.path(text)


def test_all_digests_are_listed_in_order_and_nothing_else(store: BlobStore) -> None:
    stored = sorted(store.put_bytes(bytes([n])).digest for n in range(20))
    (store.root / "64").mkdir(exist_ok=True)
    (store.root / "64" / "notes.txt").touch()
    (store.root / "README").touch()
    assert list(store.digests()) == stored


def test_links_and_special_files_are_refused_and_leave_nothing(
    store: BlobStore, tmp_path: Path
) -> None:
    link, fifo, sock = tmp_path / "link", tmp_path / "fifo", tmp_path / "sock"
    (tmp_path / "file").write_bytes(b"abc")
    link.symlink_to(tmp_path / "file")
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(sock))
        for path, code in (
            (link, "file.symlink"),
            (fifo, "file.special"),
            (sock, "file.special"),
            (tmp_path, "file.special"),
            (tmp_path / "absent", "file.unreadable"),
        ):
            with pytest.raises(InputError, match=path.name) as error:
                store.put_file(path)
            assert code_of(error) == code
    assert list(store.digests()) == []
    assert temporaries(store) == []


def test_a_file_that_changes_while_it_is_read_is_refused(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "growing"
    source.write_bytes(bytes(32 << 20))
    done, started = threading.Event(), threading.Event()

    def scribble() -> None:
        with source.open("r+b", buffering=0) as file:
            while not done.is_set():
                file.seek(0)
                file.write(os.urandom(16))
                started.set()

    writer = threading.Thread(target=scribble)
    writer.start()
    started.wait()
    try:
        with pytest.raises(InputError, match="changed while it was being read") as error:
            store.put_file(source)
    finally:
        done.set()
        writer.join()
    assert code_of(error) == "file.changed"
    assert list(store.digests()) == []
    assert temporaries(store) == []


def test_a_failed_fsync_is_never_acknowledged(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("stillhouse.store.objects.staging.sync", broken)
    with pytest.raises(StorageError, match="Input/output error") as error:
        store.put_bytes(b"abc")
    assert code_of(error) == "store.io"
    assert list(store.digests()) == []
    assert temporaries(store) == []


def test_a_failed_directory_fsync_is_never_acknowledged_even_for_a_present_object(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store.put_bytes(b"abc")
    monkeypatch.setattr("stillhouse.store.disk.durable.sync_folder", broken)
    for data in (b"abc", b"new"):
        with pytest.raises(StorageError):
            store.put_bytes(data)


def test_a_batch_without_commit_stores_nothing(store: BlobStore) -> None:
    with store.batch() as batch:
        batch.add_bytes(b"abc")
        assert not store.has(ABC)
    assert not store.has(ABC)
    assert temporaries(store) == []


def test_writing_to_a_store_that_was_never_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="still init") as error:
        BlobStore(tmp_path / "nowhere" / "objects").put_bytes(b"abc")
    assert code_of(error) == "store.absent"


def test_creating_a_store_twice_keeps_its_objects(store: BlobStore) -> None:
    store.put_bytes(b"abc")
    assert BlobStore.create(store.root).read(ABC) == b"abc"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_file_longer_than_it_says_is_refused(store: BlobStore) -> None:
    with pytest.raises(InputError) as error:
        store.put_file(Path("/proc/self/maps"))  # regular, and longer than the size it claims
    assert code_of(error) == "file.changed"


def test_an_object_that_vanishes_while_it_is_put_again_is_not_acknowledged(
    store: BlobStore,
) -> None:
    store.put_bytes(b"abc")
    with store.batch() as batch:
        batch.add_bytes(b"abc")
        store.path(ABC).unlink()
        with pytest.raises(IntegrityError, match=ABC) as error:
            batch.commit()
    assert code_of(error) == "store.vanished"


def test_an_object_is_shown_by_a_rename_and_so_never_in_part(store: BlobStore) -> None:
    with store.batch() as batch:
        batch.add_bytes(b"abc")
        (copy,) = (store.root / "tmp").glob("*/*")
        inode = copy.stat().st_ino
        batch.commit()
    assert store.path(ABC).stat().st_ino == inode


def test_what_is_acknowledged_had_its_folders_fsynced_after_it_was_shown(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsynced: list[tuple[str, bool]] = []

    def note(folder: Path) -> None:
        fsynced.append((folder.relative_to(store.root).as_posix(), store.has(ABC)))

    monkeypatch.setattr("stillhouse.store.disk.durable.sync_folder", note)
    for _ in ("new", "present"):
        fsynced.clear()
        store.put_bytes(b"abc")
        assert sorted(fsynced) == [(".", True), ("64", True)]


def _added(batch: Batch, source: Path, *, sha256: bool = False, met: bool = False) -> Stored:
    reader = open_source(source)
    try:
        return batch.add_open(source, reader, os.fstat(reader), sha256=sha256, met=met)
    finally:
        os.close(reader)


def test_a_large_file_that_was_met_before_is_not_written_again(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "large"
    source.write_bytes(os.urandom(CHUNK + 1))
    first = store.put_file(source, sha256=True)
    monkeypatch.setattr(staging, "pour", pytest.fail)
    with store.batch() as batch:
        assert _added(batch, source, sha256=True, met=True) == first
        batch.commit()


def test_a_large_file_that_is_there_already_leaves_no_second_copy(
    store: BlobStore, tmp_path: Path
) -> None:
    source = tmp_path / "large"
    source.write_bytes(os.urandom(CHUNK + 1))
    inode = store.path(store.put_file(source).digest).stat().st_ino
    with store.batch() as batch:
        stored = _added(batch, source)
        assert [list(folder.iterdir()) for folder in temporaries(store)] == [[]]
        batch.commit()
    assert store.path(stored.digest).stat().st_ino == inode


def test_what_is_stored_is_what_was_hashed_even_if_a_mapping_changed_the_file(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write through a mapping may change no time at all: only the bytes themselves tell."""
    source = tmp_path / "large"
    source.write_bytes(bytes(3 * PIECE))
    monkeypatch.setattr(sources, "signature", lambda status: (status.st_size,))
    update = Hasher.update

    def scribble(hasher: Hasher, data: memoryview) -> None:
        update(hasher, data)
        with source.open("r+b") as file:
            file.write(os.urandom(3 * PIECE))

    monkeypatch.setattr(Hasher, "update", scribble)
    digest = store.put_file(source).digest
    monkeypatch.undo()
    assert store.verify(digest) == 3 * PIECE


def test_two_files_of_one_content_are_written_once(store: BlobStore, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"abc")
    with store.batch() as batch:
        _added(batch, tmp_path / "one")
        _added(batch, tmp_path / "two")
        assert len(list((store.root / "tmp").glob("*/*"))) == 1
        batch.commit()
    assert list(store.digests()) == [ABC]


@pytest.mark.parametrize("count", [MANY, MANY + 1, 3 * MANY])
def test_few_and_many_objects_are_stored_alike(store: BlobStore, count: int) -> None:
    with store.batch() as batch:
        wanted = [batch.add_bytes(bytes([n])).digest for n in range(count)]
        batch.commit()
    assert list(store.digests()) == sorted(wanted)
    assert {store.path(digest).stat().st_mode & 0o777 for digest in wanted} == {0o444}
    assert temporaries(store) == []


def test_a_tight_umask_leaves_objects_readable(store: BlobStore) -> None:
    before = os.umask(0o077)
    try:
        place = store.path(store.put_bytes(b"abc").digest)
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o444


def test_a_lost_write_that_the_file_system_tells_is_never_acknowledged(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("stillhouse.store.disk.kernel.can_sync_all", lambda: True)
    monkeypatch.setattr("stillhouse.store.disk.kernel.sync_all", broken)
    with store.batch() as batch:
        for n in range(MANY + 2):
            batch.add_bytes(bytes([n]))
        with pytest.raises(StorageError, match="Input/output error"):
            batch.commit()
    assert list(store.digests()) == []


def test_without_a_sync_of_everything_each_object_is_synced(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("stillhouse.store.disk.kernel.can_sync_all", lambda: False)
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    with store.batch() as batch:
        wanted = [batch.add_bytes(bytes([n])).digest for n in range(MANY + 4)]
        batch.commit()
    assert {store.path(digest).stat().st_ino for digest in wanted} <= set(synced)


def test_what_a_killed_put_left_goes_with_the_next_one_and_work_in_progress_stays(
    store: BlobStore,
) -> None:
    dead = store.root / "tmp" / "put-dead"
    dead.mkdir()
    (dead / "0").write_bytes(b"half of something large")
    with store.batch() as live:
        assert not dead.exists()
        live.add_bytes(b"abc")
        store.put_bytes(b"of another process")
        live.commit()
    assert store.read(ABC) == b"abc"
    assert temporaries(store) == []


def test_a_folder_that_was_taken_for_dead_before_it_was_locked_is_made_anew(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    make = tempfile.mkdtemp

    def seen_too_early(**wishes: Any) -> str:
        made.append(make(**wishes))
        if len(made) == 1:
            Path(made[0]).rmdir()  # as somebody does who finds it free
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", seen_too_early)
    assert store.read(store.put_bytes(b"abc").digest) == b"abc"
    assert len(made) == 2
