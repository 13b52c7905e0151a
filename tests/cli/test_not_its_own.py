"""A registry that somebody hands over: nothing behind its links is read, swept or overwritten.

Names come from `Home` and verbs from the application, so a new one is covered or fails here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from stillhouse.cli.app import VERBS
from stillhouse.registry.home import FOLDER, Home
from stillhouse.store.objects import paths

from .conftest import Still

NAMES = [
    str(path.relative_to("r")) for of in (Home.folders, Home.files) for path in of(Home(Path("r")))
]
ARGUMENTS = {
    "init": None,  # makes one, and opens none
    "doctor": None,
    "publish": ["given.txt", "--kind", "source"],
    "checkout": ["abcd", "out"],
    "show": ["abcd"],
    "cat": ["abcd"],
    "sql": ["SELECT 1"],
    "lineage": ["abcd"],
    "run": ["recipe.toml"],
    "watch": ["--once"],
    "why": ["training"],
    "why-not": ["training"],
    "diff": ["abcd", "dcba"],
    "blame": ["abcd", "m"],
    "waive": ["g", "abcd", "--reason", "r", "--until", "2999-01-01"],
    "logs": ["abcd"],
    "cancel": ["abcd"],
    "retry": ["abcd"],
    "evict": ["abcd"],
    "rewind": ["abcd"],
    "repair": ["abcd"],
    "verify": ["abcd"],
}
"""Verb -> what it needs to begin; none needed where it is not named. None: it opens no registry."""


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    (folder / "inner").mkdir(parents=True)
    for name in ("thesis", "inner/chapter"):
        (folder / name).write_text("years of work")
        os.utime(folder / name, (1e9, 1e9))
    return folder


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _replaced(path: Path) -> Path:
    """The path, with nothing there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    return path


def _links(path: Path, victim: Path) -> Iterator[str]:
    """Let the path be one thing after the other that is not the registry's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for target in (victim, victim / "thesis", victim / "absent"):
        _replaced(path).symlink_to(target)
        yield f"a link to {target.name}"
    os.mkfifo(_replaced(path))
    yield "a pipe"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "config.toml"])
def test_no_name_of_the_layout_is_followed(
    still: Still, home: Home, place: Path, victim: Path, name: str
) -> None:
    (place / "given.txt").write_text("text")
    before = _contents(victim)
    for what in _links(home.root / name, victim):
        answer = still("publish", "given.txt", "--kind", "source")
        assert answer.code == 2, what
        assert name in answer.err, what
        assert _contents(victim) == before, what


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_goes_on_with_a_registry_that_holds_a_link(
    still: Still, home: Home, victim: Path, verb: str
) -> None:
    arguments = ARGUMENTS.get(verb, [])
    if arguments is None:
        return
    _replaced(home.objects / "tmp").symlink_to(victim)
    before = _contents(victim)
    answer = still(verb, *arguments)
    assert answer.code == 2, answer
    assert "objects/tmp" in answer.err
    assert _contents(victim) == before


def test_nothing_is_made_behind_a_link(still: Still, tmp_path: Path, victim: Path) -> None:
    """A folder that is to become a registry may be somebody's trap as well."""
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "objects").symlink_to(victim)
    before = sorted(victim.rglob("*"))
    answer = still("--registry", str(tmp_path / "given"), "init")
    assert (answer.code, sorted(victim.rglob("*"))) == (2, before)
    assert not (tmp_path / "given" / "config.toml").exists()


def test_the_root_may_be_reached_through_a_link(still: Still, home: Home, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(home.root)
    assert still("--registry", str(tmp_path / "elsewhere"), "ls").code == 0


def test_every_name_of_the_layout_is_looked_at() -> None:
    made = Home(Path("r"))
    known = {made.root / name for name in NAMES}
    properties = [n for n, value in vars(Home).items() if isinstance(value, property)]
    assert {getattr(made, name) for name in properties if name != "exists"} <= known
    of_store = {paths.TEMPORARY, paths.CONDEMNED, paths.LEASES}
    assert {made.objects / name for name in of_store} <= known


def test_a_registry_of_somebody_else_is_not_found_upwards(
    still: Still, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As git: whoever may write above the current folder could have put it there."""
    owner = home.root.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    monkeypatch.setenv("SUDO_UID", "nobody")
    refused = still("ls")
    assert refused.code == 2
    assert f"--registry {home.root}" in refused.err
    assert home.root.name == FOLDER
    assert still("--registry", str(home.root), "ls").code == 0


# -- a projection that somebody else made ---------------------------------------------------------

_HOSTILE = {
    "profile": "enable_profiling(save_location := '{victim}/settings.json', format := 'json')",
    "log": "enable_logging(storage := 'file', storage_path := '{victim}/logs')",
    "read": "read_text('{victim}/thesis')",
    "list": "glob('{victim}/*')",
}

_VIEW = (
    "CREATE VIEW layout AS SELECT version, payloads FROM layout0 "
    "WHERE (SELECT count(*) FROM SOURCE) >= 0"
)


@pytest.fixture
def projected(still: Still, home: Home, place: Path) -> Path:
    (place / "given.txt").write_text("text")
    assert still("publish", "given.txt", "--kind", "source").code == 0
    assert still("sql", "SELECT 1").code == 0
    return home.projection


@pytest.mark.parametrize("what", _HOSTILE)
@pytest.mark.parametrize("asked", [["sql", "SELECT 1"], ["audit"], ["sql", "SELECT * FROM loot"]])
def test_a_view_of_a_foreign_projection_reaches_no_other_file(
    still: Still, projected: Path, victim: Path, what: str, asked: list[str]
) -> None:
    """It runs before any statement of ours: the instance is sealed when it is made."""
    (victim / "settings.json").write_text("{}")
    source = _HOSTILE[what].format(victim=victim)
    with duckdb.connect(str(projected)) as shell:
        shell.execute("ALTER TABLE layout RENAME TO layout0")
        shell.execute(_VIEW.replace("SOURCE", source))
        shell.execute(f"CREATE VIEW loot AS FROM {source}")
    (victim / "settings.json").write_text("{}")
    shutil.rmtree(victim / "logs", ignore_errors=True)
    before = _contents(victim)
    answer = still(*asked)
    assert "Traceback" not in answer.err
    assert "years of work" not in answer.out
    assert _contents(victim) == before
