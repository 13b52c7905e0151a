"""Condemned objects and leases, as garbage collection and publishers meet them on disk."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from stillhouse.schemas.errors import StorageError
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.objects.paths import condemned_path, object_path

from .gc_race import race

ROOT = Path(__file__).parents[2]
ABC = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"


def in_place(store: BlobStore) -> bool:
    return object_path(store.root, ABC).exists()


def is_condemned(store: BlobStore) -> bool:
    return condemned_path(store.root, ABC).exists()


def test_a_condemned_object_is_out_of_its_place_and_still_readable(store: BlobStore) -> None:
    store.put_bytes(b"abc")
    before = time.time_ns()
    store.condemn([ABC])
    assert (in_place(store), is_condemned(store)) == (False, True)
    assert list(store.digests()) == []
    assert store.has(ABC)
    assert (store.read(ABC), store.verify(ABC), store.size(ABC)) == (b"abc", 3, 3)
    with store.open(ABC) as blob:
        assert blob.read() == b"abc"
    ((digest, size, at_ns),) = store.condemned()
    assert (digest, size) == (ABC, 3)
    assert abs(at_ns - before) < 60e9


def test_condemning_what_is_not_there_or_twice_changes_nothing(store: BlobStore) -> None:
    store.condemn([ABC])
    store.put_bytes(b"abc")
    store.condemn([ABC, ABC])
    assert [one.digest for one in store.condemned()] == [ABC]


def test_restoring_puts_it_back_once(store: BlobStore) -> None:
    inode = store.path(store.put_bytes(b"abc").digest).stat().st_ino
    store.condemn([ABC])
    assert store.restore(ABC)
    assert not store.restore(ABC)
    assert (in_place(store), is_condemned(store)) == (True, False)
    assert store.path(ABC).stat().st_ino == inode


def test_sweeping_frees_the_bytes_and_only_of_the_condemned(store: BlobStore) -> None:
    store.put_bytes(b"abc")
    assert store.sweep([ABC]) == 0
    assert in_place(store)
    store.condemn([ABC])
    assert store.sweep([ABC]) == 3
    assert not store.has(ABC)
    assert store.sweep([ABC]) == 0


def test_a_put_brings_a_condemned_object_back_without_writing(store: BlobStore) -> None:
    inode = store.path(store.put_bytes(b"abc").digest).stat().st_ino
    store.condemn([ABC])
    store.put_bytes(b"abc")
    assert store.path(ABC) == object_path(store.root, ABC)
    assert store.path(ABC).stat().st_ino == inode


def test_a_sweep_after_a_put_frees_nothing_and_loses_nothing(store: BlobStore) -> None:
    store.put_bytes(b"abc")
    store.condemn([ABC])
    store.put_bytes(b"abc")
    assert store.sweep([ABC]) == 0
    assert store.read(ABC) == b"abc"


def test_an_object_that_came_back_can_be_condemned_again(store: BlobStore) -> None:
    """It has two names then, and a rename of one onto the other does nothing."""
    store.put_bytes(b"abc")
    store.condemn([ABC])
    store.put_bytes(b"abc")
    first = next(store.condemned()).at_ns
    time.sleep(0.03)
    store.condemn([ABC])
    assert (in_place(store), is_condemned(store)) == (False, True)
    assert next(store.condemned()).at_ns > first
    assert store.sweep([ABC]) == 3


def test_a_put_does_not_trust_a_condemned_object_that_is_damaged(store: BlobStore) -> None:
    store.put_bytes(b"abc")
    store.condemn([ABC])
    place = condemned_path(store.root, ABC)
    place.chmod(0o644)
    place.write_bytes(b"abd")
    store.put_bytes(b"abc")
    assert store.read(ABC) == b"abc"


def test_a_put_that_loses_the_race_against_a_sweep_writes_its_own_copy(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_bytes(b"abc")
    store.condemn([ABC])
    monkeypatch.setattr(
        "stillhouse.store.objects.quarantine.hash_file", lambda path: swept(store, path)
    )
    store.put_bytes(b"abc")
    assert store.read(ABC) == b"abc"


def swept(store: BlobStore, path: Path) -> object:
    from stillhouse.store.disk.hashing import hash_file

    found = hash_file(path)
    store.sweep([ABC])
    return found


def test_an_object_that_is_condemned_while_it_is_put_again_comes_back(store: BlobStore) -> None:
    store.put_bytes(b"abc")
    with store.batch() as batch:
        batch.add_bytes(b"abc")
        store.condemn([ABC])
        batch.commit()
    assert in_place(store)


def test_without_hard_links_an_object_is_moved_back(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(_self: Path, _target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    store.put_bytes(b"abc")
    store.condemn([ABC])
    monkeypatch.setattr(Path, "hardlink_to", no_links)
    store.put_bytes(b"abc")
    assert (in_place(store), is_condemned(store)) == (True, False)


def test_a_lease_is_alive_as_long_as_it_is_held(store: BlobStore) -> None:
    assert store.leases() == []
    with store.lease():
        (first,) = store.leases()
        time.sleep(0.03)
        with store.lease():
            second = max(store.leases())
            assert sorted(store.leases()) == [first, second]
            assert second.began_ns > first.began_ns
        assert store.leases() == [first]
    assert store.leases() == []
    assert list((store.root / "leases").iterdir()) == []


def test_the_lease_of_a_dead_process_is_over(store: BlobStore) -> None:
    script = (
        "import os, pathlib, sys\nfrom stillhouse.store.objects.local import BlobStore\n"
        "held = BlobStore(pathlib.Path(sys.argv[1])).lease()\nheld.__enter__()\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, store.root], cwd=ROOT, check=False)
    assert len(list((store.root / "leases").iterdir())) == 1
    assert store.leases() == []
    assert list((store.root / "leases").iterdir()) == []


def test_what_is_condemned_under_a_lease_is_never_older_than_it(store: BlobStore) -> None:
    """The order that the sweep's rule compares: both times come from one file system."""
    for n in range(50):
        digest = store.put_bytes(bytes([n])).digest
        with store.lease():
            store.condemn([digest])
            (lease,) = store.leases()
            at_ns = next(one.at_ns for one in store.condemned() if one.digest == digest)
            assert at_ns >= lease.began_ns


def test_what_was_condemned_a_tick_before_a_lease_is_older_than_it(store: BlobStore) -> None:
    store.put_bytes(b"abc")
    store.condemn([ABC])
    time.sleep(0.03)
    with store.lease():
        (lease,) = store.leases()
        assert next(store.condemned()).at_ns < lease.began_ns


def test_a_lease_that_was_taken_for_dead_before_it_was_locked_is_made_anew(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillhouse.store.objects import leases

    made: list[str] = []
    new = leases._new

    def seen_too_early(objects: Path) -> str:
        path = new(objects)
        if not made:
            Path(path).unlink()  # as somebody does who finds it free
        made.append(path)
        return path

    monkeypatch.setattr(leases, "_new", seen_too_early)
    with store.lease():
        assert len(made) == 2
        assert len(store.leases()) == 1


def test_a_lease_on_a_store_that_was_never_made_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="still init") as error,
        BlobStore(tmp_path / "nowhere" / "objects").lease(),
    ):
        pass
    assert error.value.code == "store.absent"


def test_publishers_and_a_collector_lose_nothing(tmp_path: Path) -> None:
    """Real processes: the same few objects are put, recorded, dropped, condemned and swept."""
    assert race(tmp_path, 2.0) == []
