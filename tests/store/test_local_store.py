"""The store in local files keeps the contract that every store keeps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from stillhouse.store.objects.local import BlobStore

from .contract import StoreContract


class Files:
    """Looks at the files of a store; see `Probe`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def objects(self) -> dict[str, bytes]:
        return {path.parent.name + path.name: path.read_bytes() for path in self._files()}

    def spoil(self, digest: str, data: bytes) -> None:
        place = self._root / digest[:2] / digest[2:]
        place.chmod(0o644)
        place.write_bytes(data)

    def lose(self, digest: str) -> None:
        (self._root / digest[:2] / digest[2:]).unlink()

    def unfinished(self) -> Iterable[object]:
        return list((self._root / "tmp").iterdir())

    def _files(self) -> Iterable[Path]:
        return (p for p in self._root.glob("??/*") if len(p.name) == 62)


class TestLocalStore(StoreContract):
    @pytest.fixture
    def probe(self, store: BlobStore) -> Files:
        return Files(store.root)
