"""The audit itself; what it looks like to a user is in tests/cli/test_audit.py."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stillhouse.registry.audit.audit import Projected, examine
from stillhouse.registry.audit.report import report
from stillhouse.registry.audit.retold import Difference, Retold
from stillhouse.registry.audit.touched import TouchedArtifact, readable, touched
from stillhouse.registry.audit.witnesses import Witness
from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.event import Actor, Event
from stillhouse.schemas.events import ArtifactPublished, ReleaseCut, TagMoved
from stillhouse.schemas.policy import Tier

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "events.log", lambda: NOON, Actor(user="ada", host="h"))


def published(number: int, *parents: int, kind: Kind = Kind.DATASET) -> ArtifactPublished:
    return ArtifactPublished(
        digest=digest(number),
        kind=kind,
        form="blob",
        size=number,
        origin="imported",
        parents=tuple(Parent(role="input", digest=digest(parent)) for parent in parents),
    )


def digest(number: int) -> str:
    return f"{number:064x}"


def test_seeded_edits_cuts_and_forks_are_all_found_at_their_event() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "tamper.py"), "--cases", "104"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].split()[:4] == ["all", "104", "104", "104"]


def test_heads_alone_tell_between_which_events_a_fork_begins(ledger: Ledger) -> None:
    kept = []
    for number in range(1, 10):
        ledger.append([TagMoved(name="t", digest=digest(number))])
        head = ledger.head()
        kept.append(Witness(source="kept", seq=head.seq, hash=head.hash))
    kept[5:] = [Witness(source="kept", seq=w.seq, hash=digest(0)) for w in kept[5:]]
    found = examine(ledger.path, Projected(state="absent"), [kept[2], kept[7]])
    (finding,) = found.findings
    assert (finding.after, finding.event) == (3, 8)
    assert [head.verdict for head in found.heads] == ["agrees", "differs"]


def test_behind_a_broken_event_heads_say_nothing(ledger: Ledger) -> None:
    for number in range(1, 5):
        ledger.append([TagMoved(name="t", digest=digest(number))])
    head = ledger.head()
    log = ledger.path.read_bytes()
    ledger.path.write_bytes(log.replace(digest(2).encode(), digest(7).encode()))
    kept = Witness(source="kept", seq=head.seq, hash=head.hash)
    found = examine(ledger.path, Projected(state="absent"), [kept])
    assert [finding.event for finding in found.findings] == [2]
    assert [head.verdict for head in found.heads] == ["unknown"]


def test_releases_are_reached_over_any_number_of_arrows_and_others_are_not(ledger: Ledger) -> None:
    ledger.append([published(1), published(2, 1), published(3, 2), published(9)])
    ledger.append([published(4, 3, kind=Kind.RELEASE), published(8, 9, kind=Kind.RELEASE)])
    for release in (4, 8):
        cut = ReleaseCut(release=digest(release), plan=digest(50), tier=Tier.TIER_2, depends_on=4)
        ledger.append([cut])
    found = touched(1, [("events.log", readable(ledger.path))])
    assert found.artifacts == (TouchedArtifact(digest=digest(1), kind="dataset"),)
    assert found.releases == (digest(4),)


def test_a_line_that_nobody_can_read_does_not_hide_the_others(ledger: Ledger) -> None:
    ledger.append([published(1)])
    ledger.append([published(2, 1, kind=Kind.RELEASE)])
    cut = ReleaseCut(release=digest(2), plan=digest(50), tier=Tier.TIER_2, depends_on=2)
    ledger.append([cut])
    before = list(readable(ledger.path))
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"\xff\0 garbage\n".join([b"", *lines[1:]]))
    assert list(readable(ledger.path)) == before[1:]
    kept: list[Event] = [event for event in before if event.seq == 1]
    found = touched(1, [("events.log", readable(ledger.path)), ("registry.duckdb", kept)])
    assert [copy.where for copy in found.copies] == ["registry.duckdb"]
    assert found.releases == (digest(2),)


def test_a_report_says_what_was_not_asked_and_names_the_earliest_event(ledger: Ledger) -> None:
    for number in range(1, 5):
        ledger.append([TagMoved(name="t", digest=digest(number))])
    kept = [Witness(source="kept", seq=seq, hash=digest(0)) for seq in (4, 2)]
    found = examine(ledger.path, Projected(state="held", detail="duckdb (PID 7)"), kept)
    told = report(found, None, [digest(9)], None)
    assert (told.ok, told.first, told.compared) == (False, 2, ("kept",))
    release = f"release {digest(9)[:12]}"
    parts = ("events of registry.duckdb", "tables of registry.duckdb", release)
    assert told.not_compared == parts
    assert (told.projection.detail, told.projection.tables) == ("duckdb (PID 7)", "not compared")


def test_a_table_that_differs_is_no_agreement_though_no_event_is_bad(ledger: Ledger) -> None:
    ledger.append([TagMoved(name="t", digest=digest(1))])
    found = examine(ledger.path, Projected(state="absent"), [])
    changed = Retold(state="compared", differences=(Difference(name="a view", seq=None),))
    told = report(found, changed, [], None)
    assert (told.ok, told.first, told.findings) == (False, None, ())
