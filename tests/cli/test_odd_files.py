"""Files that are not what they seem: each is refused with a reason, and the daemon goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stillhouse.cli.daemon import inbox
from stillhouse.registry.home import Home
from stillhouse.store.objects.local import BlobStore

from .conftest import Still

DEEP = "a = " + "[" * 20_000
LONG = "a = " + "9" * 5000
NAME = "x" * 300

needs_modes = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


@pytest.fixture(autouse=True)
def _settle_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "SETTLE_SECONDS", 0.05)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("x", encoding="utf-8")


def _deep(path: Path) -> None:
    path.write_text(DEEP, encoding="utf-8")


def _deep_json(path: Path) -> None:
    path.write_text('{"a": ' + "[" * 200_000, encoding="utf-8")


def _long(path: Path) -> None:
    path.write_text(LONG, encoding="utf-8")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.symlink_to(path.parents[3] / "policy.toml")


def _link_to_a_fifo(path: Path) -> None:
    os.mkfifo(path.parents[3] / "pipe")
    path.symlink_to(path.parents[3] / "pipe")


def _huge(path: Path) -> None:
    path.write_text("#" * (1 << 20) + "\n", encoding="utf-8")


DROPS = [_folder, _deep, _deep_json, _long, _fifo, _link, _link_to_a_fifo, _huge]


def _taken(still: Still) -> list[str]:
    return [row["name"] for row in still("ls", "--json").json if row["origin"] == "imported"]


@pytest.mark.parametrize("drop", DROPS)
@pytest.mark.parametrize("kind", ["recipe", "policy"])
def test_an_odd_drop_is_refused_and_the_next_one_is_taken(
    still: Still, home: Home, policy: Path, kind: str, drop: Callable[[Path], None]
) -> None:
    assert policy.exists()
    drop(home.inbox / kind / "odd.toml")
    (home.inbox / "source" / "later.jsonl").write_text("{}", encoding="utf-8")
    told = still("watch", "--once")
    assert told.code == 1
    assert "odd.toml" in told.err
    assert "Next:" in told.err
    assert "Traceback" not in told.err
    assert _taken(still) == ["later.jsonl"]


@pytest.mark.parametrize("kind", ["teacher", "dataset", "source", "checkpoint"])
@pytest.mark.parametrize("drop", [_fifo, _link, _link_to_a_fifo])
def test_links_and_fifos_are_opened_for_no_kind(
    still: Still, home: Home, policy: Path, kind: str, drop: Callable[[Path], None]
) -> None:
    assert policy.exists()
    drop(home.inbox / kind / "odd.gguf")
    told = still("watch", "--once")
    assert told.code == 1
    assert "odd.gguf" in told.err
    assert _taken(still) == []


@pytest.mark.usefixtures("home")
def test_a_fifo_inside_a_data_set_does_not_hang(still: Still, place: Path) -> None:
    (place / "data").mkdir()
    os.mkfifo(place / "data" / "dataset.json")
    told = still("publish", place / "data", "--kind", "dataset")
    assert told.code == 2
    assert "dataset.json" in told.err


@pytest.mark.usefixtures("home")
def test_a_folder_is_neither_a_policy_nor_a_recipe(still: Still, place: Path) -> None:
    (place / "folder.toml").mkdir()
    for told in (
        still("publish", place / "folder.toml", "--kind", "policy"),
        still("run", place / "folder.toml"),
        still("watch", "--once", "--recipe", place / "folder.toml"),
    ):
        assert told.code == 2
        assert "is a folder" in told.err


@needs_modes
def test_a_file_that_may_not_be_read_is_refused(still: Still, home: Home, policy: Path) -> None:
    policy.rename(home.inbox / "policy" / "odd.toml")
    (home.inbox / "policy" / "odd.toml").chmod(0)
    told = still("watch", "--once")
    assert told.code == 1
    assert "odd.toml" in told.err


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "command",
    [
        ("publish", NAME, "--kind", "source"),
        ("run", NAME),
        ("run", f"{NAME}/recipe.toml"),
        ("verify", NAME),
        ("watch", "--once", "--recipe", NAME),
    ],
)
def test_a_name_that_no_disk_can_hold_is_bad_input(still: Still, command: tuple[str, ...]) -> None:
    told = still(*command)
    assert told.code == 2
    assert "cannot be read" in told.err
    assert "Traceback" not in told.err


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("", "policy"),
        (NAME, "cannot be read"),
        ("dist:/x", "dist:DISTRIBUTION/FILE"),
        ("dist:pytest", "dist:DISTRIBUTION/FILE"),
        ("dist:pytest/", "dist:DISTRIBUTION/FILE"),
        ("\\u0000", "names no policy"),
    ],
)
def test_a_reference_that_can_name_nothing_is_bad_input(
    still: Still, home: Home, place: Path, reference: str, says: str
) -> None:
    (place / "r.toml").write_text(f'name = "a"\npolicy = "{reference}"\n', encoding="utf-8")
    told = still("run", "r.toml")
    assert told.code == 2
    assert says in told.err
    assert "Traceback" not in told.err
    assert home.log.read_bytes() == b""
    assert list(BlobStore(home.objects).digests()) == []
