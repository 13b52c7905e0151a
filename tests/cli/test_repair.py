"""`still repair`: the very same bytes come back, or nothing changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse import collect
from stillhouse.cli.main import main
from stillhouse.registry.home import FOLDER
from stillhouse.registry.keeping import collection
from stillhouse.session import Session
from stillhouse.store.objects.local import BlobStore

from .conftest import Still
from .repeatable import COUNTED, SAID, Repeatable
from .test_gc import _killed

Harm = Callable[[Path], None]


def _flipped(path: Path) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])


HARMS: dict[str, Harm] = {"flipped": _flipped, "cut": _cut, "missing": Path.unlink}


@pytest.fixture
def runs(session: Session, place: Path, monkeypatch: pytest.MonkeyPatch) -> Repeatable:
    """Records runs that workers can repeat."""
    found = Repeatable(session, place / "phase")
    found.install(monkeypatch)
    return found


def _object(session: Session, digest: str) -> Path:
    return session.home.objects / digest[:2] / digest[2:]


def _file(still: Still, place: Path) -> str:
    (place / "a.txt").write_bytes(b"the only copy")
    return still("publish", "a.txt", "--kind", "source").out.strip()


def _folder(still: Still, place: Path) -> str:
    for name in ("one", "two"):
        (place / "folder").mkdir(exist_ok=True)
        (place / "folder" / name).write_text(f"file {name}", encoding="utf-8")
    (place / "folder" / "two").chmod(0o755)
    return still("publish", "folder", "--kind", "source").out.strip()


def _whole(still: Still, session: Session) -> None:
    assert still("fsck").code == 0
    damaged = session.home.root / "damaged"
    assert not damaged.exists() or list(damaged.iterdir()) == []


@pytest.mark.parametrize("harm", HARMS)
def test_a_file_comes_back_from_a_copy(
    still: Still, session: Session, place: Path, harm: str
) -> None:
    digest = _file(still, place)
    HARMS[harm](_object(session, digest))
    answer = still("repair", digest, "--from", "a.txt", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["how"] == "file"
    assert [*answer.json["missing"], *answer.json["corrupt"]] == [digest]
    assert session.store.read(digest) == b"the only copy"
    _whole(still, session)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("which", ["list", "file one", "both"])
def test_a_folder_comes_back_from_a_copy(
    still: Still, session: Session, place: Path, harm: str, which: str
) -> None:
    digest = _folder(still, place)
    member = session.store.put_bytes(b"file one").digest
    for hurt in {"list": [digest], "file one": [member], "both": [digest, member]}[which]:
        HARMS[harm](_object(session, hurt))
    assert still("fsck").code == 1
    answer = still("repair", digest, "--from", "folder")
    assert answer.code == 0, answer.err
    assert still("checkout", digest, "out").code == 0
    assert (place / "out" / "one").read_text() == "file one"
    _whole(still, session)


@pytest.mark.parametrize("harm", HARMS)
def test_a_folder_comes_back_from_another_registry(
    still: Still, session: Session, place: Path, harm: str
) -> None:
    digest = _folder(still, place)
    (place / "other").mkdir()
    shutil.copytree(session.home.root, place / "other" / FOLDER)
    for path in [p for p in session.home.objects.glob("[0-9a-f][0-9a-f]/*") if p.is_file()]:
        HARMS[harm](path)
    answer = still("repair", digest, "--from", "other", "--json")
    assert (answer.code, answer.json["how"]) == (0, "registry")
    _whole(still, session)


def test_a_registry_whose_copy_is_damaged_too_is_no_help(
    still: Still, session: Session, place: Path
) -> None:
    digest = _file(still, place)
    shutil.copytree(session.home.root, place / "other")
    _flipped(place / "other" / "objects" / digest[:2] / digest[2:])
    _flipped(_object(session, digest))
    before = _object(session, digest).read_bytes()
    answer = still("repair", digest, "--from", "other")
    assert answer.code == 2
    assert "no good copy" in answer.err
    assert _object(session, digest).read_bytes() == before


@pytest.mark.parametrize("harm", ["flipped", "cut"])
def test_other_bytes_change_nothing_and_both_digests_are_told(
    still: Still, session: Session, place: Path, harm: str
) -> None:
    digest = _file(still, place)
    folder = _folder(still, place)
    for hurt in (digest, folder):
        HARMS[harm](_object(session, hurt))
    (place / "a.txt").write_bytes(b"another text!")
    (place / "folder" / "two").chmod(0o644)  # what may be executed is part of the digest
    before = [_object(session, d).read_bytes() for d in (digest, folder)]
    events = session.home.log.read_bytes()
    objects = sorted(session.store.digests())
    for wanted, copy in ((digest, "a.txt"), (folder, "folder"), (folder, "a.txt")):
        answer = still("repair", wanted, "--from", copy)
        assert answer.code == 2
        assert wanted in answer.err
        assert "holds other bytes" in answer.err
    assert [_object(session, d).read_bytes() for d in (digest, folder)] == before
    assert session.home.log.read_bytes() == events
    assert sorted(session.store.digests()) == objects


def test_what_was_swept_comes_back_from_a_copy(still: Still, session: Session, place: Path) -> None:
    digest = _folder(still, place)
    for _ in range(2):
        still("gc", "--grace", "0")
    assert digest in session.state().absent
    assert "still repair" in still("checkout", digest, "out").err
    assert still("repair", digest, "--from", "folder").code == 0
    assert session.state().absent == {}
    assert still("checkout", digest, "out").code == 0
    _whole(still, session)


@pytest.mark.parametrize("harm", HARMS)
def test_what_a_run_made_is_made_again(
    still: Still, session: Session, runs: Repeatable, harm: str
) -> None:
    first = runs.ran("say", SAID)
    digest = runs.ran("count", COUNTED, first)
    still("evict", first)
    HARMS[harm](_object(session, digest))
    answer = still("repair", digest, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["how"] == "run"
    assert session.store.read(digest) == COUNTED
    assert session.state().absent == {}
    _whole(still, session)


def test_a_run_that_makes_something_else_leaves_the_damaged_object_where_it_was(
    still: Still, session: Session, runs: Repeatable
) -> None:
    digest = runs.ran("say", b"made on no machine")
    _flipped(_object(session, digest))
    before = _object(session, digest).read_bytes()
    answer = still("repair", digest)
    assert answer.code == 1
    assert "not deterministic" in answer.err
    assert "--from" in answer.err
    assert _object(session, digest).read_bytes() == before


def test_at_ctrl_c_the_damaged_object_is_where_it_was(
    still: Still, session: Session, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a damaged object would be told as a missing one, and its bytes be out of sight."""
    digest = _file(still, place)
    _flipped(_object(session, digest))
    before = _object(session, digest).read_bytes()

    def interrupted(*_: Any, **__: Any) -> Any:
        assert not _object(session, digest).exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BlobStore, "put_file", interrupted)
        assert still("repair", digest, "--from", "a.txt").code == 130
    assert _object(session, digest).read_bytes() == before
    assert list(session.home.damaged.iterdir()) == []
    assert still("repair", digest, "--from", "a.txt").code == 0
    _whole(still, session)


def test_a_condemned_object_that_is_damaged_is_mended_too(
    still: Still, session: Session, place: Path
) -> None:
    digest = _file(still, place)
    still("gc", "--grace", "0")
    _flipped(session.store.path(digest))
    assert still("repair", digest, "--from", "a.txt").code == 0
    assert session.store.read(digest) == b"the only copy"


def test_what_is_intact_is_left_alone(still: Still, session: Session, place: Path) -> None:
    digest = _file(still, place)
    before = session.home.log.read_bytes()
    answer = still("repair", digest)
    assert (answer.code, answer.rows[0][0]) == (0, "intact")
    assert session.home.log.read_bytes() == before


def test_given_up_bytes_that_are_still_there_are_taken_back(
    still: Still, session: Session, runs: Repeatable
) -> None:
    digest = runs.ran("say", SAID)
    with session.store.lease():
        still("evict", digest)
    assert still("repair", digest).code == 0
    for _ in range(2):
        still("gc")
    assert session.state().absent == {}
    assert session.store.read(digest) == SAID


def test_a_collector_that_decided_before_does_not_take_what_is_taken_back(
    still: Still, session: Session, runs: Repeatable, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = runs.ran("say", SAID)
    with session.store.lease():
        still("evict", digest)
    real = collection.decide

    def slow(*given: Any, **more: Any) -> Any:
        found = real(*given, **more)
        assert digest in found.marks.due
        assert still("repair", digest).code == 0
        return found

    with monkeypatch.context() as patched:
        patched.setattr(collect, "decide", slow)
        assert still("gc").code == 0
    assert session.state().absent == {}
    assert session.store.read(digest) == SAID


def test_what_nobody_made_and_nothing_is_given_for_can_not_be_mended(
    still: Still, session: Session, place: Path
) -> None:
    digest = _file(still, place)
    _flipped(_object(session, digest))
    answer = still("repair", digest)
    assert answer.code == 2
    assert "--from PATH" in answer.err


@pytest.mark.parametrize(
    "wrong", [[], ["nosuch"], ["source@latest", "--from", "nowhere"], ["--from"]]
)
def test_wrong_usage_is_told(still: Still, session: Session, place: Path, wrong: list[str]) -> None:
    digest = _file(still, place)
    _flipped(_object(session, digest))
    assert still("repair", *wrong).code == 2


def test_killed_at_any_step_the_next_one_finishes_and_no_good_byte_is_lost(
    still: Still, session: Session, place: Path
) -> None:
    digest = _folder(still, place)
    other = _file(still, place)
    member = session.store.put_bytes(b"file one").digest
    deaths = 0
    for after in range(100):
        for hurt, harm in ((digest, _cut), (member, _flipped)):
            harm(_object(session, hurt))
        died = _killed(lambda: main(["repair", digest, "--from", "folder"]), after)
        deaths += died
        assert session.store.read(other) == b"the only copy"
        assert still("repair", digest, "--from", "folder").code == 0
        _whole(still, session)
        if not died:
            break
    assert deaths > 5
    assert not died
