from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stillhouse.cli.daemon import daemon, inbox
from stillhouse.cli.daemon.daemon import watch
from stillhouse.notices import Refusal, Watcher
from stillhouse.phases.reactor.reactor import Notice, Reactor
from stillhouse.publish import publish_policy
from stillhouse.registry.home import Home
from stillhouse.registry.ledger.ledger import LedgerReader
from stillhouse.registry.state.state import State
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.errors import InputError, StorageError
from stillhouse.schemas.events import ArtifactPublished, PlanRequested, TagMoved
from stillhouse.session import Session
from stillhouse.store.disk.hashing import hash_bytes
from stillhouse.store.objects.local import BlobStore

from .conftest import Still
from .recorded import Recorder


@pytest.fixture(autouse=True)
def _settle_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "SETTLE_SECONDS", 0.05)


def test_watch_once_publishes_what_lies_in_the_inbox(still: Still, home: Home) -> None:
    (home.inbox / "source" / "prompts.jsonl").write_text("{}", encoding="utf-8")
    answer = still("watch", "--once")
    assert answer.code == 0
    assert [row[:2] for row in answer.rows if "prompts.jsonl" in row[1]] != []
    assert still("ls", "--kind", "source", "--json").json[0]["name"] == "prompts.jsonl"


def test_a_refused_drop_is_told_with_its_path_and_ends_with_1(still: Still, home: Home) -> None:
    (home.inbox / "policy" / "bad.toml").write_text("name = ", encoding="utf-8")
    answer = still("watch", "--once")
    assert answer.code == 1
    assert "bad.toml" in answer.err
    assert "Next:" in answer.err
    told = [json.loads(line) for line in still("watch", "--once", "--json").out.splitlines()]
    (refused,) = [t["refused"] for t in told if "refused" in t]
    assert refused["code"] == "policy.bad_toml"
    assert refused["path"].endswith("bad.toml")


def test_a_folder_of_no_kind_is_told_with_the_kinds_there_are(still: Still, home: Home) -> None:
    wrong = home.inbox / "checkpoints"
    (wrong / "mine").mkdir(parents=True)
    (wrong / "mine" / "config.json").write_text("{}", encoding="utf-8")
    (home.inbox / "source" / "prompts.jsonl").write_text("{}", encoding="utf-8")
    answer = still("watch", "--once")
    assert answer.code == 1
    assert answer.err.count("checkpoints") == 2  # what was refused, and why
    assert "checkpoint, " in answer.err
    assert still("ls", "--kind", "source", "--json").json[0]["name"] == "prompts.jsonl"
    told = [json.loads(line) for line in still("watch", "--once", "--json").out.splitlines()]
    assert [t["refused"]["code"] for t in told if "refused" in t] == ["inbox.no_kind"]


@dataclass
class Watched(Watcher):
    """`watch` over a real registry, in this process, and what it told."""

    session: Session
    complaints: list[tuple[str, str]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    draws: int = 0
    at_draw: Callable[[], None] = lambda: None
    listener: Callable[[Any], None] = lambda _: None

    def __call__(
        self, *, once: bool = True, listener: Callable[[Any], None] = lambda _: None
    ) -> bool:
        """Run it; what it returns."""
        self.listener = listener
        return watch(self.session, self, once=once, poll=0.05)

    def follow(self, reactor: Reactor) -> None:
        self.reactor = reactor

    def hear(self, notice: Notice) -> None:
        self.listener(notice)

    def refused(self, refusal: Refusal) -> None:
        self.complaints.append((refusal.path.name, refusal.error.code))

    def note(self, text: str) -> None:
        self.told.append(text)

    def draw(self) -> None:
        self.draws += 1
        assert self.draws < 500, "it does not come to an end"
        self.at_draw()


@pytest.fixture
def watched(session: Session) -> Watched:
    return Watched(session)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_who_only_looks_whether_the_registry_is_advanced_is_no_reason_to_give_up(
    watched: Watched, session: Session
) -> None:
    lock = session.home.reactor_lock
    with lock.open("w") as probe:
        fcntl.flock(probe, fcntl.LOCK_SH)
        watched.at_draw = probe.close
        assert watched()


def test_beside_another_advancer_once_gives_up_and_says_who_it_is(
    watched: Watched, session: Session
) -> None:
    with session.reactor().advancing() as mine:
        assert mine
        with pytest.raises(InputError) as caught:
            watched()
    assert caught.value.code == "watch.busy"
    assert caught.value.message.startswith(f"Process {os.getpid()} is advancing")


def test_told_to_stop_it_says_how_many_runs_go_on_without_it(
    watched: Watched, session: Session, place: Path, policy: Path
) -> None:
    recorder = Recorder(session, place, going_on={"export/prefill-8"})
    recorder.run(recorder.plan(policy, export={"prefill": [8], "primary": 8}))
    (run,) = session.state().running()
    session.home.run(run.key).mkdir()
    with session.home.run_lock(run.key).open("w") as worker:
        fcntl.flock(worker, fcntl.LOCK_EX)
        watched.at_draw = _stop
        assert watched(once=False)
    (told,) = watched.told
    assert told.startswith("Runs that go on")
    assert told.endswith(": 1.")


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk with room for nothing, so many times as the one number says."""
    times = [0]
    put = BlobStore.put_file

    def meet(store: BlobStore, *args: Any, **how: Any) -> Any:
        if times[0]:
            times[0] -= 1
            raise StorageError("The disk is full.", remedy="Make room.", code="store.full")
        return put(store, *args, **how)

    monkeypatch.setattr(BlobStore, "put_file", meet)
    monkeypatch.setattr(inbox, "_FIRST_PAUSE", 0.02)
    return times


def test_what_met_a_full_disk_is_told_once_and_taken_when_there_is_room(
    watched: Watched, home: Home, full_disk: list[int]
) -> None:
    full_disk[0] = 3
    (home.inbox / "source" / "a").write_text("x", encoding="utf-8")

    def hear(notice: Any) -> None:
        if notice.type == ArtifactPublished.TYPE and notice.data["kind"] == Kind.SOURCE:
            _stop()

    assert watched(once=False, listener=hear)
    assert watched.complaints == [("a", "store.full")]
    assert [p.fact.name for p in watched.session.state().artifacts[_digest(b"x")]] == ["a"]


def test_once_does_not_wait_for_room_on_a_full_disk_and_says_that_it_is_not_done(
    watched: Watched, home: Home, full_disk: list[int]
) -> None:
    full_disk[0] = 1_000_000
    (home.inbox / "source" / "a").write_text("x", encoding="utf-8")
    assert not watched()
    assert watched.complaints == [("a", "store.full")]


@pytest.mark.parametrize("before", [True, False])
def test_told_to_stop_at_a_dropped_file_it_does_not_read_it_to_the_end(
    watched: Watched, home: Home, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    (home.inbox / "source" / "a").write_text("x", encoding="utf-8")
    put, whole = BlobStore.put_file, daemon._require_whole
    read: list[Any] = []

    def reading(store: BlobStore, *args: Any, **how: Any) -> Any:
        _stop()
        read.append(put(store, *args, **how))
        return read[-1]

    def looking(item: inbox.Item) -> None:
        _stop()
        whole(item)

    monkeypatch.setattr(BlobStore, "put_file", reading)
    if before:  # while nothing could be given up
        monkeypatch.setattr(daemon, "_require_whole", looking)
        monkeypatch.setattr(BlobStore, "put_file", lambda *_, **__: read.append(1))
    assert watched(once=False)
    assert read == []
    assert watched.complaints == []


def test_a_session_and_its_reactor_fold_one_state(session: Session) -> None:
    session.state()
    heard: list[Any] = []
    reactor = session.reactor(heard.append)
    session.ledger.append([TagMoved(name="t", digest="ab" * 32)])
    assert session.state() is reactor.state
    assert session.state().tags == {"t": "ab" * 32}
    assert [notice.type for notice in heard] == [TagMoved.TYPE]


def _digest(data: bytes) -> str:
    return hash_bytes(data).digest


def test_told_to_stop_while_it_reads_events_it_has_folded_every_one(
    watched: Watched, home: Home, policy: Path
) -> None:
    """Two recipes: between the two, the request of the first is folded with the second."""
    named = publish_policy(watched.session, policy).digest
    weights = ArtifactPublished(
        digest="ab" * 32, kind=Kind.CHECKPOINT, form="blob", size=1, origin="imported"
    )
    watched.session.ledger.append([weights])
    for name in ("one", "two"):
        (home.inbox / "recipe" / f"{name}.toml").write_text(
            f'name = "{name}"\npolicy = "{named}"\n'
            f'given = {{checkpoint = "{weights.digest}"}}\n'
            "export = {prefill = [8], primary = 8}\n",
            encoding="utf-8",
        )

    def hear(notice: Any) -> None:
        if notice.type == PlanRequested.TYPE and not stopped:
            stopped.append(notice)
            _stop()

    stopped: list[Any] = []
    assert watched(listener=hear)
    assert stopped
    assert watched.complaints == []
    watched.reactor.refresh()
    fresh = State().follow(LedgerReader(home.log))
    assert watched.reactor.state.artifacts.keys() == fresh.artifacts.keys()
    assert watched.reactor.state.requested == fresh.requested
