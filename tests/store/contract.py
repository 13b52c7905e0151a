"""What any store must do, whatever it keeps its objects in.

An implementation's test module subclasses `StoreContract` and gives it two fixtures: `store`, which
is empty, and `probe`, which looks at and spoils what lies underneath without asking the store.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Protocol

import pytest
from blake3 import blake3

from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.store.disk.hashing import CHUNK
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.objects.sources import open_source
from stillhouse.store.trees.trees import put_tree, read_tree


class Probe(Protocol):
    """Looks underneath."""

    def objects(self) -> dict[str, bytes]:
        """Everything that is shown under a digest, by that digest, as it lies there."""
        ...

    def spoil(self, digest: str, data: bytes) -> None:
        """Replace the bytes of an object."""
        ...

    def lose(self, digest: str) -> None:
        """Remove an object."""
        ...

    def unfinished(self) -> Iterable[object]:
        """What puts have left that is not an object."""
        ...


SIZES = (0, 1, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7)


def digest_of(data: bytes) -> str:
    return blake3(data).hexdigest()


class StoreContract:
    """The tests."""

    @pytest.mark.parametrize("size", SIZES)
    def test_bytes_lie_under_their_digest(self, store: BlobStore, probe: Probe, size: int) -> None:
        data = Random(size).randbytes(size)
        stored = store.put_bytes(data, sha256=True)
        assert (stored.digest, stored.size) == (digest_of(data), size)
        assert stored.sha256 == hashlib.sha256(data).hexdigest()
        assert probe.objects() == {stored.digest: data}
        assert list(probe.unfinished()) == []

    @pytest.mark.parametrize("size", SIZES)
    def test_a_file_lies_under_the_digest_of_its_bytes(
        self, store: BlobStore, probe: Probe, tmp_path: Path, size: int
    ) -> None:
        data = Random(size).randbytes(size)
        (tmp_path / "source").write_bytes(data)
        assert store.put_file(tmp_path / "source").digest == digest_of(data)
        assert probe.objects() == {digest_of(data): data}
        assert list(probe.unfinished()) == []

    def test_every_way_of_reading_gives_the_same_bytes(self, store: BlobStore) -> None:
        digest = store.put_bytes(b"abc").digest
        with store.open(digest) as blob:
            assert blob.read() == b"abc"
        assert store.read(digest) == store.path(digest).read_bytes() == b"abc"
        assert store.size(digest) == store.verify(digest) == 3
        assert store.has(digest)

    def test_putting_again_adds_nothing(self, store: BlobStore, probe: Probe) -> None:
        assert store.put_bytes(b"abc") == store.put_bytes(b"abc")
        assert len(probe.objects()) == 1

    def test_a_folder_is_its_files_and_one_tree(
        self, store: BlobStore, probe: Probe, folder: Path
    ) -> None:
        tree = put_tree(store, folder)
        lying = probe.objects()
        assert lying.keys() == {tree.digest, *(entry.digest for entry in tree.entries)}
        assert all(digest_of(data) == digest for digest, data in lying.items())
        assert read_tree(store, tree.digest) == tree.entries

    def test_what_is_refused_leaves_nothing(
        self, store: BlobStore, probe: Probe, folder: Path
    ) -> None:
        (folder / "link").symlink_to("config.json")
        with pytest.raises(InputError):
            put_tree(store, folder)
        with pytest.raises(InputError):
            store.put_file(folder / "link")
        assert probe.objects() == {}
        assert list(probe.unfinished()) == []

    def test_a_batch_that_fails_leaves_nothing(self, store: BlobStore, probe: Probe) -> None:
        with pytest.raises(InputError), store.batch() as batch:  # noqa: PT012  # first one that works
            batch.add_bytes(b"abc")
            open_source(Path("/absent"))
        assert probe.objects() == {}
        assert list(probe.unfinished()) == []

    def test_a_batch_shows_all_or_nothing(self, store: BlobStore, probe: Probe) -> None:
        with store.batch() as batch:
            wanted = {batch.add_bytes(bytes([n])).digest for n in range(40)}
            assert probe.objects() == {}
            batch.commit()
        assert probe.objects().keys() == wanted

    @pytest.mark.parametrize("bad", [b"", b"ab", b"abd", b"abcd"])
    def test_wrong_bytes_are_told_by_name(self, store: BlobStore, probe: Probe, bad: bytes) -> None:
        digest = store.put_bytes(b"abc").digest
        probe.spoil(digest, bad)
        for look in (store.read, store.verify):
            with pytest.raises(IntegrityError, match=digest) as error:
                look(digest)
            assert error.value.code == "store.corrupt"

    def test_a_lost_object_is_told_by_name_and_can_be_put_again(
        self, store: BlobStore, probe: Probe
    ) -> None:
        digest = store.put_bytes(b"abc").digest
        probe.lose(digest)
        assert not store.has(digest)
        for look in (store.read, store.verify, store.size, store.path, store.open):
            with pytest.raises(IntegrityError, match=digest) as error:
                look(digest)
            assert error.value.code == "store.missing"
        store.put_bytes(b"abc")
        assert store.read(digest) == b"abc"

    def test_all_digests_are_listed_once_in_order(self, store: BlobStore, probe: Probe) -> None:
        for n in range(30):
            store.put_bytes(bytes([n]))
        assert list(store.digests()) == sorted(probe.objects())

    def test_a_condemned_object_is_read_comes_back_and_goes(
        self, store: BlobStore, probe: Probe
    ) -> None:
        digest = store.put_bytes(b"abc").digest
        store.condemn([digest])
        assert list(store.digests()) == []
        assert [(one.digest, one.size) for one in store.condemned()] == [(digest, 3)]
        assert store.read(digest) == b"abc"
        assert store.restore(digest)
        assert list(store.condemned()) == []
        store.condemn([digest])
        assert store.sweep([digest]) == 3
        assert not store.has(digest)
        assert probe.objects() == {}

    def test_what_is_put_again_survives_the_sweep(self, store: BlobStore) -> None:
        digest = store.put_bytes(b"abc").digest
        store.condemn([digest])
        store.put_bytes(b"abc")
        store.sweep([digest])
        assert store.read(digest) == b"abc"

    def test_a_lease_is_seen_while_it_is_held_and_by_others(self, store: BlobStore) -> None:
        other = BlobStore(store.root)
        assert other.leases() == []
        with store.lease():
            assert [lease.pid for lease in other.leases()] == [os.getpid()]
        assert other.leases() == []

    def test_a_condemnation_under_a_lease_is_not_before_it(self, store: BlobStore) -> None:
        digest = store.put_bytes(b"abc").digest
        with store.lease():
            store.condemn([digest])
            (lease,) = store.leases()
            assert next(store.condemned()).at_ns >= lease.began_ns
