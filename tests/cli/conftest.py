"""A registry in a temporary folder, and the command that works on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stillhouse.cli.main import main
from stillhouse.registry.home import FOLDER, VARIABLE, Home
from stillhouse.session import Session, make_registry, open_registry

POLICY = """
name = "p"
[tiers]
tier_2 = ["environment.versions", "export.parity"]
[gates."environment.versions"]
checks = [{ metric = "unsupported", op = "==", value = 0 }]
[gates."export.parity"]
checks = [{ metric = "parity.max_abs", op = "<=", value = 0.1 }]
[gates."export.causality"]
checks = [{ metric = "parity.max_abs", op = "<=", value = 9.0 }]
[gates."export.prefill_decode"]
slots = "export/decode-*"
checks = [{ metric = "parity.max_abs", op = "<=", value = 9.0 }]
"""


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as one JSON document."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """stdout as tab-separated rows."""
        return [line.split("\t") for line in self.out.splitlines()]


Still = Callable[..., Answer]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def still(place: Path, capfd: pytest.CaptureFixture[str]) -> Still:  # noqa: ARG001  # makes it the current folder
    """`still(*arguments)`, in this process."""

    def run(*arguments: str | Path) -> Answer:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Answer(code=code, out=out, err=err)

    return run


@pytest.fixture
def home(place: Path) -> Home:
    """A registry in the current folder."""
    made = Home(place / FOLDER)
    make_registry(made)
    return made


@pytest.fixture
def session(home: Home) -> Session:
    """That registry, open."""
    return open_registry(home)


@pytest.fixture
def policy(place: Path) -> Path:
    """A policy file."""
    path = place / "policy.toml"
    path.write_text(POLICY, encoding="utf-8")
    return path
