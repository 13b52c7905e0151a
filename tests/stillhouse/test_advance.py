"""Advancing one plan: what RECIPE means, and when a plan is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillhouse.advance import advance, find_plan
from stillhouse.notices import Refusal, Watcher
from stillhouse.registry.home import FOLDER, Home
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.events import TagMoved
from stillhouse.schemas.plain import plain
from stillhouse.session import Session, make_registry, open_registry
from tests.cli.conftest import POLICY
from tests.cli.recorded import Recorder


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """An empty registry in the current folder."""
    monkeypatch.chdir(tmp_path)
    home = Home(tmp_path / FOLDER)
    make_registry(home)
    return open_registry(home)


@pytest.fixture
def done(session: Session, tmp_path: Path) -> Digest:
    """A plan that came to a release."""
    recorder = Recorder(session=session, scratch=tmp_path / "scratch")
    (tmp_path / "policy.toml").write_text(POLICY, encoding="utf-8")
    plan = recorder.plan(tmp_path / "policy.toml")
    assert recorder.run(plan).done
    return plan


class Listening(Watcher):
    """What was told."""

    def __init__(self) -> None:
        self.types: list[str] = []

    def hear(self, notice: object) -> None:
        self.types.append(getattr(notice, "type", "progress"))


def test_a_file_goes_before_a_tag_of_its_name_and_a_folder_does_not(
    session: Session, tmp_path: Path, done: Digest
) -> None:
    assert find_plan(session, done[:SHORT]) == done
    session.ledger.append([TagMoved(name="mine", digest=done)])
    (tmp_path / "mine").mkdir()
    assert find_plan(session, "mine") == done
    (tmp_path / "mine").rmdir()
    (tmp_path / "mine").write_text("name = ", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        find_plan(session, "mine")
    assert caught.value.code == "recipe.bad_toml"


@pytest.mark.parametrize(
    ("recipe", "code"),
    [("none.toml", "file.unreadable"), ("a/b", "file.unreadable"), ("unknown", "ref.unknown")],
)
def test_what_is_neither_is_told_as_what_it_can_only_be(
    session: Session, recipe: str, code: str
) -> None:
    with pytest.raises(InputError) as caught:
        find_plan(session, recipe)
    assert caught.value.code == code


def test_a_finished_plan_is_asked_for_again_only_with_another_priority(
    session: Session, done: Digest
) -> None:
    before = session.ledger.head().seq
    watcher = Listening()
    told = advance(session, done, watcher)
    assert (told.summary.done, told.summary.plan, watcher.types) == (True, done, [])
    assert session.ledger.head().seq == before
    assert tuple(plain(told)) == ("summary",)
    assert advance(session, done, watcher, priority=3).summary.done
    assert watcher.types == ["plan.requested"]
    assert session.state().priorities[done] == 3


def test_a_refusal_is_one_object_with_the_path_and_the_error(tmp_path: Path) -> None:
    error = InputError("It is odd.", remedy="Mend it.", code="file.odd")
    said = {
        "path": str(tmp_path),
        "code": "file.odd",
        "message": "It is odd.",
        "remedy": "Mend it.",
    }
    assert plain(Refusal(path=tmp_path, error=error)) == {"refused": said}
