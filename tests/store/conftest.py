from __future__ import annotations

from pathlib import Path

import pytest

from stillhouse.store.objects.local import BlobStore


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore.create(tmp_path / "objects")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder as a phase might leave it: nested, an executable, an empty file."""
    root = tmp_path / "folder"
    (root / "weights").mkdir(parents=True)
    (root / "config.json").write_bytes(b"{}\n")
    (root / "weights" / "model.bin").write_bytes(bytes(range(256)) * 40)
    (root / "weights" / "empty").write_bytes(b"")
    (root / "run me.sh").write_bytes(b"#!/bin/sh\n")
    (root / "run me.sh").chmod(0o755)
    return root
