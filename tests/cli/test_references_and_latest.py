"""What a name means: tags that look like paths, `@latest`, one digest published in two forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillhouse import publish, recipes
from stillhouse.cli.daemon import inbox
from stillhouse.registry.home import Home
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.errors import InputError, RecipeError
from stillhouse.schemas.events import PlanRequested
from stillhouse.schemas.recipe import Recipe
from stillhouse.session import Session
from stillhouse.store.trees.trees import put_tree

from .conftest import Still

pytestmark = pytest.mark.usefixtures("home")


def _recipe(place: Path, policy: str, name: str = "recipe.toml") -> Path:
    path = place / name
    path.write_text(f'name = "a"\npolicy = "{policy}"\n', encoding="utf-8")
    return path


def _publish(still: Still, path: Path, kind: str, *more: str) -> str:
    answer = still("publish", path, "--kind", kind, *more)
    assert answer.code == 0, answer.err
    return answer.out.strip()


# -- tags ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["team/policy", "policy.v2"])
def test_a_recipe_may_name_a_tag_that_looks_like_a_path(
    still: Still, place: Path, policy: Path, tag: str
) -> None:
    digest = _publish(still, policy, "policy", "--tag", tag)
    still("run", _recipe(place, tag))
    assert digest in still("show", "recipe@latest").out
    assert still("ls", "--kind", "recipe").rows != []


def test_a_recipe_from_the_inbox_may_name_a_tag_that_looks_like_a_path(
    still: Still, home: Home, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "SETTLE_SECONDS", 0.05)
    _publish(still, policy, "policy", "--tag", "team/policy.v2")
    _recipe(home.inbox / "recipe", "team/policy.v2")
    assert "Refused" not in still("watch", "--once").err
    assert len(still("ls", "--kind", "recipe").rows) == 1


def test_in_a_recipe_a_file_comes_before_a_tag(still: Still, place: Path, policy: Path) -> None:
    tagged = _publish(still, policy, "policy", "--tag", "team/p")
    (place / "team").mkdir()
    text = policy.read_text(encoding="utf-8")
    (place / "team" / "p").write_text(text.replace("0.1", "0.2"), encoding="utf-8")
    still("run", _recipe(place, "team/p"))
    assert tagged not in still("show", "recipe@latest").out


@pytest.mark.parametrize("tag", ["team/recipe", "recipe.v2", "recipes"])
def test_a_tagged_recipe_can_be_run_whatever_its_tag_looks_like(
    still: Still, place: Path, policy: Path, tag: str
) -> None:
    still("run", _recipe(place, policy.name))
    (place / "recipes").mkdir()  # a folder of that name is no recipe
    assert still("tag", tag, "recipe@latest").code == 0
    answer = still("run", tag)
    assert "cannot be read" not in answer.err
    assert answer.rows
    assert "cannot be read" in still("run", f"{tag}/nowhere.toml").err


@pytest.mark.parametrize("name", ["mine\n", "abcg\n"])
def test_a_name_with_a_newline_at_its_end_is_no_tag(still: Still, policy: Path, name: str) -> None:
    digest = _publish(still, policy, "policy")
    assert still("tag", name, digest).code == 2
    assert still("show", f"{digest[:8]}\n").code == 2


# -- recipes ------------------------------------------------------------------------------------


def test_a_recipe_that_is_not_resolved_is_never_recorded(session: Session) -> None:
    for policy in ("mine", "ab" * 31):
        recipe = Recipe(name="a", policy=policy)
        with pytest.raises(RecipeError, match="policy"):
            recipes.publish_resolved(session, recipe, ())
    assert session.ledger.head().seq == 0


def test_no_reference_of_a_recipe_is_empty(session: Session) -> None:
    text = b'name = "a"\npolicy = "p"\ngiven = { checkpoint = "" }\n'
    with pytest.raises(InputError, match=r"given\.checkpoint"):
        recipes.read(text, where="r.toml")
    assert session.ledger.head().seq == 0


# -- latest -------------------------------------------------------------------------------------


def test_what_a_person_publishes_again_is_the_latest_again(
    still: Still, session: Session, place: Path
) -> None:
    first, second = place / "first", place / "second"
    first.write_text("1", encoding="utf-8")
    second.write_text("2", encoding="utf-8")
    one, _ = _publish(still, first, "source"), _publish(still, second, "source")
    assert _publish(still, first, "source") == one
    assert still("show", "source@latest", "--json").json["digest"] == one
    assert session.ledger.head().seq == 3
    _publish(still, first, "source")
    assert session.ledger.head().seq == 3


def test_a_policy_that_is_published_again_is_the_latest_again(
    still: Still, place: Path, policy: Path
) -> None:
    other = place / "other.toml"
    text = policy.read_text(encoding="utf-8")
    other.write_text(text.replace("0.1", "0.2"), encoding="utf-8")
    one, _ = _publish(still, policy, "policy"), _publish(still, other, "policy")
    _publish(still, policy, "policy")
    assert still("show", "policy@latest", "--json").json["digest"] == one


def test_what_lies_in_the_inbox_is_recorded_once_however_often_the_daemon_starts(
    still: Still, home: Home, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "SETTLE_SECONDS", 0.05)
    for name in ("a", "b"):
        (home.inbox / "source" / name).write_text(name, encoding="utf-8")
    assert still("watch", "--once").code == 0
    recorded = session.ledger.head().seq
    assert still("watch", "--once").code == 0
    assert session.ledger.head().seq == recorded


def test_what_recipes_name_is_recorded_once_however_often_they_are_resolved(
    session: Session, place: Path
) -> None:
    for name in ("a", "b", "a", "b"):
        (place / name).write_text(name, encoding="utf-8")
        publish.take_in(session, place / name, Kind.SOURCE)
    assert session.ledger.head().seq == 2


# -- forms --------------------------------------------------------------------------------------


def test_a_folder_that_was_also_published_as_its_own_listing_is_a_folder(
    still: Still, session: Session, place: Path
) -> None:
    (place / "folder").mkdir()
    (place / "folder" / "a").write_text("a", encoding="utf-8")
    (place / "other").mkdir()
    (place / "other" / "listing").write_bytes(_listing(session, place / "folder"))
    blob = _publish(still, place / "other" / "listing", "source")
    tree = _publish(still, place / "folder", "source")
    assert blob == tree
    assert still("cat", tree).rows[0][0] == "a"
    assert still("verify", tree, "--json").json["checked"] == 1
    still("checkout", tree, place / "out")
    assert (place / "out" / "a").read_text(encoding="utf-8") == "a"


def _listing(session: Session, folder: Path) -> bytes:
    return session.store.read(put_tree(session.store, folder).digest)


def test_the_latest_of_one_kind_is_not_taken_for_another(
    still: Still, session: Session, place: Path, policy: Path
) -> None:
    """A source that was taken for a recipe was recorded as a plan, and stopped every later tick."""
    _publish(still, policy, "policy")
    (place / "lines.jsonl").write_text("{}\n")
    _publish(still, place / "lines.jsonl", "source")
    assert still("run", _recipe(place, str(policy))).code == 1  # a gate has nothing to judge
    head = session.ledger.head()
    for typed in (
        ["run", "source@latest"],
        ["cancel", "source@latest"],
        ["why", "training", "--plan", "source@latest"],
        ["run", str(_recipe(place, "source@latest", "other.toml"))],
    ):
        answer = still(*typed)
        assert (answer.code, "Traceback" in answer.err) == (2, False), (typed, answer.err)
    assert session.ledger.head() == head


def test_a_plan_that_is_no_recipe_is_passed_over(session: Session, still: Still) -> None:
    """An earlier version recorded such requests."""
    session.ledger.append([PlanRequested(plan="ab" * 32)])
    assert still("watch", "--once").code == 0
    assert still("gc", "--dry-run").code == 0
    assert still("why-not", "release").code == 2
