from __future__ import annotations

import stat
from pathlib import Path

import pytest

from stillhouse.registry.home import Home
from stillhouse.schemas.events import RunFailed, RunStarted
from stillhouse.session import Session

from .conftest import Still

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def folder(place: Path) -> Path:
    made = place / "pair"
    (made / "inner").mkdir(parents=True)
    (made / "a.txt").write_bytes(b"alpha\n")
    (made / "inner" / "b.bin").write_bytes(bytes(range(256)))
    return made


def _publish(still: Still, path: Path, *more: str) -> str:
    answer = still("publish", path, "--kind", "source", *more)
    assert answer.code == 0
    return answer.out.strip()


def test_ls_shows_one_row_an_artifact_with_complete_digests(still: Still, folder: Path) -> None:
    first = _publish(still, folder)
    second = _publish(still, folder / "a.txt")
    assert [row[:2] for row in still("ls").rows] == [[first, "source"], [second, "source"]]


def test_ls_of_one_kind(still: Still, folder: Path, policy: Path) -> None:
    _publish(still, folder)
    kept = still("publish", policy, "--kind", "policy").out.strip()
    assert [row["digest"] for row in still("ls", "--kind", "policy", "--json").json] == [kept]
    assert still("ls", "--kind", "nonsense").code == 2


def test_ls_names_the_tags_of_an_artifact(still: Still, folder: Path) -> None:
    digest = _publish(still, folder)
    still("tag", "mine", digest)
    assert still("ls", "--json").json[0]["tags"] == ["mine"]


@pytest.mark.parametrize("ref", ["{digest}", "{prefix}", "mine", "source@latest"])
def test_an_artifact_can_be_named_in_each_way(still: Still, folder: Path, ref: str) -> None:
    digest = _publish(still, folder, "--tag", "mine")
    text = ref.format(digest=digest, prefix=digest[:6])
    assert still("show", text, "--json").json["digest"] == digest


def test_an_ambiguous_prefix_lists_the_candidates(still: Still, place: Path) -> None:
    digests = []
    for number in range(
        300
    ):  # enough for two that share four characters? no: for two, so make them
        (place / "n").write_text(str(number), encoding="utf-8")
        digests.append(_publish(still, place / "n"))
        if len({d[:1] for d in digests}) < len(digests):
            break
    shared = next(d[:1] for d in digests if sum(e[:1] == d[:1] for e in digests) > 1)
    answer = still("show", shared)
    assert answer.code == 2
    assert "could mean" in answer.err


def test_show_tells_every_publication_and_fact(still: Still, folder: Path) -> None:
    digest = _publish(still, folder, "--meta", "licence=MIT")
    _publish(still, folder, "--name", "other")
    told = still("show", digest, "--json").json
    assert [p["name"] for p in told["publications"]] == ["pair", "other"]
    assert told["publications"][0]["facts"]["meta"] == {"licence": "MIT"}
    assert "licence" in still("show", digest).out


def test_show_of_a_run_ends_with_its_log(still: Still, session: Session) -> None:
    key, plan = "ab" * 32, "cd" * 32
    log = session.store.put_bytes(b"first line\nthe last line\n").digest
    common = {"run": key, "phase": "training", "plan": plan, "slot": "training", "attempt": 1}
    session.ledger.append(
        [
            RunStarted(**common, phase_version=1, inputs=(), params={"steps": 3}, tools={}),
            RunFailed(
                **common, code="x.y", message="It broke.", remedy="Mend.", seconds=1, log=log
            ),
        ]
    )
    answer = still("show", key[:8])
    assert answer.code == 0
    assert ["log", "the last line"] in answer.rows
    assert ["error", "It broke. Mend."] in answer.rows
    assert still("show", key[:8], "--json").json["params"] == {"steps": 3}


def test_cat_gives_the_bytes_of_a_file_in_a_folder(still: Still, folder: Path) -> None:
    digest = _publish(still, folder)
    assert [row[0] for row in still("cat", digest).rows] == ["a.txt", "inner/b.bin"]
    assert still("cat", f"{digest}:a.txt").out == "alpha\n"


def test_cat_of_a_file_that_is_not_there_names_near_ones(still: Still, folder: Path) -> None:
    digest = _publish(still, folder)
    answer = still("cat", f"{digest[:8]}:a.text")
    assert answer.code == 2
    assert "a.txt" in answer.err
    blob = _publish(still, folder / "a.txt")
    assert still("cat", f"{blob}:x").code == 2


def test_cat_of_a_corrupt_object_prints_nothing_of_it(
    still: Still, home: Home, folder: Path
) -> None:
    digest = _publish(still, folder / "a.txt")
    path = home.objects / digest[:2] / digest[2:]
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    path.write_bytes(b"beta!\n")
    answer = still("cat", digest)
    assert (answer.code, answer.out) == (1, "")
    assert "corrupt" in answer.err


def test_checkout_writes_the_same_folder(still: Still, folder: Path, place: Path) -> None:
    digest = _publish(still, folder)
    assert still("checkout", digest[:8], place / "copy").code == 0
    assert (place / "copy" / "inner" / "b.bin").read_bytes() == bytes(range(256))
    again = still("checkout", digest[:8], place / "copy")
    assert again.code == 2
    assert "exists already" in again.err


def test_publish_prints_the_bare_digest_and_the_same_again(still: Still, folder: Path) -> None:
    first = still("publish", folder, "--kind", "source", "--json").json
    second = still("publish", folder, "--kind", "source", "--json").json
    assert (first["new"], second["new"]) == (True, False)
    assert still("publish", folder, "--kind", "source").out == f"{first['digest']}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--kind", "nonsense"), "no artifact kind"),
        (("--kind", "report"), "can not be published by hand"),
        (("--kind", "source", "--meta", "x"), "not of the form"),
        (("--kind", "source", "--tag", "abcd"), "can not be a tag"),
    ],
)
def test_bad_publications_are_refused_and_nothing_is_recorded(
    still: Still, home: Home, folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    answer = still("publish", folder, *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert home.log.read_bytes() == b""
    assert not [p for p in home.objects.iterdir() if p.name != "tmp"]


def test_a_name_with_control_characters_cannot_drive_the_terminal(
    still: Still, folder: Path
) -> None:
    _publish(still, folder, "--name", "a\x1b[31m\tb\nc")
    answer = still("ls")
    assert "\x1b" not in answer.out
    assert len(answer.rows) == 1
    assert answer.rows[0][5] == r"a\x1b[31m\tb\nc"


def test_lineage_of_a_recipe_is_a_tree_with_roles(
    still: Still, place: Path, policy: Path, session: Session
) -> None:
    from stillhouse.recipes import resolve

    recipe = place / "recipe.toml"
    recipe.write_text(f'name = "r"\npolicy = "{policy.name}"\n', encoding="utf-8")
    plan = resolve(session, recipe)
    rows = still("lineage", plan).rows
    assert rows[0][:3] == ["0", "", "recipe"]
    assert rows[1][:3] == ["1", "policy", "policy"]
    below = still("lineage", rows[1][3], "--down", "--json").json
    assert [a["digest"] for a in below["artifacts"]] == [rows[1][3], plan]
    assert below["edges"] == [
        {"child": plan, "parent": rows[1][3], "role": "policy", "circumstance": False}
    ]
    assert still("lineage", plan, "--up", "--down").code == 2
