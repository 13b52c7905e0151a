"""The projection: equal however it came about, rebuilt when damaged, witness of a cut ledger."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.registry.projection.projection import Projection
from stillhouse.registry.projection.queries import named
from stillhouse.registry.projection.rows import LAYOUT, PRESENT
from stillhouse.schemas.artifact import FileFact, Kind, Parent
from stillhouse.schemas.errors import BusyError, InputError, IntegrityError, StorageError
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import (
    ArtifactPublished,
    GateEvaluated,
    GateWaived,
    Payload,
    PlanCancelled,
    PlanRequested,
    ReleaseCut,
    RunAbandoned,
    RunCancelled,
    RunFailed,
    RunRetried,
    RunReused,
    RunStarted,
    RunSucceeded,
    TagMoved,
)
from stillhouse.schemas.policy import CheckResult, Tier, Verdict
from stillhouse.schemas.report import metric

from .documented import OF_THE_LEDGER, OF_THE_PROJECTION

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def digest(number: int) -> str:
    return f"{number:08x}" * 8


def artifact(number: int, *parents: int, kind: Kind = Kind.DATASET) -> ArtifactPublished:
    return ArtifactPublished(
        digest=digest(number),
        kind=kind,
        form="blob",
        size=number,
        origin="imported",
        name=f"a{number}",
        parents=tuple(Parent(role="dataset", digest=digest(p)) for p in parents),
    )


def verdict(number: int, said: Verdict) -> GateEvaluated:
    return GateEvaluated(
        gate="training.kl",
        subject=digest(number),
        evidence=digest(900),
        policy=digest(901),
        verdict=said,
        checks=(
            CheckResult(
                metric="steps", verdict=Verdict.PASS, value=1, op=">=", threshold=1, n=None
            ),
            CheckResult(metric="kl", verdict=said, value=0.5, op="<=", threshold=0.8, n=10),
        ),
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "events.log", lambda: NOON, Actor(user="ada", host="still-1"))


@pytest.fixture
def projection(tmp_path: Path, ledger: Ledger) -> Projection:
    return Projection(tmp_path / "registry.duckdb", ledger.path)


def dump(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every table and view as plain DuckDB reads them, each in an order of its own."""
    with duckdb.connect(str(path), read_only=True) as shell:
        return {
            name: sorted(shell.execute(f"FROM {name}").fetchall(), key=repr)
            for (name,) in shell.execute("SHOW TABLES").fetchall()
            if name != "moment"
        }


@contextmanager
def foreign_shell(path: Path, *, read_only: bool = False) -> Iterator[int]:
    """Another program that has the file open; its PID."""
    script = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == 'ro');"
        "print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(path), "ro" if read_only else "rw"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"open\n"
        yield shell.pid
        shell.kill()


# --- what it holds ----------------------------------------------------------------------------


def test_events_are_there_verbatim(ledger: Ledger, projection: Projection) -> None:
    ledger.append([artifact(1), artifact(2, 1)])
    found = projection.query("SELECT seq, ts, type, actor, body FROM event ORDER BY seq")
    bodies = [line[65:].decode() for line in ledger.path.read_bytes().splitlines()]
    assert [row[4] for row in found.rows] == bodies
    assert found.rows[1][:4] == (2, NOON.replace(tzinfo=None), "artifact.published", "ada@still-1")
    assert found.columns == ("seq", "ts", "type", "actor", "body")


def test_an_empty_ledger_has_an_empty_projection(projection: Projection) -> None:
    assert projection.catch_up() == 0
    assert projection.query("FROM artifacts").rows == ()


def test_artifacts_are_one_row_however_often_they_were_published(
    ledger: Ledger, projection: Projection
) -> None:
    ledger.append([artifact(1), artifact(1), artifact(2, 1)])
    ledger.append([TagMoved(name="best", digest=digest(2)), TagMoved(name="b", digest=digest(2))])
    ledger.append([TagMoved(name="best", digest=digest(1))])
    rows = projection.query(
        "SELECT digest, publications, tags, origin FROM artifacts ORDER BY seq"
    ).rows
    assert rows == ((digest(1), 2, ["best"], "imported"), (digest(2), 1, ["b"], "imported"))


def test_a_gate_says_the_value_that_decided(ledger: Ledger, projection: Projection) -> None:
    ledger.append([artifact(1), verdict(1, Verdict.FAIL)])
    (row,) = projection.query("SELECT gate, verdict, value, threshold FROM gate").rows
    assert row == ("training.kl", "fail", 0.5, "<= 0.8")
    assert len(projection.query("FROM checks").rows) == 2


def test_a_waiver_shows_until_it_expires(ledger: Ledger, projection: Projection) -> None:
    ledger.append([artifact(1), artifact(2), verdict(1, Verdict.FAIL), verdict(2, Verdict.FAIL)])
    for number, until in ((1, "2999-01-01T00:00:00Z"), (2, "2001-01-01T00:00:00Z")):
        ledger.append(
            [
                GateWaived(
                    gate="training.kl",
                    subject=digest(number),
                    author="ada",
                    reason="known",
                    until=until,
                )
            ]
        )
    rows = projection.query("SELECT subject, waived_by FROM gates ORDER BY seq").rows
    assert rows == ((digest(1), "ada"), (digest(2), None))


def test_runs_stand_as_their_last_event_says(ledger: Ledger, projection: Projection) -> None:
    run, plan = digest(500), digest(501)
    started = RunStarted(
        run=run,
        phase="training",
        phase_version=2,
        plan=plan,
        slot="training",
        attempt=1,
        inputs=(),
        params={"steps": 3},
        tools={"torch": "2.13.0"},
    )
    failed = RunFailed(
        run=run,
        phase="training",
        plan=plan,
        slot="training",
        attempt=1,
        code="a.b",
        message="No.",
        remedy="Yes.",
        seconds=1.5,
    )
    ledger.append([started])
    ledger.append([failed])
    (row,) = projection.query("FROM runs").dicts()
    assert (row["status"], row["code"], row["seconds"], row["slot"]) == (
        "failed",
        "a.b",
        1.5,
        "training",
    )
    ledger.append([started.model_copy(update={"attempt": 2})])
    (row,) = projection.query("FROM runs").dicts()
    assert (row["status"], row["attempt"]) == ("running", 2)
    ended = {"run": run, "phase": "training", "plan": plan, "slot": "training"}
    ledger.append([RunSucceeded(**ended, attempt=2, outputs=(), seconds=2.0)])
    ledger.append([RunReused(run=run, phase="training", plan=digest(502), slot="training")])
    assert projection.query("SELECT status, code FROM runs").rows == (("succeeded", "a.b"),)
    assert projection.query("SELECT plan, reused FROM slots ORDER BY seq").rows == (
        (plan, False),
        (digest(502), True),
    )


def test_reports_files_plans_and_releases_are_rows(ledger: Ledger, projection: Projection) -> None:
    measured = [metric("kl", 0.5, unit="nats", n=10, interval=(0.4, 0.6)).to_json()]
    report = artifact(1, kind=Kind.REPORT).model_copy(
        update={
            "facts": {"phase": "training", "subject": digest(2), "metrics": measured},
            "files": (FileFact(path="r.json", size=3, digest=digest(1), sha256=digest(7)),),
        }
    )
    recipe = artifact(3, kind=Kind.RECIPE).model_copy(
        update={"facts": {"recipe": {"name": "demo", "tier": "tier_2", "policy": digest(4)}}}
    )
    ledger.append([report, recipe, PlanRequested(plan=digest(3))])
    ledger.append([ReleaseCut(release=digest(5), plan=digest(3), tier=Tier.TIER_2, depends_on=3)])
    assert projection.query("SELECT report, subject, name, value, low FROM metrics").rows == (
        (digest(1), digest(2), "kl", 0.5, 0.4),
    )
    assert projection.query("SELECT artifact, path, sha256 FROM files").rows == (
        (digest(1), "r.json", digest(7)),
    )
    assert projection.query("SELECT plan, name, tier, requests FROM plans").rows == (
        (digest(3), "demo", "tier_2", 1),
    )
    assert projection.query("SELECT release, depends_on FROM releases").rows == ((digest(5), 3),)


def test_what_was_cancelled_says_so_until_it_is_asked_for_again(
    ledger: Ledger, projection: Projection
) -> None:
    def stand() -> tuple[Any, ...]:
        runs = projection.query("SELECT status, cancelled, transient FROM runs").rows
        plans = projection.query("SELECT status, reason, priority, requests FROM plans").rows
        return (*runs, *plans)

    run = {"run": digest(500), "attempt": 1}
    ledger.append([PlanRequested(plan=digest(501), priority=7)])
    ledger.append([RunStarted(**run, **BEGUN, **ABOUT)])
    ledger.append([RunCancelled(**run), PlanCancelled(plan=digest(501), reason="too slow")])
    assert stand() == (("running", True, None), ("cancelled", "too slow", 7, 1))
    ledger.append([RunAbandoned(**run, **ABOUT, reason="ended", stopped=True)])
    assert stand()[0] == ("cancelled", True, None)
    ledger.append([RunRetried(run=digest(500)), PlanRequested(plan=digest(501))])
    assert stand() == (("cancelled", False, None), ("requested", None, 0, 2))
    ledger.append([RunStarted(**(run | {"attempt": 2}), **BEGUN, **ABOUT)])
    ledger.append([RunFailed(**(run | {"attempt": 2}), **BROKE, **ABOUT, transient=True)])
    assert stand()[0] == ("failed", False, True)


# --- equal however it came about --------------------------------------------------------------

numbers = st.integers(min_value=0, max_value=9)
BEGUN: dict[str, Any] = {"phase_version": 1, "inputs": (), "params": {}, "tools": {"torch": "2"}}
ABOUT: dict[str, Any] = {"phase": "training", "slot": "training", "plan": digest(501)}
BROKE: dict[str, Any] = {"code": "a.b", "message": "No.", "remedy": "Yes.", "seconds": 1.5}
payloads: st.SearchStrategy[Payload] = st.one_of(
    st.builds(lambda n: RunStarted(run=digest(n), attempt=1, **BEGUN, **ABOUT), numbers),
    st.builds(lambda n: RunFailed(run=digest(n), attempt=1, **BROKE, **ABOUT), numbers),
    st.builds(lambda n: RunCancelled(run=digest(n), attempt=1), numbers),
    st.builds(lambda n: PlanRequested(plan=digest(n), priority=n), numbers),
    st.builds(lambda n: PlanCancelled(plan=digest(n)), numbers),
    st.builds(artifact, numbers, numbers, numbers, kind=st.sampled_from(Kind)),
    st.builds(verdict, numbers, st.sampled_from(Verdict)),
    st.builds(
        lambda name, n: TagMoved(name=name, digest=digest(n)),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        numbers,
    ),
)


@given(st.lists(st.tuples(st.lists(payloads, min_size=1, max_size=4), st.booleans()), max_size=6))
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_caught_up_in_steps_equals_rebuilt(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[list[Payload], bool]]
) -> None:
    folder = tmp_path_factory.mktemp("projection")
    ledger = Ledger(folder / "events.log", lambda: NOON, Actor(user="ada", host="still-1"))
    projection = Projection(folder / "registry.duckdb", ledger.path)
    for batch, look in batches:
        ledger.append(batch)
        if look:
            assert projection.catch_up() == ledger.head().seq
    projection.catch_up()
    stepwise = dump(folder / "registry.duckdb")
    assert projection.rebuild() == ledger.head().seq
    assert dump(folder / "registry.duckdb") == stepwise
    assert projection.query(OF_THE_PROJECTION).rows == ((0,),)


# --- damage -----------------------------------------------------------------------------------


def damage_nothing(path: Path) -> None:
    path.unlink()


def damage_file(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)


def damage_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:-1] = b"\xff" * (len(content) - 4097)
    path.write_bytes(content)


def damage_data(path: Path) -> None:
    """Blocks of rows only: the file still attaches and knows its cursor."""
    content = bytearray(path.read_bytes())
    for at in range(len(content)):
        if content[at : at + 10] == b'"imported"':
            content[at] ^= 1
    path.write_bytes(content)


def damage_wal(path: Path) -> None:
    path.with_name(path.name + ".wal").write_bytes(b"\x00\x01garbage" * 50)


def damage_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:6000])


def damage_layout(path: Path) -> None:
    with duckdb.connect(str(path)) as shell:
        shell.execute("UPDATE layout SET version = 0")


def damage_rows(path: Path) -> None:
    with duckdb.connect(str(path)) as shell:
        shell.execute("DELETE FROM event WHERE seq = 1")


def damage_tables(path: Path) -> None:
    with duckdb.connect(str(path)) as shell:
        shell.execute("DROP TABLE cursor")


@pytest.mark.parametrize(
    "damage",
    [
        damage_nothing,
        damage_file,
        damage_middle,
        damage_data,
        damage_wal,
        damage_truncated,
        damage_layout,
        damage_rows,
        damage_tables,
    ],
)
@pytest.mark.parametrize("more", [False, True])
def test_a_damaged_file_is_rebuilt(
    ledger: Ledger, projection: Projection, tmp_path: Path, damage: object, more: bool
) -> None:
    assert callable(damage)
    ledger.append([artifact(1), artifact(2, 1)])
    projection.catch_up()
    damage(tmp_path / "registry.duckdb")
    if more:
        ledger.append([artifact(3)])
    again = Projection(tmp_path / "registry.duckdb", ledger.path)
    assert again.query("SELECT max(seq) FROM event").rows == ((3 if more else 2,),)
    assert len(again.query("FROM event").rows) == (3 if more else 2)
    assert again.query(OF_THE_PROJECTION).rows == ((0,),)
    assert again.query(named("layout")).rows == ((LAYOUT, PRESENT.versions),)
    assert not list(tmp_path.glob("*.new*"))


def test_a_folder_that_cannot_be_written_says_so(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append([artifact(1)])
    with pytest.raises(StorageError, match="cannot be built"):
        Projection(tmp_path / "absent" / "registry.duckdb", ledger.path).catch_up()
    (tmp_path / "registry.duckdb").mkdir()
    with pytest.raises(StorageError, match="cannot be built"):
        Projection(tmp_path / "registry.duckdb", ledger.path).catch_up()


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_delays_the_projection_and_loses_nothing(
    ledger: Ledger, projection: Projection
) -> None:
    ledger.append([artifact(number) for number in range(50)])
    with files_no_longer_than(10_000), pytest.raises(StorageError, match="Free space"):
        projection.catch_up()
    assert projection.catch_up() == 50
    ledger.append([artifact(number) for number in range(2000)])
    with files_no_longer_than(10_000), pytest.raises(StorageError, match="Free space"):
        projection.catch_up()
    assert projection.catch_up() == 2050
    assert projection.query(OF_THE_PROJECTION).rows == ((0,),)


@pytest.mark.parametrize("change", ["cut", "gone", "other", "earlier"])
def test_a_ledger_that_lost_projected_events_is_refused(
    ledger: Ledger, projection: Projection, change: str
) -> None:
    for number in range(3):
        ledger.append([artifact(number)])
    projection.catch_up()
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.unlink()
    another = Ledger(ledger.path, lambda: NOON, Actor(user="ada", host="still-1"))
    if change == "cut":
        ledger.path.write_bytes(b"".join(lines[:2]))
    elif change == "other":  # as long as before, and valid, but with another history
        for number in (7, 8, 9):
            another.append([artifact(number)])
    elif change == "earlier":  # cut, then longer than before
        ledger.path.write_bytes(b"".join(lines[:1]))
        for number in range(5):
            another.append([artifact(number + 20)])
    for _ in range(2):
        with pytest.raises(IntegrityError) as caught:
            projection.catch_up()
        assert caught.value.code == "ledger.cut"


def test_a_broken_ledger_is_not_projected(ledger: Ledger, projection: Projection) -> None:
    ledger.append([artifact(1)])
    ledger.append([artifact(2)])
    ledger.append([artifact(3)])
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b'"size":2', b'"size":9'))
    with pytest.raises(IntegrityError, match="event 2") as caught:
        projection.catch_up()
    assert caught.value.code == "ledger.broken"


def test_a_torn_tail_is_not_projected(ledger: Ledger, projection: Projection) -> None:
    ledger.append([artifact(1)])
    with ledger.path.open("ab") as log:
        log.write(b"0123 torn")
    assert projection.catch_up() == 1
    ledger.append([artifact(2)])
    assert projection.catch_up() == 2


def test_newer_events_ask_for_an_upgrade(
    ledger: Ledger, projection: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as future:
        future.setattr(TagMoved, "VERSION", 2)
        ledger.append([TagMoved(name="x", digest=digest(1))])
    with pytest.raises(InputError, match="Upgrade"):
        projection.catch_up()


def test_unknown_events_are_kept(
    ledger: Ledger, projection: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as future:
        future.setattr(TagMoved, "TYPE", "tag.praised")
        ledger.append([TagMoved(name="x", digest=digest(1))])
    assert projection.query("SELECT type FROM event").rows == (("tag.praised",),)


# --- others at the file -----------------------------------------------------------------------


def test_a_foreign_shell_blocks_no_append_and_is_named_to_those_who_ask(
    ledger: Ledger, projection: Projection, tmp_path: Path
) -> None:
    ledger.append([artifact(1)])
    projection.catch_up()
    with foreign_shell(tmp_path / "registry.duckdb") as pid:
        ledger.append([artifact(2), artifact(3)])
        with pytest.raises(BusyError, match=rf"PID {pid}\) and is 2 events behind") as caught:
            projection.query("FROM artifacts", timeout=0.1)
        assert caught.value.code == "projection.held"
    assert len(projection.query("FROM artifacts").rows) == 3


def test_a_foreign_reader_only_delays_what_is_new(
    ledger: Ledger, projection: Projection, tmp_path: Path
) -> None:
    ledger.append([artifact(1)])
    projection.catch_up()
    with foreign_shell(tmp_path / "registry.duckdb", read_only=True) as pid:
        assert len(projection.query("FROM artifacts").rows) == 1
        ledger.append([artifact(2)])
        with pytest.raises(BusyError, match=f"PID {pid}"):
            projection.catch_up(timeout=0.1)


def test_two_projections_of_one_file_share_it(
    ledger: Ledger, projection: Projection, tmp_path: Path
) -> None:
    other = Projection(tmp_path / "registry.duckdb", ledger.path)
    for number in range(4):
        ledger.append([artifact(number)])
        assert (projection, other)[number % 2].catch_up() == number + 1
        assert (other, projection)[number % 2].query("FROM cursor").rows[0][0] == number + 1


def test_wrong_sql_is_the_askers_mistake(ledger: Ledger, projection: Projection) -> None:
    ledger.append([artifact(1)])
    for sql in ("FROM nowhere", "SELECT", "DELETE FROM event", "INSERT INTO layout VALUES (2)"):
        with pytest.raises(InputError) as caught:
            projection.query(sql)
        assert caught.value.code == "sql.refused"
    assert projection.query("SELECT count(*) FROM event").rows == ((1,),)


# --- the audit that anyone can run ------------------------------------------------------------


def audit_log(folder: Path) -> int:
    """The statement, run by plain DuckDB in the registry's folder."""
    with duckdb.connect() as shell:
        ((bad,),) = shell.execute(
            OF_THE_LEDGER.replace("'events.log'", f"'{folder / 'events.log'}'")
        ).fetchall()
    return int(bad)


def test_one_statement_audits_the_ledger_itself(ledger: Ledger) -> None:
    folder = ledger.path.parent
    assert "'events.log'" in OF_THE_LEDGER
    for number in range(20):
        ledger.append([artifact(number), TagMoved(name="a\tb\"c'\\é\n☃", digest=digest(1))])
    whole = ledger.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert audit_log(folder) == 0
    for tampered in (
        whole.replace(b'"size":7', b'"size":8'),
        b"".join(lines[:3] + lines[4:]),
        b"".join([*lines[:3], lines[4], lines[3], *lines[5:]]),
        b"".join(lines[1:]),
        b"".join([*lines, lines[-1]]),
    ):
        ledger.path.write_bytes(tampered)
        assert audit_log(folder) > 0


def test_one_statement_audits_the_projection(
    ledger: Ledger, projection: Projection, tmp_path: Path
) -> None:
    for number in range(5):
        ledger.append([artifact(number)])
    projection.catch_up()
    path = tmp_path / "registry.duckdb"
    for tamper in (
        "UPDATE event SET body = replace(body::VARCHAR, '\"size\":3', '\"size\":4')::JSON",
        "DELETE FROM event WHERE seq = 2",
        "UPDATE event SET prev = repeat('0', 64) WHERE seq = 3",
    ):
        with duckdb.connect(str(path)) as shell:
            assert shell.execute(OF_THE_PROJECTION).fetchall() == [(0,)]
            shell.execute(tamper)
            ((bad,),) = shell.execute(OF_THE_PROJECTION).fetchall()
            assert bad > 0
        projection.rebuild()


def test_threads_may_share_a_projection(ledger: Ledger, projection: Projection) -> None:
    ledger.append([artifact(0)])
    seen: list[tuple[int, int]] = []

    def ask() -> None:
        for _ in range(5):
            ((found,),) = projection.query("SELECT count(*) FROM event", timeout=20).rows
            seen.append((found, ledger.head().seq))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 6):
        ledger.append([artifact(number)])
        projection.catch_up(timeout=20)
    for thread in threads:
        thread.join()
    assert len(seen) == 15
    assert all(0 < found <= at for found, at in seen)
