"""A ledger written by the first version. It must load for ever; never write it anew."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry.chain import encode_line
from registry.fold import State
from registry.ledger import Ledger
from registry.projection import Projection
from schemas.event import Actor
from schemas.events import EVENTS
from schemas.upcast import payload_of

GOLDEN = Path(__file__).parents[1] / "golden" / "events-v1.log"
HEAD = "1c6c155d14ab2b8996f3be324ad2872f85cb36f51928d6e2d15e6c3ebe160243"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    shutil.copy(GOLDEN, tmp_path / "events.log")
    return Ledger(
        tmp_path / "events.log",
        lambda: datetime(2027, 1, 1, tzinfo=UTC),
        Actor(user="ada", host="h"),
    )


def test_it_verifies(ledger: Ledger) -> None:
    audit = ledger.audit()
    assert (audit.fault, audit.torn, audit.events) == (None, 0, 21)
    assert audit.head.hash == HEAD


def test_every_type_of_the_first_version_still_reads(ledger: Ledger) -> None:
    events = list(ledger.read())
    known = [event for event in events if payload_of(event) is not None]
    assert {event.type for event in events} - {event.type for event in known} == {"tag.praised"}
    assert len({event.type for event in known}) == 12
    assert {event.type for event in known} <= set(EVENTS)


def test_it_encodes_to_the_same_bytes(ledger: Ledger) -> None:
    lines = [encode_line(event)[0] for event in ledger.read()]
    assert b"".join(lines) == GOLDEN.read_bytes()


def test_it_folds_projects_and_grows(ledger: Ledger, tmp_path: Path) -> None:
    state = State().apply_all(ledger.read())
    assert (state.seq, state.tags["best"]) == (21, "44" * 32)
    (event,) = ledger.append(
        [EVENTS["tag.moved"].model_validate({"name": "x", "digest": "44" * 32})]
    )
    assert (event.seq, event.prev) == (22, HEAD)
    projection = Projection(tmp_path / "registry.duckdb", ledger.path)
    counts = projection.query(
        "SELECT (SELECT count(*) FROM artifacts), (SELECT count(*) FROM edge), "
        "(SELECT count(*) FROM gate), (SELECT count(*) FROM metrics), (SELECT count(*) FROM event)"
    )
    assert counts.rows == ((6, 6, 1, 2, 22),)
    assert projection.query("SELECT status, seconds FROM runs").rows == (("succeeded", 160.5),)
    assert projection.query("audit").rows == ((0,),)
