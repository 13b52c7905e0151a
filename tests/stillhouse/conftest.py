"""A registry in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillhouse.registry.home import FOLDER, Home
from stillhouse.session import Session, make_registry, open_registry


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """An empty registry, open."""
    home = Home(tmp_path / FOLDER)
    make_registry(home)
    return open_registry(home)
