"""What counts as an item of the inbox, and when it has come to rest. Times are given, not taken."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from stillhouse.cli.daemon.inbox import SETTLE_SECONDS, Inbox, changed, unfinished_part

STILL = SETTLE_SECONDS
MANY = 10_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where sources are dropped."""
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def inbox(folder: Path) -> Inbox:
    return Inbox(folder=folder.parent)


def _taken(inbox: Inbox, now: float) -> list[str]:
    inbox.look(now)
    return [item.path.name for item in inbox.take(now, MANY)]


def test_an_item_is_taken_once_and_only_after_it_has_rested(folder: Path, inbox: Inbox) -> None:
    item = folder / "a.jsonl"
    item.write_text("1", encoding="utf-8")
    assert _taken(inbox, 0.0) == []
    item.write_text("12", encoding="utf-8")
    assert _taken(inbox, STILL) == []
    assert inbox.settles_in(STILL) == STILL
    assert _taken(inbox, 2 * STILL) == ["a.jsonl"]
    assert _taken(inbox, 9 * STILL) == []
    assert inbox.resting
    assert inbox.settles_in(9 * STILL) is None


def test_a_slow_writer_is_waited_for(folder: Path, inbox: Inbox) -> None:
    with (folder / "slow.jsonl").open("w", encoding="utf-8") as file:
        for beat in range(10):
            file.write("line\n")
            file.flush()
            assert _taken(inbox, beat * 0.9 * STILL) == []
    assert _taken(inbox, 9 * 0.9 * STILL + STILL) == ["slow.jsonl"]


@pytest.mark.parametrize(
    "name",
    [
        "a.jsonl~",
        ".a.jsonl.swp",
        "a.swp",
        "a.tmp",
        "a.TMP",
        "a.part",
        "a.crdownload",
        "4913",
        ".#a",
        "#a#",
        ".DS_Store",
        "._a",
    ],
)
def test_what_an_editor_or_a_download_is_making_is_no_item(
    folder: Path, inbox: Inbox, name: str
) -> None:
    (folder / name).write_text("x", encoding="utf-8")
    (folder / "real").write_text("x", encoding="utf-8")
    inbox.look(0.0)
    assert _taken(inbox, STILL) == ["real"]


def test_what_an_editor_saves_by_renaming_is_one_new_item(folder: Path, inbox: Inbox) -> None:
    item = folder / "notes.jsonl"
    item.write_text("one", encoding="utf-8")
    inbox.look(0.0)
    assert _taken(inbox, STILL) == ["notes.jsonl"]
    item.rename(folder / "notes.jsonl~")
    item.write_text("two", encoding="utf-8")
    assert _taken(inbox, 2 * STILL) == []
    assert _taken(inbox, 3 * STILL) == ["notes.jsonl"]


def test_a_file_of_the_same_size_and_age_that_is_renamed_into_place_is_new(
    folder: Path, inbox: Inbox
) -> None:
    item, other = folder / "a.jsonl", folder / ".next"
    item.write_text("one", encoding="utf-8")
    inbox.look(0.0)
    assert _taken(inbox, STILL) == ["a.jsonl"]
    other.write_text("two", encoding="utf-8")
    status = item.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(item)
    inbox.look(2 * STILL)
    assert _taken(inbox, 3 * STILL) == ["a.jsonl"]


def test_an_item_that_is_renamed_while_it_settles_is_taken_under_its_new_name_only(
    folder: Path, inbox: Inbox
) -> None:
    (folder / "old").write_text("x", encoding="utf-8")
    inbox.look(0.0)
    (folder / "old").rename(folder / "new")
    assert _taken(inbox, STILL) == []
    assert _taken(inbox, 2 * STILL) == ["new"]


def test_a_folder_is_taken_when_the_last_of_its_files_has_rested(
    folder: Path, inbox: Inbox
) -> None:
    model = folder / "model" / "deep"
    model.mkdir(parents=True)
    assert _taken(inbox, 0.0) == []
    assert _taken(inbox, 2 * STILL) == [], "an empty folder is nothing yet"
    assert inbox.resting
    for place in range(4):
        (model / f"{place}.bin").write_text("x", encoding="utf-8")
        assert _taken(inbox, (10 + place * 0.9) * STILL) == []
    assert _taken(inbox, 20 * STILL) == ["model"]
    (model / "0.bin").unlink()
    inbox.look(21 * STILL)
    assert _taken(inbox, 22 * STILL) == ["model"], "a folder that lost a file is another one"


def test_a_download_inside_of_a_folder_is_named(folder: Path, inbox: Inbox) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "config.json~").write_text("{}", encoding="utf-8")
    inbox.look(0.0)
    (item,) = inbox.take(STILL, MANY)
    assert unfinished_part(item) is None
    (folder / "model" / "weights.part").write_text("x", encoding="utf-8")
    inbox.look(STILL)
    (item,) = inbox.take(2 * STILL, MANY)
    assert unfinished_part(item) == "weights.part"


def test_whether_it_changed_since_it_was_handed_out(folder: Path, inbox: Inbox) -> None:
    for name in ("kept", "gone", "grown"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("x", encoding="utf-8")
    inbox.look(0.0)
    gone, grown, kept = inbox.take(STILL, MANY)
    shutil.rmtree(gone.path)
    (grown.path / "more").write_text("x", encoding="utf-8")
    assert [changed(item) for item in (gone, grown, kept)] == [True, True, False]


def test_a_file_that_may_be_read_from_now_on_is_new(folder: Path, inbox: Inbox) -> None:
    item = folder / "a"
    item.write_text("x", encoding="utf-8")
    item.chmod(0)
    inbox.look(0.0)
    assert _taken(inbox, STILL) == ["a"]
    item.chmod(0o644)
    inbox.look(2 * STILL)
    assert _taken(inbox, 3 * STILL) == ["a"]


def test_a_link_is_an_item_and_not_what_it_points_to(folder: Path, inbox: Inbox) -> None:
    target = folder.parent / "target"
    target.mkdir()
    (folder / "link").symlink_to(target)
    (folder / "dangling").symlink_to("nowhere")
    inbox.look(0.0)
    (target / "new").write_text("x", encoding="utf-8")
    assert _taken(inbox, STILL) == ["dangling", "link"]


def test_a_kind_that_can_not_be_listed_is_told_once_and_hides_no_other(
    folder: Path, inbox: Inbox
) -> None:
    (folder / "a").write_text("x", encoding="utf-8")
    (folder.parent / "policy").write_text("a file where a folder should be", encoding="utf-8")
    inbox.look(0.0)
    policy, source = inbox.take(STILL, MANY)
    assert (policy.path.name, source.path.name) == ("policy", "a")
    assert isinstance(policy.fault, NotADirectoryError)
    assert _taken(inbox, 9 * STILL) == []


def test_many_items_are_handed_out_a_few_at_a_time_and_each_once(
    folder: Path, inbox: Inbox
) -> None:
    names = [f"{place:03}" for place in range(500)]
    for name in names:
        (folder / name).write_text(name, encoding="utf-8")
    inbox.look(0.0)
    taken: list[str] = []
    while not inbox.resting:
        taken += [item.path.name for item in inbox.take(STILL, 8)]
    assert taken == names


def test_what_is_gone_is_forgotten(folder: Path, inbox: Inbox) -> None:
    for cycle in range(200):
        (folder / str(cycle)).write_text("x", encoding="utf-8")
        (folder / str(cycle - 1)).unlink(missing_ok=True)
        inbox.look(cycle * STILL)
    assert [item.path.name for item in inbox.take(MANY * STILL, MANY)] == ["199"]


def test_what_is_put_off_comes_again_ever_later_and_keeps_nobody_from_being_quiet(
    folder: Path, inbox: Inbox
) -> None:
    (folder / "a").write_text("x", encoding="utf-8")
    inbox.look(0.0)
    now = STILL
    pauses: list[float] = []
    firsts: list[bool] = []
    for _ in range(9):
        (item,) = inbox.take(now, MANY)
        firsts.append(inbox.put_off(item, now))
        assert (inbox.owing, inbox.resting) == (True, True)
        wait = inbox.settles_in(now)
        assert wait is not None
        assert _taken(inbox, now + wait - 0.5) == []
        pauses.append(wait - STILL)
        now += wait
    assert firsts == [True, *[False] * 8]
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert _taken(inbox, now) == ["a"]
    assert not inbox.owing


def test_what_was_put_off_and_changes_is_new(folder: Path, inbox: Inbox) -> None:
    (folder / "a").write_text("x", encoding="utf-8")
    inbox.look(0.0)
    (item,) = inbox.take(STILL, MANY)
    inbox.put_off(item, STILL)
    (folder / "a").write_text("xy", encoding="utf-8")
    inbox.look(STILL)
    (item,) = inbox.take(2 * STILL, MANY)
    assert inbox.put_off(item, 2 * STILL), "the first time, as it is"


def test_what_lies_in_no_folder_of_a_kind_is_handed_out_once_for_each_folder(
    folder: Path, inbox: Inbox
) -> None:
    wrong = folder.parent / "checkpoints"
    wrong.mkdir()
    (folder.parent / ".DS_Store").touch()
    (folder.parent / "loose.jsonl").touch()
    assert _taken(inbox, 0.0) == []
    (wrong / "a").mkdir()
    (wrong / "a" / "config.json").touch()
    assert _taken(inbox, STILL) == ["loose.jsonl"]
    assert _taken(inbox, 2 * STILL) == ["checkpoints"]
    (wrong / "b.json").write_text("more", encoding="utf-8")
    assert _taken(inbox, 9 * STILL) == []
    inbox.look(9 * STILL)
    assert inbox.resting
    shutil.rmtree(wrong)
    inbox.look(10 * STILL)
    wrong.mkdir()
    (wrong / "b.json").touch()
    assert _taken(inbox, 11 * STILL) == []
    assert _taken(inbox, 12 * STILL) == ["checkpoints"]
