"""The layout of a registry: every path is spelled in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from stillhouse.registry import home

ROOT = Path(__file__).parents[2]
ROOMS = ("cli", "phases", "registry", "store")


def _names() -> set[str]:
    """What files of a registry are called; the names of folders are words that mean more."""
    layout = home.Home(Path("registry"))
    properties = [n for n, value in vars(home.Home).items() if isinstance(value, property)]
    paths = [getattr(layout, name) for name in properties if name != "exists"]
    return {path.name for path in paths if path.suffix}


def _texts(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and type(n.value) is str}


def test_no_module_but_the_layout_spells_the_name_of_a_file_of_the_registry() -> None:
    assert len(_names()) > 6
    spelled = {
        str(path.relative_to(ROOT)): found
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if path != Path(home.__file__).resolve() and (found := _texts(path) & _names())
    }
    assert spelled == {}


@pytest.fixture
def below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder below one that has a registry."""
    monkeypatch.delenv(home.VARIABLE, raising=False)
    (tmp_path / home.FOLDER).mkdir()
    (tmp_path / home.FOLDER / "config.toml").touch()
    return tmp_path / "below"


def test_a_command_means_the_nearest_registry_and_init_one_here(below: Path) -> None:
    assert home.locate(None, below).root == below.parent / home.FOLDER
    assert home.place(None, below).root == below / home.FOLDER


def test_what_is_named_is_meant_by_both_and_the_command_line_before_the_variable(
    below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(home.VARIABLE, "elsewhere")
    for which in (home.locate, home.place):
        assert which(None, below).root == Path("elsewhere")
        assert which(Path("given"), below).root == Path("given")
