"""The daemon as it is left running: another process, real files, real signals.

It settles in a fifth of a second here instead of two, and nothing else is different.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stillhouse import publish
from stillhouse.registry.home import Home
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.events import TagMoved
from stillhouse.session import Session

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 60
SETTLE_SECONDS = 0.2
WATCH = f"""
import sys
from stillhouse.cli.daemon import inbox
from stillhouse.cli.main import main
inbox.SETTLE_SECONDS = {SETTLE_SECONDS}
sys.exit(main(["--registry", sys.argv[1], "watch", "--json", *sys.argv[2:]]))
"""


@dataclass
class Daemon:
    """A running `still watch --json`, and what it has told so far."""

    process: subprocess.Popen[str]
    told: list[dict[str, Any]] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)

    def published(self) -> list[str]:
        """Names of what was published by hand, in the order in which it was."""
        events = [line["event"] for line in self.told if "event" in line]
        return [
            event["data"]["name"]
            for event in events
            if event["type"] == "artifact.published" and event["data"]["origin"] == "imported"
        ]

    def refused(self) -> list[tuple[str, str]]:
        """(file name, error code) of what was refused."""
        found = [line["refused"] for line in self.told if "refused" in line]
        return [(Path(refused["path"]).name, refused["code"]) for refused in found]

    def end(self, number: signal.Signals) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(LIMIT_SECONDS)


def until(true: Callable[[], object]) -> None:
    """Wait for it. Raises AssertionError when it does not come."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def _listen(daemon: Daemon) -> None:
    assert daemon.process.stdout is not None
    for line in daemon.process.stdout:
        daemon.told.append(json.loads(line))


Start = Callable[..., Daemon]


@pytest.fixture
def source(home: Home) -> Path:
    return home.inbox / "source"


@pytest.fixture
def start(home: Home) -> Iterator[Start]:
    """`start(*arguments)` starts a daemon; every one is ended afterwards."""
    daemons: list[Daemon] = []
    threads: list[threading.Thread] = []

    def run(*arguments: str) -> Daemon:
        with (home.root.parent / "errors").open("a") as errors:
            process = subprocess.Popen(
                [sys.executable, "-c", WATCH, str(home.root), *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        daemons.append(Daemon(process))
        threads.append(threading.Thread(target=_listen, args=daemons[-1:]))
        threads[-1].start()
        return daemons[-1]

    yield run
    for daemon, thread in zip(daemons, threads, strict=True):
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()
        thread.join()
        assert daemon.process.stdout is not None
        daemon.process.stdout.close()


def _awake(daemon: Daemon, source: Path) -> None:
    """Wait until it takes what is dropped."""
    (source / "first").write_text("first", encoding="utf-8")
    until(lambda: "first" in daemon.published())


@pytest.mark.parametrize("how", [(), ("--poll", "0.1")])
def test_it_publishes_what_is_written_slowly_renamed_into_place_or_copied_file_by_file(
    start: Start, source: Path, session: Session, how: tuple[str, ...]
) -> None:
    daemon = start(*how)
    _awake(daemon, source)
    (source.parent / "made").write_text("made elsewhere", encoding="utf-8")
    (source.parent / "made").rename(source / "moved")
    (source / "folder").mkdir()
    with (source / "slow").open("w", encoding="utf-8") as slow:
        for place in range(8):
            slow.write(f"{place}\n")
            slow.flush()
            (source / "folder" / str(place)).write_text("x", encoding="utf-8")
            time.sleep(SETTLE_SECONDS / 2)
    until(lambda: set(daemon.published()) >= {"moved", "slow", "folder"})
    assert daemon.end(signal.SIGTERM) == 0
    assert Counter(daemon.published()).most_common(1)[0][1] == 1, "each once"
    facts = {f.fact.name: f.fact for found in session.state().artifacts.values() for f in found}
    assert facts["slow"].size == len("0\n") * 8
    assert facts["folder"].form == "tree"
    assert facts["folder"].size == len("x") * 8


def test_what_is_replaced_is_published_anew_and_what_is_touched_is_not(
    start: Start, source: Path
) -> None:
    daemon = start()
    _awake(daemon, source)
    (source / "first").write_text("other", encoding="utf-8")
    until(lambda: daemon.published() == ["first", "first"])
    (source / "first").touch()
    (source / "last").write_text("last", encoding="utf-8")
    until(lambda: "last" in daemon.published())
    assert daemon.published() == ["first", "first", "last"]


def test_what_is_refused_is_told_once_and_tried_again_when_it_changes(
    start: Start, source: Path, session: Session
) -> None:
    bad = source.parent / "policy" / "bad.toml"
    bad.write_text("name = ", encoding="utf-8")
    (source / "model").mkdir()
    (source / "model" / "weights.part").write_text("half", encoding="utf-8")
    (source / "link").symlink_to(bad)
    (source / os.fsdecode(b"caf\xe9")).write_text("x", encoding="utf-8")
    daemon = start()
    until(lambda: len(daemon.refused()) == 4)
    for place in range(20):  # turns
        session.ledger.append([TagMoved(name="t", digest=f"{place:064x}")])
        time.sleep(0.02)
    _awake(daemon, source)
    assert sorted(code for _, code in daemon.refused()) == [
        "file.symlink",
        "inbox.not_utf8",
        "inbox.unfinished",
        "policy.bad_toml",
    ]
    (source / "model" / "weights.part").rename(source / "model" / "weights")
    bad.write_text("name = [", encoding="utf-8")
    until(lambda: "model" in daemon.published())
    until(lambda: len(daemon.refused()) == 5)
    assert daemon.refused()[-1] == ("bad.toml", "policy.bad_toml")


def test_a_folder_that_goes_away_while_it_is_read_is_no_fault(start: Start, source: Path) -> None:
    daemon = start()
    _awake(daemon, source)
    for attempt in range(3):
        folder = source / f"big-{attempt}"
        folder.mkdir()
        for place in range(300):
            (folder / str(place)).write_text(f"{attempt} {place}", encoding="utf-8")
        time.sleep(SETTLE_SECONDS + 0.3 + 0.1 * attempt)
        shutil.rmtree(folder)
    (source / "last").write_text("last", encoding="utf-8")
    until(lambda: "last" in daemon.published())
    assert daemon.refused() == []


def test_many_files_at_once_are_as_many_publications(start: Start, source: Path) -> None:
    daemon = start()
    _awake(daemon, source)
    names = [f"{place:03}" for place in range(120)]
    for name in names:
        (source / name).write_text(name, encoding="utf-8")
    until(lambda: len(daemon.published()) > len(names))
    (source / "last").write_text("last", encoding="utf-8")
    until(lambda: "last" in daemon.published())
    assert Counter(daemon.published()) == Counter(["first", *names, "last"])


def test_two_hundred_cycles_leave_nothing_open(
    start: Start, source: Path, session: Session
) -> None:
    daemon = start()
    _awake(daemon, source)
    open_files = Path(f"/proc/{daemon.process.pid}/fd")
    if not open_files.exists():
        pytest.skip("this system does not show a process's open files")
    before = sorted(str(path.readlink()) for path in open_files.iterdir())
    for place in range(200):
        session.ledger.append([TagMoved(name="t", digest=f"{place:064x}")])
        (source / f"{place}.tmp").write_text("x", encoding="utf-8")
        (source / f"{place}.tmp").unlink()
    until(lambda: daemon.told[-1].get("event", {}).get("data", {}).get("digest") == f"{199:064x}")
    (source / "last").write_text("last", encoding="utf-8")
    until(lambda: "last" in daemon.published())
    time.sleep(SETTLE_SECONDS)
    after = sorted(str(path.readlink()) for path in open_files.iterdir())
    assert after == before


def test_an_event_of_another_process_is_told_by_itself(
    start: Start, source: Path, session: Session, tmp_path: Path
) -> None:
    daemon = start()
    _awake(daemon, source)
    (tmp_path / "by hand").write_text("x", encoding="utf-8")
    publish.take_in(session, tmp_path / "by hand", Kind.SOURCE)
    until(lambda: "by hand" in daemon.published())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("how", [(), ("--drain",)])
def test_an_idle_daemon_ends_at_a_signal(
    start: Start, source: Path, number: signal.Signals, code: int, how: tuple[str, ...]
) -> None:
    daemon = start(*how)
    _awake(daemon, source)
    assert daemon.end(number) == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_of_two_daemons_one_works_and_the_other_takes_over(
    start: Start, source: Path, number: signal.Signals
) -> None:
    first = start()
    _awake(first, source)
    second = start()
    errors = source.parents[2] / "errors"
    beside = f"Process {first.process.pid} advances this registry: standing by"
    until(lambda: errors.read_text(encoding="utf-8").count(beside) == 1)
    (source / "one").write_text("one", encoding="utf-8")
    until(lambda: "one" in first.published())
    first.end(number)
    (source / "two").write_text("two", encoding="utf-8")
    until(lambda: "two" in second.published())
    assert Counter(second.published())["two"] == 1
    assert second.end(signal.SIGTERM) == 0
    told = errors.read_text(encoding="utf-8")
    assert (told.count("standing by"), told.count("taking over.")) == (1, 1)


def test_standing_by_it_follows_and_ends_at_a_signal_too(
    start: Start, source: Path, session: Session
) -> None:
    _awake(start(), source)
    second = start()

    def follows() -> bool:
        session.ledger.append([TagMoved(name="t", digest="ab" * 32)])
        return bool(second.told)

    until(follows)
    assert second.end(signal.SIGTERM) == 0


def test_an_inbox_that_is_not_there_is_told(start: Start, tmp_path: Path) -> None:
    daemon = start("--inbox", str(tmp_path / "nowhere"))
    assert daemon.process.wait(LIMIT_SECONDS) == 2
    assert "watch.no_inbox" in (tmp_path / "errors").read_text(encoding="utf-8")
