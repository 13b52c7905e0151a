from __future__ import annotations

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
