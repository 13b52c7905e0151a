"""The stat cache may spare work; it may never be believed about a file that has changed."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillhouse.store.disk.hashing import CHUNK, hash_bytes
from stillhouse.store.objects import statcache
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.objects.staging import Batch
from stillhouse.store.objects.statcache import Memory, StatCache
from stillhouse.store.trees.trees import StoredTree, put_tree

TICK = 0.03
"""Seconds: more than the slack that a file must have."""

pytestmark = pytest.mark.skipif(
    statcache._type_of(Path(tempfile.gettempdir()).stat().st_dev) not in statcache._LOCAL,
    reason="needs a file system whose clock is this machine's",
)


@pytest.fixture
def cache(tmp_path: Path) -> StatCache:
    return StatCache(tmp_path / "stat.cache")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that batches read."""
    seen: list[str] = []
    add_open = Batch.add_open

    def note(batch: Batch, source: Path | str, *rest: object, **more: object) -> object:
        seen.append(Path(source).name)
        return add_open(batch, source, *rest, **more)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(Batch, "add_open", note)
    return seen


def settle() -> None:
    time.sleep(TICK)


def publish(store: BlobStore, folder: Path, cache: StatCache) -> StoredTree:
    return put_tree(store, folder, cache=cache)


def test_what_did_not_change_is_not_read_again(
    store: BlobStore, folder: Path, cache: StatCache, opened: list[str]
) -> None:
    settle()
    first = publish(store, folder, cache)
    assert len(opened) == 4
    opened.clear()
    assert publish(store, folder, cache) == first
    assert opened == []


def test_one_more_file_is_the_only_one_that_is_read(
    store: BlobStore, folder: Path, cache: StatCache, opened: list[str]
) -> None:
    settle()
    publish(store, folder, cache)
    (folder / "late").write_bytes(b"late")
    settle()
    opened.clear()
    publish(store, folder, cache)
    assert opened == ["late"]


def test_a_single_file_is_known_too(
    store: BlobStore, tmp_path: Path, cache: StatCache, opened: list[str]
) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    settle()
    first = store.put_file(tmp_path / "file", cache=cache)
    assert store.put_file(tmp_path / "file", cache=cache) == first
    assert opened == ["file"]


def test_rehash_reads_everything_and_records_anew(
    store: BlobStore, folder: Path, cache: StatCache, opened: list[str]
) -> None:
    settle()
    publish(store, folder, cache)
    opened.clear()
    publish(store, folder, StatCache(cache.folder, believe=False))
    assert len(opened) == 4
    opened.clear()
    publish(store, folder, cache)
    assert opened == []


def test_a_sum_that_was_not_computed_is_computed_once(
    store: BlobStore, folder: Path, cache: StatCache, opened: list[str]
) -> None:
    settle()
    publish(store, folder, cache)
    opened.clear()
    first = put_tree(store, folder, sha256=True, cache=cache)
    assert len(opened) == 4
    assert put_tree(store, folder, sha256=True, cache=cache) == first
    assert len(opened) == 4
    assert publish(store, folder, cache).files == ()


def test_an_object_that_is_gone_is_put_again(
    store: BlobStore, folder: Path, cache: StatCache
) -> None:
    settle()
    tree = publish(store, folder, cache)
    for entry in tree.entries:
        store.path(entry.digest).unlink()
    publish(store, folder, cache)
    for entry in tree.entries:
        assert store.verify(entry.digest) == entry.size


def test_a_condemned_object_comes_back(store: BlobStore, folder: Path, cache: StatCache) -> None:
    settle()
    tree = publish(store, folder, cache)
    digests = [entry.digest for entry in tree.entries]
    store.condemn(digests)
    publish(store, folder, cache)
    store.sweep(digests)
    for digest in digests:
        store.verify(digest)


def edited(path: Path) -> None:
    """Same size, same times as far as a program can set them: only ctime tells."""
    times = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replaced(path: Path) -> None:
    times = path.stat()
    new = path.with_name("new")
    new.write_bytes(path.read_bytes()[::-1])
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
    new.replace(path)


def copied_over(path: Path) -> None:
    """As `cp -p` of another version of the same size and age."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[::-1])
    shutil.copystat(path, other)
    shutil.copy2(other, path)
    other.unlink()


def swapped(path: Path) -> None:
    """The name now means what another file was, with its old inode and content."""
    times = path.stat()
    twin = path.with_name("twin")
    os.utime(twin, ns=(times.st_atime_ns, times.st_mtime_ns))
    twin.replace(path)


def mapped(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[:] = memory[:][::-1]


@pytest.mark.parametrize("change", [edited, replaced, copied_over, swapped, mapped])
def test_a_changed_file_is_never_taken_for_the_old_one(
    store: BlobStore, tmp_path: Path, cache: StatCache, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "work" / "file"
    path.parent.mkdir()
    path.write_bytes(b"before")
    path.with_name("twin").write_bytes(b"erofeb")
    settle()
    publish(store, path.parent, cache)
    change(path)
    for _ in range(2):
        tree = publish(store, path.parent, cache)
        found = {entry.path: entry.digest for entry in tree.entries}
        assert found["file"] == hash_bytes(path.read_bytes()).digest
        settle()


def test_a_file_that_was_written_a_moment_ago_is_not_recorded(
    store: BlobStore, tmp_path: Path, cache: StatCache
) -> None:
    """A write in the same tick of the clock would leave all its times as they are."""
    (tmp_path / "work").mkdir()
    path = tmp_path / "work" / "file"
    for n in range(60):
        path.write_bytes(b"%04d" % n)
        digest = publish(store, path.parent, cache).entries[0].digest
        assert digest == hash_bytes(b"%04d" % n).digest
        with path.open("r+b") as file:  # at once, in place, of the same size
            file.write(b"%04d" % -n)
        digest = publish(store, path.parent, cache).entries[0].digest
        assert digest == hash_bytes(path.read_bytes()).digest


MILLI = 1_000_000


@pytest.mark.parametrize(
    ("age", "fine", "recorded"),
    [
        (-5 * MILLI, True, False),
        (0, True, False),
        (19 * MILLI, True, False),
        (21 * MILLI, True, True),
        (21 * MILLI, False, False),
        (1_999 * MILLI, False, False),
        (2_001 * MILLI, False, True),
    ],
)
def test_a_file_is_recorded_when_it_is_older_than_a_tick(
    store: BlobStore, tmp_path: Path, cache: StatCache, age: int, *, fine: bool, recorded: bool
) -> None:
    """`fine`: the store's clock shows parts of a millisecond, so its ticks are short."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    os.utime(path, (1, 1))  # what a program can set does not count
    changed = path.stat().st_ctime_ns
    with store.batch() as batch:
        whole = (changed + age) // MILLI * MILLI
        batch.began_ns = whole + (1 if fine else 0) + (MILLI if recorded else 0)
        memory = Memory(cache, path, batch)
        memory.take(path, "", sha256=False)
        batch.commit()
        memory.keep()
    assert bool(cache.load(path, now_ns=time.time_ns() + 10**10).known) is recorded


def test_a_file_from_the_future_is_not_recorded(
    store: BlobStore, tmp_path: Path, cache: StatCache, opened: list[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    os.utime(path, ns=(0, time.time_ns() + 3_600 * 1000 * MILLI))
    settle()
    for _ in range(2):
        store.put_file(path, cache=cache)
    assert opened == ["file", "file"]


def test_a_page_that_is_mapped_and_dirty_is_not_believed(
    store: BlobStore, tmp_path: Path, cache: StatCache
) -> None:
    """A second write to it changes no time at all until the page has been written to disk."""
    path = tmp_path / "work" / "file"
    path.parent.mkdir()
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[:5] = b"first"
        settle()
        publish(store, path.parent, cache)
        before = path.stat()
        memory[:5] = b"other"
        after = path.stat()
        assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
        digest = publish(store, path.parent, cache).entries[0].digest
        assert digest == hash_bytes(memory[:]).digest


def test_a_file_that_somebody_has_open_for_writing_is_not_recorded(
    store: BlobStore, folder: Path, cache: StatCache, opened: list[str]
) -> None:
    settle()
    with (folder / "config.json").open("r+b"):
        publish(store, folder, cache)
    opened.clear()
    publish(store, folder, cache)
    assert opened == ["config.json"]


def test_nothing_is_believed_when_the_clock_was_set_back(
    store: BlobStore, folder: Path, cache: StatCache
) -> None:
    settle()
    publish(store, folder, cache)
    assert cache.load(folder, now_ns=time.time_ns()).sure
    assert not cache.load(folder, now_ns=time.time_ns() - 3_600_000_000_000).sure


@pytest.mark.parametrize("boot", ["another", ""])
def test_after_a_reboot_every_file_is_read_once(
    store: BlobStore,
    folder: Path,
    cache: StatCache,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    boot: str,
) -> None:
    """A power cut may take bytes of a source that were read, and leave its size and times."""
    settle()
    first = publish(store, folder, cache)
    opened.clear()
    monkeypatch.setattr("stillhouse.store.disk.kernel.boot", lambda: boot)
    assert publish(store, folder, cache) == first
    assert len(opened) == 4
    opened.clear()
    assert publish(store, folder, cache) == first
    assert len(opened) == (0 if boot else 4)  # where nobody tells boots apart, nothing is believed


def test_what_may_not_be_believed_still_tells_what_the_store_may_have(
    store: BlobStore, tmp_path: Path, cache: StatCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file is then hashed, and not written a second time to find out."""
    (tmp_path / "large").write_bytes(os.urandom(CHUNK + 1))
    settle()
    first = store.put_file(tmp_path / "large", cache=cache)
    monkeypatch.setattr("stillhouse.store.objects.staging.pour", pytest.fail)
    monkeypatch.setattr("stillhouse.store.disk.kernel.boot", lambda: "another")
    assert store.put_file(tmp_path / "large", cache=cache) == first


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(place=st.integers(0, 10**6), byte=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_cache_is_no_cache(
    store: BlobStore, folder: Path, cache: StatCache, *, place: int, byte: int, cut: bool
) -> None:
    settle()
    first = publish(store, folder, StatCache(cache.folder, believe=False))
    (record,) = cache.folder.iterdir()
    data = bytearray(record.read_bytes())
    if cut:
        del data[place % len(data) :]
    else:
        data[place % len(data)] ^= byte
    record.write_bytes(data)
    assert cache.load(folder, now_ns=time.time_ns()).known == {}
    assert publish(store, folder, cache) == first


def test_a_cache_that_cannot_be_written_hinders_nothing(
    store: BlobStore, folder: Path, cache: StatCache
) -> None:
    settle()
    cache.folder.write_bytes(b"a file where the folder should be")
    assert publish(store, folder, cache) == publish(store, folder, cache)


def test_paths_that_are_old_or_too_many_are_forgotten(
    store: BlobStore, tmp_path: Path, cache: StatCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statcache, "MAX_ROOTS", 3)
    for n in range(6):
        (tmp_path / str(n)).write_bytes(bytes([n]))
        settle()
        store.put_file(tmp_path / str(n), cache=cache)
    assert len(list(cache.folder.iterdir())) == 3
    for record in cache.folder.iterdir():
        os.utime(record, (1, 1))
    store.put_file(tmp_path / "0", cache=cache)
    assert len(list(cache.folder.iterdir())) == 1


def test_a_large_file_that_was_only_touched_is_hashed_and_not_written(
    store: BlobStore, tmp_path: Path, cache: StatCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(CHUNK + 1))
    settle()
    first = store.put_file(path, cache=cache)
    path.touch()
    monkeypatch.setattr("stillhouse.store.objects.staging.pour", pytest.fail)
    assert store.put_file(path, cache=cache) == first


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None
)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(
                ["edit", "keep time", "replace", "swap", "map", "touch", "wait", "put"]
            ),
            st.integers(0, 2),
            st.binary(min_size=4, max_size=4),
        ),
        max_size=25,
    )
)
def test_whatever_happens_to_files_a_publication_holds_what_they_hold(
    store: BlobStore, tmp_path: Path, cache: StatCache, steps: list[tuple[str, int, bytes]]
) -> None:
    work = tmp_path / f"work-{time.time_ns()}"
    work.mkdir()
    files = [work / name for name in "abc"]
    for path in files:
        path.write_bytes(b"0000")
    for step, which, data in [*steps, ("put", 0, b"")]:
        act(step, files, which, data)
        if step == "put":
            tree = publish(store, work, cache)
            for entry in tree.entries:
                assert entry.digest == hash_bytes((work / entry.path).read_bytes()).digest


def act(step: str, files: list[Path], which: int, data: bytes) -> None:
    path, other = files[which], files[which - 1]
    times = path.stat()
    if step in {"edit", "keep time"}:
        with path.open("r+b") as file:
            file.write(data)
    elif step == "replace":
        path.with_name("new").write_bytes(data)
        path.with_name("new").replace(path)
    elif step == "swap":
        path.rename(path.with_name("aside"))
        other.rename(path)
        path.with_name("aside").rename(other)
    elif step == "map":
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            memory[:] = data
    elif step == "touch":
        path.touch()
    elif step == "wait":
        settle()
    if step in {"keep time", "replace"}:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
