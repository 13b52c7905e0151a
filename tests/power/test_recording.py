"""The shim sees everything, and the model of the disk is as strict as it says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .disk import (
    ROOT,
    Chmod,
    Create,
    History,
    Image,
    Link,
    Node,
    Operation,
    Remove,
    Rename,
    Resize,
    Sync,
    SyncAll,
    Torn,
    Tree,
    Write,
    chosen,
    extremes,
    lay_out,
    read_tree,
    renumbered,
)
from .recording import Recorder
from .scenarios import SCENARIOS, play


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_was_recorded_rebuilds_the_real_disk(name: str, quick: Path) -> None:
    """A call that changes the disk and is not seen would make them differ."""
    history = play(name, quick).history
    assert renumbered(history.tree(len(history.operations), {})) == read_tree(
        quick / f"{name}-disk"
    )


def test_every_way_of_writing_is_seen(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    (root / "before").write_bytes(b"was here")
    recorder = Recorder(root)
    with recorder.at_work():
        (root / "text").write_text("päth")
        with (root / "text").open("ab") as file:
            file.write(b"more")
            file.flush()
            file.truncate(6)
        with (root / "before").open("r+b") as file:
            file.seek(4)
            file.write(b"gone")
        (root / "a").mkdir(mode=0o700)
        (root / "a" / "linked").hardlink_to(root / "text")
        (root / "a" / "linked").chmod(0o600)
        (root / "before").replace(root / "a" / "moved")
        folder = os.open(root / "a", os.O_RDONLY)
        descriptor = os.open("inside", os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=folder)
        os.pwrite(descriptor, b"beyond", 5000)
        os.write(descriptor, memoryview(b"start"))
        os.close(descriptor)
        os.unlink("linked", dir_fd=folder)
        os.close(folder)
    history = recorder.history()
    rebuilt = renumbered(history.tree(len(history.operations), {}))
    assert rebuilt == read_tree(root)
    assert rebuilt["text"].data == b"p\xc3\xa4thm"
    lay_out(rebuilt, tmp_path / "copy")
    assert read_tree(tmp_path / "copy") == rebuilt


def test_an_unseen_call_would_be_noticed(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    recorder = Recorder(root)
    with recorder.at_work():
        (root / "seen").write_bytes(b"a")
        os.truncate(root / "seen", 100)  # no way that the code uses
    history = recorder.history()
    assert renumbered(history.tree(len(history.operations), {})) != read_tree(root)


# -- the model -------------------------------------------------------------------------------------


def disk(*operations: Operation) -> History:
    """A history that begins with an empty root."""
    return History(Image({ROOT: Node("folder", 0o755)}, {ROOT: {}}), operations)


def shown(history: History) -> list[Tree]:
    """What may be left in the extreme states at the end."""
    cut = len(history.operations)
    return [history.tree(cut, fates) for fates in extremes(history, cut)]


NEW = Create(ROOT, "new", 1, "file", 0o644)


def test_nothing_is_safe_without_a_barrier() -> None:
    trees = shown(disk(NEW, Write(1, 0, b"data")))
    assert {} in trees
    assert [tree["new"].data for tree in trees if tree] == [b"data", bytes(4), b""]


def test_a_synced_file_has_its_bytes_but_no_name() -> None:
    history = disk(NEW, Write(1, 0, b"data"), Chmod(1, 0o444), Sync(1))
    assert {tree["new"].data if tree else None for tree in shown(history)} == {None, b"data"}
    assert history.unsafe(4) == (0,)
    assert disk(*history.operations[:3], Sync(1, data_only=True)).unsafe(4) == (0, 2)


def test_a_synced_folder_has_its_names_but_not_its_own() -> None:
    history = disk(
        Create(ROOT, "folder", 2, "folder", 0o755), Create(2, "in", 3, "file", 0o644), Sync(2)
    )
    assert history.tree(3, {0: False}) == {}
    assert history.unsafe(3) == (0,)


def test_one_sync_of_everything_covers_everything_before() -> None:
    assert disk(NEW, Write(1, 0, b"a"), SyncAll(), Resize(1, 0)).unsafe(4) == (3,)


def test_a_rename_is_whole_or_not_at_all_and_covered_by_either_folder() -> None:
    made: list[Operation] = [
        Create(ROOT, "a", 2, "folder", 0o755),
        Create(ROOT, "b", 3, "folder", 0o755),
        Create(2, "x", 4, "file", 0o644),
        SyncAll(),
    ]
    move = Rename(2, "x", 3, "y", 4)
    assert [sorted(tree) for tree in shown(disk(*made, move))][:2] == [
        ["a", "a/x", "b"],
        ["a", "b", "b/y"],
    ]
    for folder in (2, 3):
        assert disk(*made, move, Sync(folder)).unsafe(6) == ()


def test_nothing_comes_into_a_folder_that_did_not_survive_unless_that_was_synced() -> None:
    made = (NEW, SyncAll(), Create(ROOT, "folder", 2, "folder", 0o755))
    move = Rename(ROOT, "new", 2, "moved", 1)
    assert sorted(disk(*made, move).tree(4, {2: False})) == ["new"]
    assert sorted(disk(*made, move, Sync(2)).tree(5, {2: False})) == []


def test_a_name_is_taken_again_only_after_it_was_given_up() -> None:
    again = Create(ROOT, "new", 2, "file", 0o600)
    history = disk(NEW, SyncAll(), Remove(ROOT, "new", 1), again, Link(ROOT, "other", 2))
    assert history.tree(5, {2: False})["new"].mode == 0o644


def test_any_block_of_a_write_may_be_all_that_is_left() -> None:
    history = disk(NEW, SyncAll(), Write(1, 0, b"x" * 1300))
    second = history.tree(3, {2: Torn(512, frozenset({1}), 1300)})["new"].data
    assert second == bytes(512) + b"x" * 512 + bytes(276)
    assert history.tree(3, {2: Torn(512, frozenset({0, 2}), 600)})["new"].data == (
        b"x" * 512 + bytes(88)
    )
    assert history.tree(3, {2: Torn(512, frozenset({0}), None)})["new"].data == b""


def test_choices_are_the_same_for_one_seed_and_never_touch_what_is_safe() -> None:
    from random import Random

    history = disk(
        NEW, Write(1, 0, b"a" * 9000), SyncAll(), Write(1, 9000, b"b" * 900), Resize(1, 5)
    )
    once, again = (list(chosen(history, 5, Random(3), 50)) for _ in range(2))
    assert once == again
    assert {place for fates in once for place in fates} == {3, 4}
