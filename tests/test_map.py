"""docs/map.md: it is that of the tree, and each file says on one line what it is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("cli", "stillhouse", "phases", "registry", "store", "schemas")


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_map = _loaded(ROOT / "docs" / "make_map.py")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small product."""
    for room in ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text(f'"""The room {room}. It has walls."""\n')
    (tmp_path / "store" / "disk").mkdir()
    (tmp_path / "store" / "disk" / "__init__.py").write_text('"""Ground."""\n')
    (tmp_path / "store" / "disk" / "locks.py").write_text('"""Locks of `a.b`, and more. Rules."""')
    (tmp_path / "store" / "all.sql").write_text("-- Every statement. By name.\n-- More.\n")
    (tmp_path / "store" / "zoo.py").write_text('"""Animals."""\n')
    (tmp_path / "store" / "notes.md").write_text("Not part of the product.\n")
    (tmp_path / "stillhouse" / "store").symlink_to("../store")
    return tmp_path


def test_the_map_is_that_of_the_tree() -> None:
    committed = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    assert committed == make_map.render(ROOT), "run `make map`"


def test_every_file_says_on_one_line_what_it_is() -> None:
    assert list(make_map.faults(ROOT)) == []


def test_a_file_is_told_once_by_its_first_sentence(tree: Path) -> None:
    told = make_map.render(tree)
    block = "all.sql     Every statement.\nzoo.py      Animals.\ndisk/       Ground.\n"
    block += "  locks.py  Locks of `a.b`, and more.\n"
    assert f"## store\n\nThe room store.\n\n```text\n{block}```\n" in told
    assert told.count("locks.py") == 1
    assert [line[3:] for line in told.splitlines() if line.startswith("## ")] == list(ROOMS)
    assert list(make_map.faults(tree)) == []


@pytest.mark.parametrize("text", ["X = 1\n", '"""No end"""\n', f'"""{"long " * 22}one."""\n'])
def test_a_file_that_can_not_be_told_on_a_line_is_named(tree: Path, text: str) -> None:
    (tree / "cli" / "mute.py").write_text(text)
    (fault,) = make_map.faults(tree)
    assert str(fault).startswith("cli/mute.py ")
