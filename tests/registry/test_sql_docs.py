"""docs/sql.md: every column that it names is there, and every query of it answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.registry.projection.asof import as_of
from stillhouse.registry.projection.projection import Projection
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import (
    ArtifactPublished,
    Payload,
    RunAbandoned,
    RunCancelled,
    RunStarted,
)

from .audited import History, name

DOCUMENT = (Path(__file__).parents[2] / "docs" / "sql.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"([^\n]+)\n\n```sql\n(.*?)```", DOCUMENT, re.DOTALL)
DOCUMENTED = {
    relation: re.findall(r"\w+", columns)
    for relation, columns in re.findall(r"^\| `(\w+)` \| ((?:`\w+` )+)\|", DOCUMENT, re.MULTILINE)
}
Later = Callable[..., Projection]
VALUES = {
    "artifact": name("release-2"),
    "dataset": name("data-1")[:20],
    "teacher": name("teacher"),
    "package": "torch",
    "version": "2.12.0",
    "gate": "training.kl",
    "slot": "training",
    "tag": "production",
    "day": "2026-11-01",
    "old": name("release-1"),
    "new": name("release-2"),
}


@pytest.fixture(scope="module")
def projection(tmp_path_factory: pytest.TempPathFactory) -> Projection:
    folder = tmp_path_factory.mktemp("audited")
    History(folder / "events.log")
    return Projection(folder / "registry.duckdb", folder / "events.log")


@pytest.fixture
def later(tmp_path: Path) -> Later:
    """The same history with more events at its end."""

    def continued(*payloads: Payload) -> Projection:
        log = tmp_path / "events.log"
        History(log)
        now = datetime(2026, 12, 1, tzinfo=UTC)
        Ledger(log, lambda: now, Actor(user="ada", host="still-1")).append(payloads)
        return Projection(tmp_path / "registry.duckdb", log)

    return continued


def ask(projection: Projection, sentence: str, **others: str) -> list[dict[str, Any]]:
    """What the one query says whose sentence begins so."""
    (sql,) = [sql for said, sql in BLOCKS if said.startswith(sentence)]
    values = VALUES | others
    return projection.query(sql, {n: values[n] for n in re.findall(r"\$(\w+)", sql)}).dicts()


def test_the_tables_and_views_have_just_the_documented_columns(projection: Projection) -> None:
    found: dict[str, list[str]] = {}
    for (relation,) in projection.query("SHOW TABLES").rows:
        found[relation] = list(projection.query(f"FROM {relation} LIMIT 0").columns)
    assert found == DOCUMENTED


def test_no_block_is_forgotten_here() -> None:
    assert len(BLOCKS) == DOCUMENT.count("```sql") == len(re.findall(r"```\n", DOCUMENT))
    tested = Path(__file__).read_text(encoding="utf-8")
    for sentence, _ in BLOCKS:
        begun = re.findall(r"ask\(projection, \"([^\"]+)\"", tested)
        assert any(sentence.startswith(words) for words in begun), sentence


def test_what_built_this_artifact(projection: Projection) -> None:
    rows = ask(projection, "What built this artifact")
    assert [(r["kind"], r["name"], r["phase"], r["seconds"]) for r in rows] == [
        ("teacher", "teacher", None, None),
        ("source", "source", None, None),
        ("dataset", "data-1", "dataset", 50.0),
        ("recipe", "small", None, None),
        ("checkpoint", "model-2", "training", 100.0),
        ("release", "release-2", "deployment", 10.0),
    ]


def test_what_a_data_set_reaches(projection: Projection) -> None:
    rows = ask(projection, "What this data set reaches")
    assert [(r["kind"], r["artifacts"]) for r in rows] == [
        ("checkpoint", 2),
        ("release", 2),
        ("report", 2),
    ]


def test_which_releases_used_that_teacher(projection: Projection) -> None:
    rows = ask(projection, "Which releases used that teacher")
    assert [r["release"] for r in rows] == [name("release-1"), name("release-2")]
    assert ask(projection, "Which releases used that teacher", teacher=name("stray")) == []


def test_what_was_imported(projection: Projection) -> None:
    rows = ask(projection, "Which artifacts were imported")
    assert [(r["name"], r["digest"], r["used_by"]) for r in rows] == [
        ("teacher", name("teacher"), 1),
        ("source", name("source"), 1),
        ("stray", name("stray"), 0),
        ("source", name("source-new"), 0),
    ]


def test_orphans(projection: Projection) -> None:
    rows = ask(projection, "Orphans")
    assert [r["digest"] for r in rows] == [
        name(text) for text in ("source-new", "plan-3", "plan-4", "stray")
    ]


def test_what_is_stale(projection: Projection) -> None:
    rows = ask(projection, "What is stale")
    assert [(r["digest"], r["made_from"], r["used"], r["newest"]) for r in rows] == [
        (name("data-1"), "source", name("source"), name("source-new"))
    ]


def test_an_older_version_that_was_published_again_is_the_newest(later: Later) -> None:
    again = ArtifactPublished(
        digest=name("source"),
        kind=Kind.SOURCE,
        form="blob",
        size=6,
        origin="imported",
        name="source",
    )
    assert ask(later(again), "What is stale") == []


def test_plans_that_are_not_done(projection: Projection) -> None:
    (row,) = ask(projection, "Plans that are not done")
    assert (row["plan"], row["slots_filled"], row["failure"]) == (
        name("plan-4"),
        0,
        "export: ended",
    )


def test_cost_per_release_counts_failed_attempts_and_nothing_that_was_reused(
    projection: Projection,
) -> None:
    rows = ask(projection, "Cost per release")
    assert [(r["release"], r["attempts"], r["seconds"], r["lost"]) for r in rows] == [
        (name("release-1"), 3, 160.0, 0.0),
        (name("release-2"), 3, 140.0, 30.0),
    ]


def test_cost_per_phase(projection: Projection) -> None:
    rows = ask(projection, "Cost per phase")
    assert [(r["phase"], r["attempts"], r["seconds"], r["lost_percent"]) for r in rows] == [
        ("training", 3, 230.0, 13.0),
        ("export", 1, 120.0, 100.0),
        ("dataset", 1, 50.0, 0.0),
        ("deployment", 2, 20.0, 0.0),
    ]


def test_slowest_phases(projection: Projection) -> None:
    rows = ask(projection, "Slowest phases")
    assert [(r["phase"], r["runs"], r["half_within"]) for r in rows] == [
        ("training", 2, 100.0),
        ("dataset", 1, 50.0),
        ("deployment", 2, 10.0),
    ]


RUN: Any = {"phase": "export", "slot": "export", "plan": name("plan-4"), "attempt": 1}


def began(run: str, attempt: int = 1) -> RunStarted:
    about = RUN | {"attempt": attempt, "phase_version": 3}
    return RunStarted(**about, run=name(run), inputs=(), params={}, tools={})


def died(run: str, attempt: int = 1) -> RunAbandoned:
    return RunAbandoned(**RUN | {"attempt": attempt}, run=name(run), reason="died")


def test_failed_runs_and_why(projection: Projection, later: Later) -> None:
    assert ask(projection, "Failed runs and why") == []  # the one that ended was cancelled
    (row,) = ask(later(began("dead-run"), died("dead-run")), "Failed runs and why")
    assert (row["phase"], row["status"], row["message"], row["latest_run"]) == (
        "export",
        "abandoned",
        "died",
        name("dead-run"),
    )


def test_only_a_cancellation_that_was_heeded_is_one(later: Later) -> None:
    """Not one that came after the end, and not one of an attempt before."""
    late = [began("late"), died("late"), RunCancelled(run=name("late"), attempt=1)]
    heeded = [began("heeded"), RunCancelled(run=name("heeded"), attempt=1), died("heeded")]
    again = [began("again"), RunCancelled(run=name("again"), attempt=1), died("again")]
    again += [began("again", 2), died("again", 2)]
    other = [began("other", 2), RunCancelled(run=name("other"), attempt=1), died("other", 2)]
    asked = "SELECT run, status FROM runs WHERE seq > 45 ORDER BY started_seq"
    assert later(*late, *heeded, *again, *other).query(asked).rows == (
        (name("late"), "abandoned"),
        (name("heeded"), "cancelled"),
        (name("again"), "abandoned"),
        (name("other"), "abandoned"),
    )


def test_each_attempt_costs_under_the_word_for_its_own_end(later: Later) -> None:
    """An attempt that was cancelled stays so when a later one of the same run dies."""
    late = [began("late"), died("late"), RunCancelled(run=name("late"), attempt=1)]
    again = [began("again"), *[RunCancelled(run=name("again"), attempt=1)] * 2, died("again")]
    again += [began("again", 2), died("again", 2)]
    asked = "SELECT run, attempt, status, lost = seconds FROM costs WHERE seq > 45 ORDER BY seq"
    assert later(*late, *again).query(asked).rows == (
        (name("late"), 1, "abandoned", True),
        (name("again"), 1, "cancelled", True),
        (name("again"), 2, "abandoned", True),
    )


def test_which_runs_used_a_package(projection: Projection) -> None:
    rows = ask(projection, "Which runs used package")
    assert [(r["phase"], r["plan"]) for r in rows] == [
        ("training", name("plan-1")),
        ("dataset", name("plan-1")),
    ]
    assert len(ask(projection, "Which runs used package", version="2.13.0")) == 5


def test_gates_that_flipped(projection: Projection) -> None:
    (row,) = ask(projection, "Gates that flipped")
    assert (row["before"], row["verdict"], row["plan"]) == ("fail", "pass", name("plan-2"))
    assert ask(projection, "Gates that flipped", slot="export") == []


def test_waived_gates_in_releases(projection: Projection) -> None:
    (row,) = ask(projection, "Waived gates in releases")
    assert (row["release"], row["gate"], row["author"], row["until"]) == (
        name("release-1"),
        "training.kl",
        "ada",
        "2026-11-20T00:00:00Z",
    )


def test_who_waived_what(projection: Projection) -> None:
    rows = ask(projection, "Who waived what")
    assert [(r["author"], r["waivers"], r["latest_reason"]) for r in rows] == [
        ("ada", 1, "known"),
        ("ben", 1, "known"),
    ]


def test_which_version_was_in_production(projection: Projection) -> None:
    (row,) = ask(projection, "Which version was in production")
    assert (row["digest"], row["name"]) == (name("release-1"), "small")
    (row,) = ask(projection, "Which version was in production", day="2026-11-30")
    assert row["digest"] == name("release-2")
    assert ask(projection, "Which version was in production", day="2026-10-31") == []


def test_every_version_of_a_tag(projection: Projection) -> None:
    first, second = ask(projection, "Every version that a tag ever meant")
    assert (first["digest"], first["until"]) == (name("release-1"), second["since"])
    assert (second["digest"], second["until"]) == (name("release-2"), None)


def test_what_changed_between_two_releases(projection: Projection) -> None:
    rows = ask(projection, "What changed between two releases")
    assert [(r["side"], r["kind"], r["digest"]) for r in rows] == [
        ("new", "checkpoint", name("model-2")),
        ("old", "checkpoint", name("model-1")),
        ("new", "recipe", name("plan-2")),
        ("old", "recipe", name("plan-1")),
        ("new", "release", name("release-2")),
        ("old", "release", name("release-1")),
    ]


def test_what_was_done_differently(projection: Projection) -> None:
    rows = ask(projection, "In what the same slot")
    assert [(r["slot"], r["other_version"], r["other_params"], r["other_tools"]) for r in rows] == [
        ("deployment", False, True, False),
        ("training", False, True, True),
    ]


def test_events_per_day_and_actor(projection: Projection) -> None:
    rows = ask(projection, "Events per day and actor")
    assert [(r["day"], r["actor"], r["events"]) for r in rows] == [
        (date(2026, 11, 1), "ada@still-1", 20),
        (date(2026, 11, 2), "ada@still-1", 16),
        (date(2026, 11, 3), "ada@still-1", 8),
        (date(2026, 11, 4), "ben@still-2", 1),
    ]


# --- as of then --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "events"),
    [("1", 1), ("20", 20), ("2026-10-31", 0), ("2026-11-01", 20), ("2026-11-02", 36)],
)
def test_everything_is_as_it_was(projection: Projection, at: str, events: int) -> None:
    def then(sql: str) -> Any:
        return projection.query(sql, at=as_of(at)).rows

    assert then("SELECT count(*), coalesce(max(seq), 0) FROM event") == ((events, events),)
    counted = [relation for relation, columns in DOCUMENTED.items() if "seq" in columns]
    latest = " UNION ALL ".join(f"(FROM {each} SELECT max(seq) AS seq)" for each in counted)
    assert then(f"FROM ({latest}) SELECT coalesce(max(seq), 0)") == ((events,),)
    assert {relation for (relation,) in then("SHOW TABLES")} == set(DOCUMENTED) - {"layout"}


def test_views_answer_as_they_did_then(projection: Projection) -> None:
    """Replayed: a projection of just the first events says the same."""

    def then(sql: str, at: str) -> Any:
        return projection.query(sql, at=as_of(at)).rows

    production = "SELECT digest FROM tags WHERE name = 'production'"
    assert then(production, "2026-11-01") == ((name("release-1"),),)
    assert then(production, "2026-11-01T00:05:00Z") == ()
    waived = "SELECT waived_by FROM gates WHERE verdict = 'fail'"
    assert then(waived, "2026-11-19") == (("ada",),)
    assert then(waived, "2026-11-20T00:00:00+00:00") == ((None,),)
    assert then(waived, "2026-11-20T00:30:00+01:00") == (("ada",),)
    status = "SELECT status FROM plans ORDER BY seq"
    assert then(status, "2026-11-03") == (
        ("released",),
        ("released",),
        ("cancelled",),
        ("requested",),
    )
    assert then("FROM moment", "1") == (
        (datetime(2026, 11, 1, 0, 1, tzinfo=UTC).replace(tzinfo=None),),
    )


def test_a_cursor_of_the_past_is_where_the_ledger_then_ended(
    projection: Projection, tmp_path: Path
) -> None:
    History(tmp_path / "events.log")
    lines = (tmp_path / "events.log").read_bytes().splitlines(keepends=True)
    (tmp_path / "events.log").write_bytes(b"".join(lines[:20]))
    early = Projection(tmp_path / "registry.duckdb", tmp_path / "events.log")
    for relation in ("cursor", "artifacts", "runs", "plans", "costs", "slots", "lineage"):
        asked = f"FROM {relation} ORDER BY ALL"
        assert early.query(asked).rows == projection.query(asked, at=as_of("20")).rows
