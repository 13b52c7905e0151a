from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Still

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def published(still: Still, policy: Path) -> str:
    return still("publish", policy, "--kind", "policy").out.strip()


def test_sql_answers_in_rows_json_and_csv(still: Still, published: str) -> None:
    asked = "SELECT seq, digest, kind, NULL AS nothing FROM artifact"
    assert still("sql", asked).rows == [["1", published, "policy", ""]]
    assert still("sql", asked, "--json").json == [
        {"seq": 1, "digest": published, "kind": "policy", "nothing": None}
    ]
    assert still("sql", asked, "--csv").out == f"seq,digest,kind,nothing\n1,{published},policy,\n"


def test_values_that_json_has_no_word_for_are_text(still: Still, published: str) -> None:
    row = still("sql", "SELECT key, 1.5::DECIMAL(3, 1) AS d FROM artifact", "--json").json[0]
    assert row["key"].replace("-", "") == published[:32]
    assert row["d"] == "1.5"


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("'NaN'::DOUBLE AS x, 'Infinity'::DOUBLE AS y", {"x": None, "y": None}),
        ("['-Infinity'::DOUBLE, 1.5::DOUBLE] AS x", {"x": [None, 1.5]}),
        ("MAP {1.5::DECIMAL(3, 1): 'NaN'::DOUBLE} AS x", {"x": {"1.5": None}}),
        ("MAP {1: DATE '2026-01-02'} AS x", {"x": {"1": "2026-01-02"}}),
        ("TIMESTAMP '2026-01-02 03:04:05.6' AS x", {"x": "2026-01-02T03:04:05.600000Z"}),
        ("MAP {TIMESTAMP '2026-01-02': 1} AS x", {"x": {"2026-01-02T00:00:00.000000Z": 1}}),
        ("{'a': [{'b': 2.5::DECIMAL(3, 1)}]} AS x", {"x": {"a": [{"b": "2.5"}]}}),
        ("1 AS x, 2 AS x, 3 AS x_2, 4 AS x", {"x": 1, "x_3": 2, "x_2": 3, "x_4": 4}),
    ],
)
def test_whatever_is_asked_the_answer_is_json_and_whole(
    still: Still, asked: str, answered: dict[str, object]
) -> None:
    told = still("sql", f"SELECT {asked}", "--json")  # a test's own text
    found = json.loads(told.out, parse_constant=pytest.fail)
    assert found == [answered]
    assert still("sql", f"SELECT {asked}").code == 0


def test_times_in_json_are_those_of_the_ledger(still: Still, published: str) -> None:
    assert published
    asked = "SELECT ts, body->>'$.ts' AS written FROM event"
    (row,) = still("sql", asked, "--json").json
    assert row["ts"] == row["written"]


def test_no_progress_bar_is_drawn_among_the_answers(
    still: Still, place: Path, published: str
) -> None:
    """DuckDB turns it on, on stdout, in a program whose main module has no file."""
    assert still("sql", "SELECT digest FROM artifact").rows == [[published]]
    asked = ["sql", "SELECT current_setting('enable_progress_bar') AS drawn", "--json"]
    program = f"from stillhouse.cli.main import main; main({asked!r})"
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=place, capture_output=True, text=True, check=True
    )
    assert json.loads(told.stdout) == [{"drawn": False}]


def test_ctrl_c_ends_a_question_at_once(place: Path, still: Still, published: str) -> None:
    assert still("sql", "SELECT count(*) FROM event").code == 0  # it is projected, so only asked
    endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT sum(n) FROM t"
    command = [sys.executable, "-m", "stillhouse.cli.main", "sql", endless]
    with subprocess.Popen(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until_busy(process.pid)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)  # half of what it may take
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert still("sql", "SELECT digest FROM artifact").rows == [[published]]


def wait_until_busy(pid: int) -> None:
    """Until DuckDB is at the question: its process has more threads than the interpreter's one."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if len(list(Path(f"/proc/{pid}/task").iterdir())) > 1:
            time.sleep(1)  # past attaching and sealing
            return
        time.sleep(0.02)
    pytest.fail("It never began.")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM event",
        "COPY event TO 'stolen.csv'",
        "SELECT * FROM read_text('policy.toml')",
        "SELECT 1; SELECT 2",
        "SELECT no_such_column FROM event",
    ],
)
def test_sql_that_writes_reads_files_or_is_wrong_is_bad_input(
    still: Still, published: str, place: Path, statement: str
) -> None:
    answer = still("sql", statement)
    assert (answer.code, answer.out) == (2, "")
    assert not (place / "stolen.csv").exists()
    assert still("sql", "SELECT digest FROM artifact").rows == [[published]]


def test_parameters_are_text_and_never_sql(still: Still, published: str) -> None:
    asked = "SELECT digest, $why AS why FROM artifact WHERE seq = $seq::BIGINT"
    why = "'; DROP TABLE event; -- a=b"
    found = still("sql", asked, "--param", "seq=1", "--param", f"why={why}", "--json")
    assert found.json == [{"digest": published, "why": why}]


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    "given",
    [
        ["--param", "seq"],
        ["--param", "=1"],
        ["--param", "a b=1"],
        ["--param", "seq=1", "--param", "seq=2"],
        ["--param", "other=1"],
        ["--param", "seq=1", "--param", "other=1"],
        [],
    ],
)
def test_parameters_that_do_not_fit_are_bad_input(still: Still, given: list[str]) -> None:
    answer = still("sql", "SELECT * FROM artifact WHERE seq = $seq::BIGINT", *given)
    assert (answer.code, answer.out) == (2, "")
    assert "Next:" in answer.err


def test_the_past_is_asked_for_in_every_format(still: Still, published: str) -> None:
    assert still("tag", "best", published).code == 0
    asked = ["sql", "SELECT max(seq) AS seq, (SELECT count(*) FROM tags) AS tags FROM event"]
    assert still(*asked).rows == [["2", "1"]]
    assert still(*asked, "--as-of", "1").rows == [["1", "0"]]
    assert still(*asked, "--as-of", "2").rows == [["2", "1"]]
    assert still(*asked, "--as-of", "2020-01-01", "--csv").out == "seq,tags\n,0\n"
    found = still(*asked, "--as-of", "9999-12-31T00:00:00Z", "--json").json
    assert found == [{"seq": 2, "tags": 1}]


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("at", ["yesterday", "0", "99", "2026-13-01", "2026-11-22T10:00:00"])
def test_what_is_no_point_in_history_is_bad_input(still: Still, at: str) -> None:
    answer = still("sql", "FROM event", "--as-of", at)
    assert (answer.code, answer.out) == (2, "")
