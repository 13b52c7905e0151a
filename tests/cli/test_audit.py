"""`still audit`: every witness is asked, the first bad event is named, and what rests on it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stillhouse.registry.home import FOLDER, Home
from stillhouse.registry.lineage import graph, index
from stillhouse.registry.lineage.index import Image
from stillhouse.schemas.event import GENESIS
from stillhouse.schemas.events import (
    Payload,
    ReleaseCut,
    RunAbandoned,
    RunFailed,
    RunSucceeded,
)
from stillhouse.schemas.policy import Tier
from stillhouse.session import Session, make_registry, open_registry

from .conftest import POLICY, Still
from .recorded import Recorder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry in which one plan came to a release; all of it projected."""
    place = tmp_path_factory.mktemp("finished")
    (place / "policy.toml").write_text(POLICY, encoding="utf-8")
    home = Home(place / FOLDER)
    make_registry(home)
    session = open_registry(home)
    recorder = Recorder(session=session, scratch=place)
    recorder.run(recorder.plan(place / "policy.toml"))
    session.projection.catch_up()
    return home.root


@pytest.fixture
def released(finished: Path, place: Path) -> Session:
    """A copy of it in the current folder."""
    shutil.copytree(finished, place / FOLDER, symlinks=True)
    return open_registry(Home(place / FOLDER))


@pytest.fixture
def home(released: Session) -> Home:
    """Its folder."""
    return released.home


def release_of(session: Session) -> str:
    (release,) = (e.data["release"] for e in session.ledger.read() if e.type == "release.cut")
    return str(release)


def rewrite(home: Home, old: bytes, new: bytes) -> int:
    """Change the first event that holds `old`, and hash it and all after anew; its number."""
    lines, prev, changed = [], GENESIS.encode(), 0
    for number, line in enumerate(home.log.read_bytes().splitlines(), start=1):
        body = line[65:]
        if not changed and old in body:
            body, changed = body.replace(old, new), number
        start = body.rindex(b'"prev":"') + 8
        body = body[:start] + prev + body[start + 64 :]
        prev = hashlib.sha256(body).hexdigest().encode()
        lines.append(prev + b"\t" + body + b"\n")
    home.log.write_bytes(b"".join(lines))
    assert changed
    return changed


def in_shell(home: Home, statement: str) -> None:
    import duckdb

    with duckdb.connect(str(home.projection)) as shell:
        shell.execute(statement)


@contextmanager
def foreign_shell(home: Home) -> Iterator[int]:
    """Another program that has the projection open; its PID."""
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); input()"
    command = [sys.executable, "-c", code, str(home.projection)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        yield shell.pid
        shell.communicate(b"\n")


def test_an_intact_registry_agrees_with_all_its_witnesses(
    still: Still, released: Session, home: Home
) -> None:
    still("lineage", "checkpoint@latest")
    answer = still("audit", "--json")
    assert (answer.code, answer.json["ok"], answer.json["first"]) == (0, True, None)
    events = released.ledger.head().seq
    assert answer.json["ledger"]["events"] == answer.json["projection"]["equal"] == events
    assert answer.json["projection"]["tables"] == "compared"
    assert {head["verdict"] for head in answer.json["heads"]} == {"agrees"}
    sources = [head["source"] for head in answer.json["heads"]]
    assert home.projection.name + ".lock" in sources
    assert any(source.startswith("release ") for source in sources)
    assert answer.json["not_compared"] == []
    assert set(answer.json["compared"]) == {
        "events of registry.duckdb",
        "tables of registry.duckdb",
        *sources,
    }
    assert still("audit").rows[-1][0] == "intact"


def test_a_log_that_grew_since_it_was_projected_is_intact(
    still: Still, released: Session, home: Home
) -> None:
    before = released.ledger.head()
    still("tag", "best", "checkpoint@latest")
    with home.log.open("ab") as log:
        log.write(b"torn")
    answer = still("audit", "--json", "--head", f"{before.seq}:{before.hash}")
    assert (answer.code, answer.json["ledger"]["torn_bytes"]) == (0, 4)
    assert answer.json["projection"]["equal"] == before.seq


def test_a_registry_that_was_never_projected_is_audited_by_its_chain(
    still: Still, released: Session, home: Home
) -> None:
    for path in (home.projection, home.lineage):
        path.unlink(missing_ok=True)
    answer = still("audit", "--json")
    assert (answer.code, answer.json["projection"]["state"]) == (0, "absent")
    assert answer.json["ledger"]["events"] == released.ledger.head().seq


@pytest.mark.parametrize("honest", [False, True], ids=["edited", "edited and hashed anew"])
def test_a_changed_event_is_named_with_the_releases_that_rest_on_it(
    still: Still, released: Session, home: Home, honest: bool
) -> None:
    release = release_of(released)
    old, new = b'"verdict":"pass"', b'"verdict":"fail"'
    if honest:
        bad = rewrite(home, old, new)
    else:
        lines = home.log.read_bytes().splitlines(keepends=True)
        bad = next(n for n, line in enumerate(lines, start=1) if old in line)
        lines[bad - 1] = lines[bad - 1].replace(old, new)
        home.log.write_bytes(b"".join(lines))
    answer = still("audit", "--json")
    assert (answer.code, answer.json["first"]) == (1, bad)
    touched = answer.json["touches"]
    copies = {copy["where"]: copy["event"] for copy in touched["copies"]}
    assert copies["events.log"]["data"]["verdict"] == "fail"
    assert copies["registry.duckdb"]["data"]["verdict"] == "pass"
    assert touched["gates"] == [copies["registry.duckdb"]["data"]["gate"]]
    assert touched["releases"] == [release]
    told = still("audit").out
    assert f"event {bad}" in told
    assert f"{release} rests on it" in told


def test_a_cut_log_is_told_from_the_projections_copy(
    still: Still, released: Session, home: Home
) -> None:
    lines = home.log.read_bytes().splitlines(keepends=True)
    cut = next(n for n, line in enumerate(lines, start=1) if b'"kind":"mlpackage"' in line)
    home.log.write_bytes(b"".join(lines[: cut - 1]))
    kept = len(lines[: cut - 1])
    events = released.ledger.audit().events
    answer = still("audit", "--json")
    assert events <= kept
    assert (answer.code, answer.json["first"]) == (1, events + 1)
    assert [copy["where"] for copy in answer.json["touches"]["copies"]][-1] == "registry.duckdb"
    assert {head["verdict"] for head in answer.json["heads"]} == {"beyond"}


def test_a_rewritten_log_without_a_projection_is_found_by_what_was_kept_elsewhere(
    still: Still, released: Session, home: Home
) -> None:
    before = released.ledger.head()
    for path in (home.projection, home.lineage, home.projection.with_name("registry.duckdb.lock")):
        path.unlink(missing_ok=True)
    bad = rewrite(home, b'"verdict":"pass"', b'"verdict":"fail"')
    answer = still("audit", "--json", "--head", f"{before.seq}:{before.hash}")
    assert answer.code == 1
    verdicts = {head["source"]: head["verdict"] for head in answer.json["heads"]}
    assert verdicts["--head"] == "differs"
    # The manifest was sealed after that verdict, so it tells as well, and no later one is needed.
    assert verdicts[next(s for s in verdicts if s.startswith("release "))] == "differs"
    found = answer.json["findings"][0]
    assert found["after"] < bad <= found["event"]


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("UPDATE gate SET verdict = 'fail'", "gate"),
        ("DELETE FROM edge WHERE seq = (SELECT max(seq) FROM edge)", "edge"),
        ("INSERT INTO artifact SELECT * FROM artifact LIMIT 1", "artifact"),
        ("CREATE OR REPLACE VIEW releases AS SELECT 1 AS release", "releases"),
    ],
)
def test_a_projection_that_tells_what_no_event_said_is_found(
    still: Still, released: Session, home: Home, statement: str, name: str
) -> None:
    assert released.ledger.head().seq
    in_shell(home, statement)
    answer = still("audit", "--json")
    assert answer.code == 1
    assert [one["name"] for one in answer.json["projection"]["differing"]] == [name]
    assert "delete registry.duckdb" in still("audit").err


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET body = replace(body::VARCHAR, 'data', 'DATA')::JSON WHERE seq = 3",
        "UPDATE event SET body = replace(body::VARCHAR, ':', ': ')::JSON WHERE seq = 3",
        "UPDATE event SET hash = repeat('0', 64) WHERE seq = 3",
        "UPDATE event SET type = 'tag.moved' WHERE seq = 3",
        "DELETE FROM event WHERE seq = 3",
        "INSERT INTO event SELECT * FROM event WHERE seq = 2",
    ],
)
def test_an_edited_row_of_the_projection_is_not_laid_to_the_ledger(
    still: Still, released: Session, home: Home, statement: str
) -> None:
    assert released.ledger.head().seq > 3
    in_shell(home, statement)
    answer = still("audit", "--json")
    assert (answer.code, answer.json["first"]) == (1, 3)
    assert {finding["where"] for finding in answer.json["findings"]} == {"registry.duckdb"}


def test_while_a_foreign_shell_holds_the_projection_the_chain_is_audited_all_the_same(
    still: Still, home: Home
) -> None:
    with foreign_shell(home) as pid:
        answer = still("audit", "--json")
        assert (answer.code, answer.json["projection"]["state"]) == (0, "held")
        assert f"PID {pid}" in answer.json["projection"]["detail"]
        parts = ["events of registry.duckdb", "tables of registry.duckdb"]
        assert answer.json["not_compared"] == parts
        assert any(part.startswith("release ") for part in answer.json["compared"])
        told = still("audit").out.splitlines()
        assert "intact so far as compared\tnothing was changed or repaired" in told
        assert "not compared\t" + ", ".join(parts) in told
        rewrite(home, b'"verdict":"pass"', b'"verdict":"fail"')
        answer = still("audit")
        assert answer.code == 1
        assert "not compared" in answer.out


def test_a_projection_that_cannot_be_read_is_no_reason_not_to_audit(
    still: Still, released: Session, home: Home
) -> None:
    home.projection.write_bytes(b"not a database at all" * 1000)
    answer = still("audit", "--json")
    assert (answer.code, answer.json["projection"]["state"]) == (0, "unreadable")
    assert answer.json["ledger"]["events"] == released.ledger.head().seq


def test_a_release_whose_manifest_is_gone_is_told(
    still: Still, released: Session, home: Home
) -> None:
    release = release_of(released)
    path = home.objects / release[:2] / release[2:]
    path.unlink()
    answer = still("audit", "--json")
    assert (answer.code, answer.json["unread_releases"]) == (0, [release])
    assert answer.json["not_compared"] == [f"release {release[:12]}"]


@pytest.mark.parametrize("head", ["", "12", "0:" + "0" * 64, "1:" + "A" * 64, "1:abc"])
def test_what_is_no_head_is_refused(still: Still, home: Home, head: str) -> None:
    assert home.exists
    answer = still("audit", "--head", head)
    assert answer.code == 2
    assert "SEQ:HASH" in answer.err


# -- what is made from the ledger -----------------------------------------------------------------


def test_an_index_with_a_turned_arrow_and_right_checksums_is_found(
    still: Still, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "_TAIL", 0)  # it is kept however few events there are
    assert still("lineage", "release@latest").code == 0
    assert still("audit", "--json").json["index"] == "equal"
    home.lineage.write_bytes(_with_a_turned_arrow(Image(home.lineage.read_bytes())))
    answer = still("audit", "--json")
    assert (answer.code, answer.json["index"], answer.json["ok"]) == (1, "differs", False)
    said = still("audit")
    assert "delete lineage.idx" in said.err
    home.lineage.unlink()
    assert still("audit").code == 0


def _with_a_turned_arrow(image: Image) -> bytes:
    """The index, whose last arrow leads to node 0; every checksum is right."""
    sections = {name: bytearray(image._section(name).tobytes()) for name in index._ITEMS}
    assert sections["up_target"][-4:] != bytes(4)
    sections["up_target"][-4:] = bytes(4)
    return index._encode(image.position, image.nodes, image.arrows, sections)


def test_an_index_that_is_damaged_is_not_held_against_the_ledger(
    still: Still, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "_TAIL", 0)
    assert still("lineage", "release@latest").code == 0
    home.lineage.write_bytes(home.lineage.read_bytes()[:-1])
    assert still("audit", "--json").json["index"] == "unreadable"
    assert still("audit").code == 0


# -- a ledger with right hashes that no program of ours wrote -------------------------------------

_ABOUT = {"run": "ab" * 32, "phase": "p", "plan": "cd" * 32, "slot": "s", "attempt": 1}


@pytest.mark.parametrize(
    "fact",
    [
        RunSucceeded(**_ABOUT, outputs=(), seconds=1),
        RunFailed(**_ABOUT, code="x", message="m", remedy="r", seconds=1),
        RunAbandoned(**_ABOUT, reason="r"),
    ],
    ids=lambda fact: fact.TYPE,
)
def test_an_event_that_no_earlier_one_allows_is_named_by_every_verb(
    still: Still, released: Session, fact: Payload
) -> None:
    at = released.ledger.append([fact])[-1].seq
    audited = still("audit", "--json")
    assert (audited.code, audited.json["first"]) == (1, at)
    for verb in (["ls"], ["runs"], ["gc", "--dry-run"], ["tag"]):
        answer = still(*verb, "--json")
        assert answer.code == 1, verb
        assert json.loads(answer.err)["error"]["code"] == "event.malformed"
        assert f"Event {at} " in answer.err


def test_a_release_that_no_run_made_is_not_what_the_ledger_says(
    still: Still, released: Session
) -> None:
    plan = next(iter(released.state().requested))
    forged = ReleaseCut(
        release=release_of(released), plan="ef" * 32, tier=Tier.TIER_2, depends_on=1
    )
    assert forged.plan != plan
    released.ledger.append([forged])
    found = {m["plan"]: m for m in still("audit", "--json").json["manifests"]}
    assert found.keys() == {plan, "ef" * 32}
