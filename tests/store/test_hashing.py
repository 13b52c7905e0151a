from __future__ import annotations

import hashlib
from pathlib import Path

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.store.disk.hashing import CHUNK, Hasher, hash_bytes, hash_file

# From the official BLAKE3 test vectors and FIPS 180-4.
EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
ABC = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
ABC_SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_golden_digests() -> None:
    assert hash_bytes(b"").digest == EMPTY
    found = hash_bytes(b"abc", sha256=True)
    assert (found.digest, found.sha256, found.size) == (ABC, ABC_SHA256, 3)


def test_sha256_is_absent_unless_asked_for() -> None:
    assert hash_bytes(b"abc").sha256 is None


def test_a_file_larger_than_the_buffer_hashes_as_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(251)) * ((CHUNK + 12345) // 251)
    path = tmp_path / "large"
    path.write_bytes(data)
    found = hash_file(path, sha256=True)
    assert found.digest == blake3(data).hexdigest()
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.size == len(data)


def test_an_empty_file_has_the_empty_digest(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert hash_file(tmp_path / "empty").digest == EMPTY


@given(st.lists(st.binary(max_size=200)))
def test_pieces_do_not_matter(pieces: list[bytes]) -> None:
    hasher = Hasher(sha256=True, expected=0)
    for piece in pieces:
        hasher.update(piece)
    assert hasher.result() == hash_bytes(b"".join(pieces), sha256=True)
