"""Old events stay readable, new ones are refused by name, unknown ones pass."""

from __future__ import annotations

import pytest

from stillhouse.registry.ledger.format import START, encode_line, scan
from stillhouse.registry.state import state as fold
from stillhouse.registry.state.state import State
from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.schemas.event import GENESIS, Actor, Event
from stillhouse.schemas.events import EVENTS, ArtifactPublished, Payload, TagMoved
from stillhouse.schemas.upcast import UPCASTERS, payload_of


class Named(Payload):
    """Two changes of form, then an optional field."""

    TYPE = "thing.named"
    VERSION = 4
    READS_FROM = 3
    name: str
    lang: str
    note: str | None = None


def _named(v: int, **data: object) -> Event:
    return Event(
        seq=1,
        prev=GENESIS,
        ts="2026-11-22T12:00:00.000000Z",
        type="thing.named",
        v=v,
        actor=Actor(user="ada", host="h"),
        batch="1/1",
        data=dict(data),
    )


STEPS = {
    ("thing.named", 1): lambda data: {"name": data["title"]},
    ("thing.named", 2): lambda data: {**data, "lang": "en"},
}


@pytest.mark.parametrize(
    "event",
    [
        _named(1, title="x"),
        _named(2, name="x"),
        _named(3, name="x", lang="en"),
        _named(4, name="x", lang="en", note=None),
    ],
    ids=["two steps", "one step", "before a field was added", "present"],
)
def test_every_version_reads_as_the_present_one(event: Event) -> None:
    found = payload_of(event, known={"thing.named": Named}, upcasters=STEPS)
    assert found == Named(name="x", lang="en")


def test_a_newer_version_says_to_upgrade() -> None:
    with pytest.raises(InputError, match="Upgrade") as caught:
        payload_of(_named(5, name="x"), known={"thing.named": Named}, upcasters=STEPS)
    assert caught.value.code == "event.too_new"


def test_an_unknown_type_is_nothing_here() -> None:
    assert payload_of(_named(1, whatever=1)) is None


def test_a_malformed_payload_is_named() -> None:
    event = _named(1, name="n").model_copy(update={"type": TagMoved.TYPE})
    with pytest.raises(IntegrityError, match=r"Event 1 \(tag.moved\)"):
        payload_of(event)


def test_every_older_version_has_an_upcaster() -> None:
    missing = [
        (name, version)
        for name, model in EVENTS.items()
        for version in range(1, model.READS_FROM)
        if (name, version) not in UPCASTERS
    ]
    assert missing == []


def test_a_publication_before_a_field_was_added_is_not_parsed_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A registry holds a million of them; each parsed whole takes ten times as long."""
    told = {"digest": "ab" * 32, "kind": "dataset", "form": "blob", "size": 1, "origin": "imported"}
    event = _named(1, **told).model_copy(update={"type": ArtifactPublished.TYPE})
    (line,) = scan(encode_line(event)[0], START).complete
    monkeypatch.setattr(ArtifactPublished, "VERSION", 2)
    monkeypatch.setattr(fold, "payload_of", lambda _: pytest.fail("parsed whole"))
    state = State()
    state.take(line)
    assert (state.seq, list(state.artifacts)) == (1, ["ab" * 32])
