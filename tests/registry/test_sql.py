"""What a person may ask in SQL, and every way out that is closed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.registry.projection.asof import AsOf, as_of
from stillhouse.registry.projection.projection import Projection
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import TagMoved
from stillhouse.schemas.plain import plain

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with three events, and a file that nobody may read."""
    folder = tmp_path_factory.mktemp("registry")
    ledger = Ledger(folder / "events.log", lambda: NOON, Actor(user="ada", host="h"))
    for number in range(3):
        ledger.append([TagMoved(name=f"t{number}", digest="ab" * 32)])
    (folder / "secret.csv").write_text("a,b\nsecret,1\n")
    return folder


@pytest.fixture(scope="module")
def projection(folder: Path) -> Projection:
    projection = Projection(folder / "registry.duckdb", folder / "events.log")
    projection.catch_up()
    return projection


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("question", "rows"),
    [
        ("SELECT count(*) FROM event", 1),
        ("FROM event", 3),
        ("  -- why\n SELECT 1;  ", 1),
        ("WITH t AS (FROM tags) SELECT name FROM t ORDER BY ALL", 3),
        ("DESCRIBE event", 7),
        ("EXPLAIN SELECT 1", 1),
        ("EXPLAIN ANALYZE FROM event", 1),
        ("explain (format json) SELECT 1", 1),
        ("EXPLAIN ANALYZE (SELECT 'é)')", 1),
        ("VALUES (1), (2)", 2),
        ("SHOW TABLES", 31),
    ],
)
def test_questions_are_answered(projection: Projection, question: str, rows: int) -> None:
    found = projection.query(question)
    assert len(found.rows) == rows
    assert len(found.dicts()) == rows


def test_parameters_are_bound(projection: Projection) -> None:
    assert projection.query("SELECT name FROM tags WHERE name = ?", ["t1"]).rows == (("t1",),)
    assert projection.query("SELECT $x::VARCHAR AS x", {"x": "'; --"}).dicts() == [{"x": "'; --"}]


WRITES = [
    "DELETE FROM event",
    "UPDATE event SET actor = 'x'",
    "INSERT INTO cursor VALUES (1, 'x', 1)",
    "DROP TABLE event",
    "ALTER TABLE event ADD COLUMN x INTEGER",
    "CREATE TABLE x AS SELECT 1",
    "CREATE TEMP TABLE x AS SELECT 1",
    "CREATE VIEW memory.x AS SELECT 1",
    "CREATE MACRO m() AS 1",
    "TRUNCATE event",
    "WITH gone AS (DELETE FROM event RETURNING seq) FROM gone",
    "EXPLAIN ANALYZE DELETE FROM event",
    "explain /* x */ analyze -- é\n insert into cursor VALUES (1, 'x', 1)",
    "EXPLAIN (ANALYZE, FORMAT json) /* ) */ COPY event TO 'registry.duckdb.new'",
    "EXPLAIN ANALYZE COPY event TO 'registry.duckdb.new'",
    "EXPLAIN COPY event TO 'x'",
    "EXPLAIN",
    "MERGE INTO event USING event AS o ON true WHEN MATCHED THEN DELETE",
    "SELECT 1; DELETE FROM event",
    "CHECKPOINT",
    "VACUUM",
    "PREPARE p AS DELETE FROM event",
    "EXECUTE p",
    "BEGIN",
    "",
    " ; ",
    "SELEC 1",
    "layout",  # a name of queries.sql
]

ESCAPES = [
    # files
    "COPY event TO '{folder}/out.csv'",
    "COPY (SELECT 1) TO '{folder}/out.parquet'",
    "COPY event FROM '{folder}/secret.csv'",
    "EXPLAIN ANALYZE COPY event TO '{folder}/out.csv'",
    "EXPORT DATABASE '{folder}/out'",
    "IMPORT DATABASE '{folder}'",
    "FROM read_csv('{folder}/secret.csv')",
    "FROM read_text('{folder}/secret.csv')",
    "FROM read_blob('{folder}/secret.csv')",
    "FROM read_json('{folder}/secret.csv')",
    "FROM read_parquet('{folder}/secret.csv')",
    "FROM sniff_csv('{folder}/secret.csv')",
    "FROM '{folder}/secret.csv'",
    "FROM glob('{folder}/*')",
    "SELECT content FROM query('SELECT * FROM read_text(''{folder}/secret.csv'')')",
    "FROM query_table('{folder}/secret.csv')",
    "FROM read_csv('http://example.com/x.csv')",
    # other databases, extensions, settings
    "ATTACH '{folder}/out.duckdb'",
    "DETACH borrowed",
    "USE memory",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{folder}/secret.csv'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET enable_external_access",
    "SET GLOBAL temp_directory = '{folder}/out'",
    "PRAGMA enable_external_access = true",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "CREATE SECRET s (TYPE s3)",
    # Python variables in reach of a replacement scan
    "FROM ESCAPES",
    "FROM projection",
]


THEN = AsOf(seq=2)


@pytest.mark.parametrize("at", [None, THEN], ids=["now", "then"])
@pytest.mark.parametrize("attempt", WRITES + ESCAPES)
def test_every_way_out_is_closed(
    projection: Projection, folder: Path, attempt: str, at: AsOf | None
) -> None:
    before = contents(folder)
    with pytest.raises(InputError) as caught:
        projection.query(attempt.replace("{folder}", str(folder)), at=at)
    assert caught.value.code == "sql.refused"
    assert "secret,1" not in str(caught.value)
    assert contents(folder) == before


@pytest.mark.parametrize("at", [None, THEN], ids=["now", "then"])
@pytest.mark.parametrize("attempt", ESCAPES)
def test_the_seal_alone_keeps_other_files_out(
    projection: Projection,
    folder: Path,
    attempt: str,
    at: AsOf | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even were a statement wrongly taken for a reading one."""
    before = contents(folder)
    monkeypatch.setattr("stillhouse.registry.projection.sandbox._require_reading", lambda *_: None)
    try:
        answer = str(projection.query(attempt.replace("{folder}", str(folder)), at=at).rows)
    except InputError as error:
        answer = str(error)
    assert "secret,1" not in answer
    assert contents(folder) == before


@pytest.mark.parametrize("at", [None, THEN], ids=["now", "then"])
def test_the_seal_cannot_be_lifted(
    projection: Projection, at: AsOf | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.registry.projection.sandbox._require_reading", lambda *_: None)
    for setting in ("threads = 1", "enable_external_access = true", "lock_configuration = false"):
        with pytest.raises(InputError, match="lock"):
            projection.query(f"SET {setting}", at=at)


@pytest.mark.parametrize("at", [None, THEN], ids=["now", "then"])
def test_an_endless_question_is_stopped(projection: Projection, at: AsOf | None) -> None:
    endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT sum(n) FROM t"
    with pytest.raises(InputError, match="stopped") as caught:
        projection.query(endless, limit=0.3, at=at)
    assert caught.value.code == "sql.too_long"
    assert projection.query("SELECT count(*) FROM event").rows == ((3,),)


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "1.5", "4", "yesterday", "2026-02-30", "2026-11-22T10:00:00", "0001-01-01T0Z"],
)
def test_what_is_no_point_in_history_is_refused(projection: Projection, text: str) -> None:
    with pytest.raises(InputError) as caught:
        projection.query("FROM event", at=as_of(text))
    assert caught.value.code == "sql.as_of"
    assert projection.query("SELECT count(*) FROM event").rows == ((3,),)


@pytest.mark.parametrize("text", ["9999-12-31", "2027-01-01T00:00:00+14:00", "3"])
def test_a_time_that_is_to_come_knows_what_is_known(projection: Projection, text: str) -> None:
    assert projection.query("SELECT count(*) FROM event", at=as_of(text)).rows == ((3,),)


def test_a_zoned_time_can_be_answered(projection: Projection) -> None:
    ((now,),) = projection.query("SELECT now()").rows
    assert now.tzinfo is not None


def test_columns_of_one_name_all_reach_a_row_by_name(projection: Projection) -> None:
    found = projection.query("SELECT 1 AS x, 2 AS x, 3 AS x_2, 4 AS x")
    assert found.dicts() == [{"x": 1, "x_3": 2, "x_2": 3, "x_4": 4}]


def test_an_answer_in_json_is_what_the_command_prints(projection: Projection) -> None:
    found = projection.query("SELECT DATE '2026-01-02' AS day, 1.5::DECIMAL(3, 1) AS d")
    assert plain(found) == [{"day": "2026-01-02", "d": "1.5"}]
