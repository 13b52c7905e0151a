"""The ledger as its users meet it: append, read, follow, refuse."""

from __future__ import annotations

import hashlib
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stillhouse.registry.ledger import file as logfile
from stillhouse.registry.ledger.ledger import Ledger, LedgerReader, events_at
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.schemas.event import GENESIS, MAX_EVENT_BYTES, Actor, Event
from stillhouse.schemas.events import ArtifactPublished, Payload, TagMoved
from stillhouse.schemas.plain import plain

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SOMEONE = Actor(user="ada", host="still-1")


class Clock:
    """Stands still until told otherwise."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def published(number: int, **facts: object) -> ArtifactPublished:
    return ArtifactPublished(
        digest=f"{number:064x}",
        kind=Kind.DATASET,
        form="blob",
        size=number,
        origin="imported",
        facts=facts,
    )


def tag(name: str, number: int) -> TagMoved:
    return TagMoved(name=name, digest=f"{number:064x}")


def started_later(path: Path) -> Ledger:
    """The ledger of a program that recorded nothing yet."""
    return Ledger(path, lambda: NOON, SOMEONE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.log"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(path: Path, clock: Clock) -> Ledger:
    return Ledger(path, clock, SOMEONE)


def test_what_is_appended_is_what_is_read(ledger: Ledger) -> None:
    first = ledger.append([published(1, note="é ☃"), tag("best", 1)])
    second = ledger.append([published(2)])
    assert tuple(ledger.read()) == first + second
    assert tuple(ledger.read(after=2)) == second
    assert [event.seq for event in first + second] == [1, 2, 3]
    assert [event.batch for event in first + second] == ["1/2", "2/2", "1/1"]
    assert first[0].prev == GENESIS


def test_nothing_is_read_where_nothing_was_written(ledger: Ledger) -> None:
    assert list(ledger.read()) == []
    assert (ledger.head().seq, ledger.head().hash) == (0, GENESIS)
    assert ledger.audit().events == 0


def test_a_round_trip_changes_no_byte(ledger: Ledger, path: Path) -> None:
    ledger.append([published(1, nothing=None, whole=1.0, nested=[{"x": None}])])
    before = path.read_bytes()
    (event,) = ledger.read()
    other = Ledger(path.with_name("copy.log"), lambda: NOON, event.actor)
    other.append([ArtifactPublished.model_validate(event.data)])
    assert path.with_name("copy.log").read_bytes() == before


def test_the_runs_key_is_on_the_events_of_its_outcome(ledger: Ledger) -> None:
    (event,) = ledger.append([published(1)], run="ab" * 32)
    assert event.actor == Actor(user="ada", host="still-1", run="ab" * 32)
    (event,) = ledger.append([published(2)])
    assert event.actor == SOMEONE


def test_a_clock_set_back_does_not_make_events_older(ledger: Ledger, clock: Clock) -> None:
    (first,) = ledger.append([published(1)])
    clock.now = NOON - timedelta(hours=3)
    (second,) = ledger.append([published(2)])
    clock.now = NOON + timedelta(microseconds=1)
    (third,) = ledger.append([published(3)])
    assert first.ts == second.ts == "2026-11-22T12:00:00.000000Z"
    assert third.ts == "2026-11-22T12:00:00.000001Z"


def test_an_event_that_is_too_large_leaves_nothing(ledger: Ledger) -> None:
    ledger.append([published(1)])
    with pytest.raises(InputError, match="store") as caught:
        ledger.append([published(2), published(3, blob="x" * MAX_EVENT_BYTES)])
    assert caught.value.code == "ledger.event_too_large"
    assert [event.seq for event in ledger.read()] == [1]


def test_a_missing_registry_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "nowhere" / "events.log", lambda: NOON, SOMEONE)
    with pytest.raises(InputError, match="still init"):
        ledger.append([published(1)])


def test_an_empty_append_is_a_mistake_of_the_caller(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="payload"):
        ledger.append([])


# --- since / unless ---------------------------------------------------------------------------


def _is_dataset(number: int, event: Event) -> bool:
    return event.data.get("digest") == f"{number:064x}"


def test_an_append_is_withheld_when_another_was_first(path: Path) -> None:
    one, two = (Ledger(path, lambda: NOON, SOMEONE) for _ in range(2))
    one.append([published(1)])
    seen = two.head().seq
    assert one.append([published(7)], since=seen, unless=lambda e: _is_dataset(7, e))
    assert two.append([published(7)], since=seen, unless=lambda e: _is_dataset(7, e)) == ()
    assert [event.seq for event in one.read()] == [1, 2]


def test_an_older_match_does_not_withhold(ledger: Ledger) -> None:
    ledger.append([published(7)])
    assert ledger.append([tag("x", 7)], since=1, unless=lambda e: _is_dataset(7, e))


def test_a_match_far_before_the_tail_window_is_seen(ledger: Ledger) -> None:
    ledger.append([published(7)])
    for number in range(60):
        ledger.append([published(100 + number, padding="x" * 1000)])
    assert ledger.append([tag("x", 7)], since=0, unless=lambda e: _is_dataset(7, e)) == ()


def test_of_many_threads_that_race_exactly_one_starts(ledger: Ledger) -> None:
    ledger.append([published(1)])
    started: list[tuple[Event, ...]] = []

    def race() -> None:
        started.append(ledger.append([published(7)], since=1, unless=lambda e: _is_dataset(7, e)))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(map(len, started)) == 1
    assert ledger.head().seq == 2


def test_since_beyond_the_end_means_the_log_was_cut(ledger: Ledger) -> None:
    ledger.append([published(1)])
    with pytest.raises(IntegrityError) as caught:
        ledger.append([published(2)], since=5, unless=lambda _: False)
    assert caught.value.code == "ledger.cut"


# --- following --------------------------------------------------------------------------------


def test_a_reader_gives_each_event_once(ledger: Ledger, path: Path) -> None:
    reader = LedgerReader(path)
    assert reader.new_events() == ()
    first = ledger.append([published(1)])
    assert reader.new_events() == first
    assert reader.new_events() == ()
    second = ledger.append([published(2), published(3)])
    assert reader.new_events() == second
    assert reader.position == ledger.head()


def test_a_reader_waits_for_the_whole_batch(ledger: Ledger, path: Path) -> None:
    events = ledger.append([published(1), published(2), published(3)])
    whole = path.read_bytes()
    reader = LedgerReader(path)
    for cut in range(0, len(whole), 11):
        path.write_bytes(whole[:cut])
        assert reader.new_events() == ()
    path.write_bytes(whole)
    assert reader.new_events() == events


def test_a_reader_resumes_from_a_position(ledger: Ledger, path: Path) -> None:
    ledger.append([published(1)])
    position = ledger.head()
    second = ledger.append([published(2)])
    assert LedgerReader(path, position).new_events() == second


def test_events_are_found_by_their_numbers(ledger: Ledger, path: Path) -> None:
    events = ledger.append([published(n) for n in range(3)])
    assert events_at(path, {1, 3, 9}) == {1: events[0], 3: events[2]}
    path.write_bytes(b"not read when nothing is wanted\n")
    assert events_at(path, ()) == {}


def test_a_reader_notices_that_the_log_was_cut(ledger: Ledger, path: Path) -> None:
    ledger.append([published(1)])
    ledger.append([published(2)])
    reader = LedgerReader(path)
    reader.new_events()
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(IntegrityError, match="cut off") as caught:
        reader.new_events()
    assert caught.value.code == "ledger.cut"
    path.unlink()
    with pytest.raises(IntegrityError, match="cut off"):
        reader.new_events()


def test_a_batch_longer_than_a_block_is_read(ledger: Ledger) -> None:
    payloads: list[Payload] = [published(n, padding="x" * 60_000) for n in range(90)]
    events = ledger.append(payloads)
    assert tuple(ledger.read()) == events
    assert ledger.append([published(91)])[0].seq == 91


# --- torn, broken -----------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
def test_a_torn_tail_is_dropped_by_the_next_append(ledger: Ledger, path: Path, batch: int) -> None:
    kept = ledger.append([published(1)])
    whole = path.read_bytes()
    ledger.append([published(n) for n in range(2, 2 + batch)])
    longer = path.read_bytes()
    for cut in range(len(whole), len(longer), 37):
        path.write_bytes(longer[:cut])
        assert tuple(ledger.read()) == kept
        assert ledger.audit().torn == cut - len(whole)
        (event,) = started_later(path).append([published(9)])
        assert tuple(ledger.read()) == (*kept, event)
        assert ledger.audit().torn == 0


def test_an_incomplete_batch_larger_than_the_tail_window_is_dropped(
    ledger: Ledger, path: Path
) -> None:
    kept = ledger.append([published(1)])
    ledger.append([published(n, padding="x" * 5000) for n in range(20)])
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    (event,) = started_later(path).append([published(9)])
    assert tuple(ledger.read()) == (*kept, event)


def test_a_first_batch_that_is_torn_leaves_an_empty_ledger(ledger: Ledger, path: Path) -> None:
    ledger.append([published(1), published(2)])
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert list(ledger.read()) == []
    assert started_later(path).append([published(3)])[0].seq == 1


@pytest.mark.parametrize("line", [1, 5, 10])
@pytest.mark.parametrize("column", [0, 64, 65, 200])
def test_a_changed_byte_is_located(ledger: Ledger, path: Path, line: int, column: int) -> None:
    for number in range(1, 11):
        ledger.append([published(number)])
    lines = path.read_bytes().splitlines(keepends=True)
    offset = sum(map(len, lines[: line - 1]))
    damaged = bytearray(path.read_bytes())
    damaged[offset + column] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(IntegrityError, match=rf"event {line} \(byte {offset} ") as caught:
        list(ledger.read())
    assert caught.value.code == "ledger.broken"
    audit = ledger.audit()
    assert audit.events == line - 1
    assert audit.fault is not None


def test_what_an_audit_says_as_json(ledger: Ledger, path: Path) -> None:
    ledger.append([published(1)])
    head = ledger.head()
    said = {"events": 1, "head": {"seq": 1, "hash": head.hash}, "torn_bytes": 7, "fault": None}
    path.write_bytes(path.read_bytes() + b"x" * 7)
    assert plain(ledger.audit()) == said
    path.write_bytes(path.read_bytes() + b"\n")
    broken = plain(ledger.audit())
    assert broken["fault"]["code"] == "ledger.broken"
    assert broken == said | {"torn_bytes": 0, "fault": broken["fault"]}


def test_a_complete_last_line_with_a_bad_hash_is_refused_not_dropped(
    ledger: Ledger, path: Path
) -> None:
    ledger.append([published(1)])
    ledger.append([published(2)])
    damaged = path.read_bytes()[:-3] + b"x}\n"
    path.write_bytes(damaged)
    with pytest.raises(IntegrityError):
        ledger.append([published(3)])
    assert path.read_bytes() == damaged


def test_a_removed_or_exchanged_line_is_found(ledger: Ledger, path: Path) -> None:
    for number in range(1, 6):
        ledger.append([published(number)])
    lines = path.read_bytes().splitlines(keepends=True)
    for tampered in (lines[:1] + lines[2:], [lines[0], lines[2], lines[1], *lines[3:]], lines[1:]):
        path.write_bytes(b"".join(tampered))
        with pytest.raises(IntegrityError) as caught:
            list(ledger.read())
        assert caught.value.code == "ledger.broken"


def rechain(path: Path, *changes: tuple[int, bytes, bytes]) -> None:
    """Change events and make every hash right again, as a forger would.

    Each change: event, what, by what.
    """
    forged, prev = [], GENESIS.encode()
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        body = line[65:]
        start = body.rindex(b'"prev":"') + 8
        body = body[:start] + prev + body[start + 64 :]
        for event, old, new in changes:
            if event == number:
                assert old in body
                body = body.replace(old, new)
        prev = hashlib.sha256(body).hexdigest().encode()
        forged.append(prev + b"\t" + body + b"\n")
    path.write_bytes(b"".join(forged))


@pytest.mark.parametrize(
    ("change", "at", "reason"),
    [
        ((1, b'"seq":1,', b'"seq":2,'), 1, "numbered 2"),
        ((3, b'"seq":3,', b'"seq":4,'), 3, "numbered 4"),
        ((1, b'"prev":"0', b'"prev":"1'), 1, "does not follow"),
        ((2, b'"batch":"1/2"', b'"batch":"1/1"'), 3, "incomplete"),
        ((3, b'"batch":"2/2"', b'"batch":"2/3"'), 3, "incomplete"),
        ((3, b'"batch":"2/2"', b'"batch":"1/1"'), 3, "incomplete"),
    ],
)
def test_a_forged_chain_that_does_not_count_or_link_is_refused(
    ledger: Ledger, path: Path, change: tuple[int, bytes, bytes], at: int, reason: str
) -> None:
    ledger.append([published(1)])
    ledger.append([published(2), published(3)])
    ledger.append([published(4)])
    rechain(path)
    assert ledger.audit().fault is None
    rechain(path, change)
    with pytest.raises(IntegrityError, match=rf"event {at} .*{reason}"):
        list(ledger.read())


def test_a_reader_that_met_a_bad_event_does_not_skip_what_came_before(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "BLOCK", 100)  # an event a block
    ledger.append([published(1)])
    ledger.append([published(2)])
    rechain(path, (2, b'"user":"ada"', b'"user":1234'))
    reader = LedgerReader(path)
    for _ in range(2):
        with pytest.raises(IntegrityError, match=r"event 2 .* not an event"):
            reader.new_events()
    assert reader.position.seq == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((b'"size":1', b'"size": 1'), "canonical"),
        ((b'"size":1', b'"size":1,"size":1'), "canonical"),
        ((b'"size":1', b'"size":01'), "not an event"),
        ((b'"seq":1', b'"seq":1,"surprise":1'), "form"),
        ((b'"batch":"1/1"', b'"batch":"2/1"'), "form"),
    ],
)
def test_a_foreign_line_is_found_by_the_audit_though_its_hash_is_right(
    ledger: Ledger, path: Path, change: tuple[bytes, bytes], reason: str
) -> None:
    ledger.append([published(1)])
    body = path.read_bytes()[65:-1].replace(*change)
    path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\t" + body + b"\n")
    fault = ledger.audit().fault
    assert fault is not None
    assert reason in fault.message


def test_what_looks_like_an_envelope_inside_a_payload_is_not_one(ledger: Ledger) -> None:
    spoof = '},"prev":"' + "0" * 64 + '","seq":9,"ts":"","type":"x","v":1}'
    events = ledger.append([published(1, text=spoof, prev={"prev": spoof})])
    other = Ledger(ledger.path, lambda: NOON, Actor(user='}{"\\', host='"},"batch":"9/9"'))
    events += other.append([published(2)])
    assert tuple(ledger.read()) == events
    assert ledger.audit().fault is None
