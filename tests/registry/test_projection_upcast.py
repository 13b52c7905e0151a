"""Events of earlier versions: kept verbatim, and read everywhere as they would be written today."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pytest

from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.registry.projection.projection import Projection
from stillhouse.registry.projection.rows import PRESENT, Vocabulary
from stillhouse.schemas.canonical import Json
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import EVENTS, ArtifactPublished, GateWaived, Payload, TagMoved

from .documented import OF_THE_PROJECTION

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class OldTag(Payload):
    """`tag.moved` as if there had once been a version with other names."""

    TYPE = "tag.moved"
    label: str
    target: Digest


class NewTag(TagMoved):
    VERSION: ClassVar[int] = 3
    READS_FROM: ClassVar[int] = 3


def _renamed(data: Json) -> Json:
    return {"name": data["label"], "digest": data["target"]}


def _spelled(data: Json) -> Json:
    return data | {"name": data["name"].lower()}


LATER = Vocabulary(
    events={**EVENTS, "tag.moved": NewTag},
    upcasters={("tag.moved", 1): _renamed, ("tag.moved", 2): _spelled},
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "events.log", lambda: NOON, Actor(user="ada", host="h"))
    ledger.append([OldTag(label="BEST", target="ab" * 32)])
    ledger.append([NewTag(name="first", digest="cd" * 32)])
    return ledger


def projection(ledger: Ledger, known: Vocabulary = LATER) -> Projection:
    return Projection(ledger.path.with_name("registry.duckdb"), ledger.path, known)


def test_derived_rows_are_of_the_present_form_and_the_event_is_verbatim(ledger: Ledger) -> None:
    found = projection(ledger)
    assert found.query("SELECT seq, name, digest FROM tags ORDER BY seq").rows == (
        (1, "best", "ab" * 32),
        (2, "first", "cd" * 32),
    )
    bodies = [line[65:].decode() for line in ledger.path.read_bytes().splitlines()]
    assert [body for (body,) in found.query("SELECT body FROM event ORDER BY seq").rows] == bodies
    assert found.query(OF_THE_PROJECTION).rows == ((0,),)
    present = "SELECT body->>'$.data.name', body->>'$.v', body->>'$.prev' FROM present ORDER BY seq"
    assert found.query(present).rows == (
        ("best", "3", "0" * 64),
        ("first", "3", ledger.path.read_text()[:64]),
    )
    assert found.query("SELECT seq FROM upcast").rows == ((1,),)


def test_caught_up_equals_rebuilt(ledger: Ledger) -> None:
    found = projection(ledger)
    found.catch_up()
    ledger.append([OldTag(label="SECOND", target="ef" * 32), NewTag(name="x", digest="ef" * 32)])
    caught_up = found.query("SELECT * EXCLUDE (ts) FROM tag_move ORDER BY seq").rows
    found.rebuild()
    assert found.query("SELECT * EXCLUDE (ts) FROM tag_move ORDER BY seq").rows == caught_up
    assert [row[1] for row in caught_up] == ["best", "first", "second", "x"]


def test_a_file_that_was_built_with_other_versions_is_built_anew(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "events.log", lambda: NOON, Actor(user="ada", host="h"))
    ledger.append([TagMoved(name="BEST", digest="ab" * 32)])
    assert projection(ledger, PRESENT).query("SELECT name FROM tags").rows == (("BEST",),)
    later = Vocabulary(
        events=LATER.events, upcasters={("tag.moved", 1): dict, ("tag.moved", 2): _spelled}
    )
    assert projection(ledger, later).query("SELECT name FROM tags").rows == (("best",),)


def test_a_type_that_was_unknown_is_loaded_once_it_is_known(ledger: Ledger) -> None:
    ledger.append(
        [GateWaived(gate="g.g", subject="ab" * 32, author="ada", reason="r", until="2030-01-01")]
    )
    events = {n: model for n, model in LATER.events.items() if n != "gate.waived"}
    ignorant = Vocabulary(events=events, upcasters=LATER.upcasters)
    assert projection(ledger, ignorant).query("SELECT count(*) FROM event").rows == ((3,),)
    assert projection(ledger).query("SELECT author FROM waivers").rows == (("ada",),)


def test_what_does_not_have_the_form_of_its_version_is_damage(ledger: Ledger) -> None:
    broken = Vocabulary(events=LATER.events, upcasters={**LATER.upcasters, ("tag.moved", 2): dict})
    assert projection(ledger, broken).query("SELECT name FROM tags WHERE seq = 1").rows == (
        ("BEST",),
    )
    wrong = Vocabulary(
        events=LATER.events,
        upcasters={("tag.moved", 1): lambda _: {"no": "name"}, ("tag.moved", 2): dict},
    )
    ledger.path.with_name("registry.duckdb").unlink()
    with pytest.raises(IntegrityError, match="Event 1") as caught:
        projection(ledger, wrong).catch_up()
    assert caught.value.code == "event.malformed"


def test_a_version_that_only_adds_fields_is_read_as_it_stands(tmp_path: Path) -> None:
    class NotedTag(TagMoved):
        VERSION: ClassVar[int] = 2
        note: str | None = None

    ledger = Ledger(tmp_path / "events.log", lambda: NOON, Actor(user="ada", host="h"))
    ledger.append([TagMoved(name="old", digest="ab" * 32)])
    ledger.append([NotedTag(name="new", digest="ab" * 32, note="n")])
    found = projection(ledger, Vocabulary(events={**EVENTS, "tag.moved": NotedTag}, upcasters={}))
    assert found.query("SELECT name FROM tags ORDER BY seq").rows == (("old",), ("new",))
    assert found.query("SELECT count(*) FROM upcast").rows == ((0,),)
    with pytest.raises(InputError, match="Upgrade") as caught:
        projection(ledger, PRESENT).catch_up()
    assert caught.value.code == "event.too_new"


def test_a_newer_version_than_is_known_asks_for_an_upgrade(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="Upgrade"):
        projection(ledger, PRESENT).catch_up()


def test_markers_in_the_body_of_an_earlier_version_are_not_believed(tmp_path: Path) -> None:
    """An old publication spelled its parents otherwise; its edges are loaded all the same."""

    class OldPublished(ArtifactPublished):
        ancestors: tuple[str, ...] = ()

    class NewPublished(ArtifactPublished):
        VERSION: ClassVar[int] = 2
        READS_FROM: ClassVar[int] = 2

    def upcast(data: Json) -> Json:
        parents = [{"role": "source", "digest": digest} for digest in data.pop("ancestors")]
        return data | {"parents": parents}

    ledger = Ledger(tmp_path / "events.log", lambda: NOON, Actor(user="ada", host="h"))
    told = {"kind": "dataset", "form": "blob", "size": 1, "origin": "imported"}
    ledger.append(
        [OldPublished.model_validate(told | {"digest": "ab" * 32, "ancestors": ("cd" * 32,)})]
    )
    known = Vocabulary(
        events={**EVENTS, "artifact.published": NewPublished},
        upcasters={("artifact.published", 1): upcast},
    )
    assert projection(ledger, known).query("SELECT role FROM edge").rows == (("source",),)
