"""A ledger written by the first version. It must load for ever; never write it anew."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stillhouse.registry.ledger.format import encode_line
from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.registry.projection.projection import Projection
from stillhouse.registry.state.state import State
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import EVENTS
from stillhouse.schemas.upcast import payload_of

from .documented import OF_THE_PROJECTION

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
    assert projection.query(OF_THE_PROJECTION).rows == ((0,),)


SECOND = GOLDEN.with_name("events-v2.log")
SECOND_HEAD = "15eb082bbcc9c41cbf31884d44321d96bf581cf12fa3357dc255aa751233338d"


@pytest.fixture
def second(tmp_path: Path) -> Ledger:
    """The types that came with cancellation, limits and retention. As unchangeable as the first."""
    shutil.copy(SECOND, tmp_path / "events.log")
    return Ledger(
        tmp_path / "events.log",
        lambda: datetime(2027, 1, 1, tzinfo=UTC),
        Actor(user="ada", host="h"),
    )


def test_the_second_verifies_reads_and_encodes_to_the_same_bytes(second: Ledger) -> None:
    audit = second.audit()
    assert (audit.fault, audit.events, audit.head.hash) == (None, 21, SECOND_HEAD)
    events = list(second.read())
    assert all(payload_of(event) is not None for event in events)
    assert {"plan.cancelled", "run.cancelled", "bytes.swept", "run.differed"} <= {
        event.type for event in events
    }
    assert b"".join(encode_line(event)[0] for event in events) == SECOND.read_bytes()


def test_the_second_folds_and_projects(second: Ledger, tmp_path: Path) -> None:
    state = State().apply_all(second.read())
    (run,) = state.runs.values()
    assert (run.status, run.attempts, run.failures, run.cancelled_seq) == ("succeeded", 3, 0, 0)
    (plan,) = state.wanted()
    assert (state.priorities[plan], state.dropped[plan] > 0) == (0, True)
    assert (set(state.absent), state.condemned) == ({"13" * 32}, {})
    projection = Projection(tmp_path / "registry.duckdb", second.path)
    found = projection.query("SELECT status, attempt, cancelled FROM runs").rows
    assert found == (("succeeded", 3, False),)
    assert projection.query(OF_THE_PROJECTION).rows == ((0,),)
