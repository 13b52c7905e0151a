"""What several tests of workers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from .worker_parts import Registry, phase_folder


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry whose workers find the tests' own phase."""
    monkeypatch.setenv("PYTHONPATH", str(phase_folder(tmp_path / "phase")))
    monkeypatch.setenv("STILL_TEST_SIGN", str(tmp_path / "sign"))
    return Registry(tmp_path / "still")
