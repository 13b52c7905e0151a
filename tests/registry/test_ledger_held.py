"""A Ledger keeps its file open and remembers its last line; what that must not make it miss."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.registry.ledger import format as chain
from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.schemas import canonical
from stillhouse.schemas.errors import InputError, IntegrityError, StorageError
from stillhouse.schemas.event import GENESIS, Actor, Event
from stillhouse.schemas.events import GateWaived, TagMoved

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SOMEONE = Actor(user="ada", host="still-1")
FORKING = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.log"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    return opened(path)


def opened(path: Path, *secrets: str) -> Ledger:
    return Ledger(path, lambda: NOON, SOMEONE, secrets=secrets)


def tag(name: str) -> TagMoved:
    return TagMoved(name=name, digest="ab" * 32)


def names(path: Path) -> list[str]:
    """What was tagged, in order, if the whole log verifies."""
    audit = opened(path).audit()
    assert (audit.fault, audit.torn) == (None, 0)
    return [event.data["name"] for event in opened(path).read()]


# --- others write to the same file ----------------------------------------------------------------


def test_two_that_take_turns_make_one_chain(path: Path) -> None:
    one, other = opened(path), opened(path)
    for number in range(6):
        (one, other)[number % 2].append(
            [tag(f"{number}-{place}") for place in range(number % 3 + 1)]
        )
    assert names(path) == [
        "0-0",
        "1-0",
        "1-1",
        "2-0",
        "2-1",
        "2-2",
        "3-0",
        "4-0",
        "4-1",
        "5-0",
        "5-1",
        "5-2",
    ]


def test_much_that_others_wrote_meanwhile_is_followed(path: Path) -> None:
    one, other = opened(path), opened(path)
    one.append([tag("a")])
    other.append([tag("x" * 9000) for _ in range(20)])
    assert one.append([tag("b")])[0].seq == 22
    assert len(names(path)) == 22


def test_a_match_before_its_own_last_line_withholds_all_the_same(path: Path) -> None:
    one, other = opened(path), opened(path)
    one.append([tag("a")])
    other.append([tag("b")])
    one.append([tag("c")])
    done = one.append([tag("d")], since=1, unless=lambda event: event.data["name"] == "b")
    assert done == ()
    assert names(path) == ["a", "b", "c"]


@pytest.mark.parametrize("kept", [1, -1], ids=["a byte", "all but a byte"])
def test_what_another_left_torn_is_dropped(path: Path, ledger: Ledger, kept: int) -> None:
    ledger.append([tag("a")])
    end = path.stat().st_size
    opened(path).append([tag("lost"), tag("lost too")])
    whole = path.read_bytes()
    path.write_bytes(whole[: end + kept] if kept > 0 else whole[:kept])
    ledger.append([tag("b")])
    assert names(path) == ["a", "b"]


def test_damage_that_another_added_is_refused(path: Path, ledger: Ledger) -> None:
    ledger.append([tag("a")])
    damaged = path.read_bytes() + b"0" * 64 + b"\t{}\n"
    path.write_bytes(damaged)
    with pytest.raises(IntegrityError) as caught:
        ledger.append([tag("b")])
    assert caught.value.code == "ledger.broken"
    assert path.read_bytes() == damaged


def test_a_clock_behind_that_of_another_does_not_go_back(path: Path) -> None:
    ahead = Ledger(path, lambda: NOON.replace(hour=15), SOMEONE)
    behind = opened(path)
    behind.append([tag("a")])
    ahead.append([tag("b")])
    (event,) = behind.append([tag("c")])
    assert event.ts == "2026-11-22T15:00:00.000000Z"


# --- its own last line ----------------------------------------------------------------------------


def edited(log: bytes) -> bytes:
    return log.replace(b'"name":"b"', b'"name":"c"')


def hashed_anew(log: bytes) -> bytes:
    first, second = log.splitlines(keepends=True)
    body = edited(second)[65:-1]
    return first + hashlib.sha256(body).hexdigest().encode() + b"\t" + body + b"\n"


def cut(log: bytes) -> bytes:
    return log.splitlines(keepends=True)[0]


@pytest.mark.parametrize("replaced", [False, True], ids=["in place", "by another file"])
@pytest.mark.parametrize(
    ("tamper", "code"),
    [
        (edited, "ledger.broken"),
        (hashed_anew, "ledger.cut"),
        (cut, "ledger.cut"),
        (lambda _: b"", "ledger.cut"),
    ],
)
def test_a_log_that_lost_what_was_recorded_is_never_extended(
    path: Path, ledger: Ledger, tamper: Callable[[bytes], bytes], code: str, *, replaced: bool
) -> None:
    ledger.append([tag("a")])
    ledger.append([tag("b")])
    tampered = tamper(path.read_bytes())
    if replaced:
        path.unlink()
    path.write_bytes(tampered)
    for _ in range(2):
        with pytest.raises(IntegrityError) as caught:
            ledger.append([tag("d")])
        assert caught.value.code == code
    assert path.read_bytes() == tampered


def test_a_log_that_is_gone_is_not_begun_anew(path: Path, ledger: Ledger) -> None:
    ledger.append([tag("a")])
    path.unlink()
    with pytest.raises(IntegrityError, match="no longer holds event 1"):
        ledger.append([tag("b")])
    assert path.read_bytes() == b""


def test_a_log_restored_from_a_copy_is_extended_and_the_old_file_is_not(
    path: Path, ledger: Ledger
) -> None:
    ledger.append([tag("a")])
    old = path.with_name("old")
    path.rename(old)
    shutil.copy(old, path)
    assert ledger.append([tag("b")])[0].seq == 2
    opened(path).append([tag("c")])
    ledger.append([tag("d")])
    assert names(path) == ["a", "b", "c", "d"]
    assert names(old) == ["a"]


def descriptors() -> int:
    """How many this process has open."""
    return sum(1 for _ in Path("/dev/fd").iterdir())


def test_files_that_were_replaced_are_let_go(path: Path, ledger: Ledger) -> None:
    ledger.append([tag("a")])
    before = descriptors()
    for _ in range(5):
        shutil.copy(path, path.with_name("copy"))
        path.with_name("copy").replace(path)
        ledger.append([tag("b")])
    assert descriptors() == before


# --- threads, forks, failures ---------------------------------------------------------------------


def test_threads_that_share_a_ledger_exclude_each_other(path: Path, ledger: Ledger) -> None:
    acknowledged: list[int] = []

    def append_some() -> None:
        for number in range(20):
            acknowledged.extend(event.seq for event in ledger.append([tag(f"{number}")] * 2))

    threads = [threading.Thread(target=append_some) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(acknowledged) == list(range(1, 241))
    assert len(names(path)) == 240


@FORKING
def test_a_forked_child_excludes_its_parent(path: Path, ledger: Ledger) -> None:
    ledger.append([tag("before")])
    child = os.fork()
    who = "parent" if child else "child"
    try:
        for _ in range(60):
            ledger.append([tag(who)])
    except BaseException:
        if not child:
            os._exit(1)
        raise
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    found = names(path)
    assert (found.count("parent"), found.count("child")) == (60, 60)


@FORKING
def test_a_child_forked_while_a_thread_appends_can_append(path: Path, ledger: Ledger) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(_: Event) -> bool:
        entered.set()
        return not leave.wait(30)

    ledger.append([tag("a")])
    thread = threading.Thread(
        target=lambda: ledger.append([tag("b")], since=0, unless=slow), daemon=True
    )
    thread.start()
    assert entered.wait(30)
    child = os.fork()
    if not child:
        ledger.append([tag("of the child")])  # waits for the parent's thread
        os._exit(0)
    leave.set()
    thread.join(30)
    assert os.waitpid(child, 0)[1] == 0
    assert names(path) == ["a", "b", "of the child"]


def test_whatever_fails_under_the_lock_lets_others_in(path: Path, ledger: Ledger) -> None:
    ledger.append([tag("a")])

    def fail(_: Event) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ledger.append([tag("b")], since=0, unless=fail)
    done = threading.Thread(target=opened(path).append, args=([tag("c")],), daemon=True)
    done.start()
    done.join(20)
    assert names(path) == ["a", "c"]


def test_a_failed_sync_that_the_kernel_tells_one_thread_is_told_to_all(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.append([tag("good")])
    first_syncs, second_wrote = threading.Event(), threading.Event()
    calls: list[int] = []
    pwrite = os.pwrite

    def told_once(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 1:
            first_syncs.set()
            assert second_wrote.wait(20)
            raise OSError(5, "Input/output error")

    def noted(fd: int, data: bytes, offset: int) -> int:
        if first_syncs.is_set():
            second_wrote.set()
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "fdatasync", told_once)
    monkeypatch.setattr(os, "pwrite", noted)
    refused: list[str] = []

    def append(name: str) -> None:
        try:
            ledger.append([tag(name)])
        except StorageError as error:
            refused.append(error.code)

    threads = [threading.Thread(target=append, args=(name,)) for name in "ab"]
    threads[0].start()
    assert first_syncs.wait(20)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert sorted(refused) == ["ledger.not_durable", "ledger.poisoned"]


def test_a_device_that_cannot_sync_acknowledges_nothing() -> None:
    ledger = opened(Path("/dev/null"))
    for code in ("ledger.not_durable", "ledger.poisoned"):
        with pytest.raises(StorageError) as caught:
            ledger.append([tag("x")])
        assert caught.value.code == code


# --- what is encoded before the lock --------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FACTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e9, 1e9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(
    data=st.dictionaries(TEXT, FACTS, max_size=4),
    user=TEXT,
    host=TEXT,
    run=st.none() | st.just("ab" * 32),
)
def test_a_line_is_the_canonical_form_of_the_whole_event(
    data: dict[str, object], user: str, host: str, run: str | None
) -> None:
    event = Event(
        seq=7,
        prev=GENESIS,
        ts="2026-11-22T12:00:00.000000Z",
        type="tag.praised",
        v=3,
        actor=Actor(user=user, host=host, run=run),
        batch="2/3",
        data=data,
    )
    line, digest = chain.encode_line(event)
    body = canonical.encode(event.to_json())
    assert line == digest.encode() + b"\t" + body + b"\n"
    assert digest == hashlib.sha256(body).hexdigest()
    (read,) = chain.scan_middle(line, 0).torn
    assert read.event() == event


def waiver(reason: str) -> GateWaived:
    return GateWaived(gate="g", subject="ab" * 32, author="ada", reason=reason, until="2027")


@pytest.mark.parametrize(
    "reason", ["see https://ada:hunter2@hub.example/x", "the token is hunter2-hunter2, you know"]
)
def test_an_event_that_holds_a_secret_is_refused_and_the_secret_is_not_told(
    path: Path, reason: str
) -> None:
    ledger = opened(path, "hunter2-hunter2")
    ledger.append([waiver("none")])
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        ledger.append([tag("fine"), waiver(reason)])
    assert caught.value.code == "ledger.secret"
    assert "hunter2" not in str(caught.value)
    assert "gate.waived" in str(caught.value)
    assert path.read_bytes() == before


def test_a_url_without_userinfo_is_recorded(path: Path) -> None:
    opened(path, "hunter2-hunter2").append([waiver("https://hub.example/x, ask ada@example.org")])
    assert opened(path).audit().events == 1
