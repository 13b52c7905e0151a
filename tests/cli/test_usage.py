"""`still du`: who holds the bytes; whatever it is told by, the rows add up to the store."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from stillhouse.session import Session

from .conftest import Still
from .recorded import Recorder


def _on_disk(session: Session) -> int:
    return sum(
        path.stat().st_size
        for path in session.home.objects.glob("[0-9a-f][0-9a-f]/*")
        if path.is_file()
    )


def _shared_store(still: Still, session: Session, place: Path, seed: int) -> None:
    """Folders that share files at random, one of them condemned, and an orphan."""
    rng = random.Random(seed)
    for n in range(5):
        folder = place / f"folder-{n}"
        folder.mkdir()
        for m in range(rng.randrange(1, 6)):
            (folder / f"{m}").write_bytes(b"x" * rng.randrange(8))
        digest = still("publish", folder, "--kind", rng.choice(["source", "fixtures"])).out.strip()
        if rng.random() < 0.6:
            still("tag", f"t{n}", digest)
    still("gc", "--grace", "0")
    session.store.put_bytes(b"orphan %d" % seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("by", ["artifact", "kind", "tag", "release"])
def test_unique_and_shared_bytes_add_up_to_the_store(
    still: Still, session: Session, place: Path, by: str, seed: int
) -> None:
    _shared_store(still, session, place, seed)
    condemned = sum(found.size for found in session.store.condemned())
    told = still("du", "--by", by, "--top", "99", "--json").json
    assert told["store"] == _on_disk(session) + condemned
    assert told["condemned"] == condemned
    assert sum(row["unique"] for row in told["holders"]) == told["unique"]
    assert told["unique"] + told["shared"] == told["store"]
    assert all(row["total"] == row["unique"] + row["shared"] for row in told["holders"])


def test_unique_bytes_are_those_that_go_with_it(still: Still, session: Session) -> None:
    for name in ("one", "two"):
        Path(name).mkdir()
        Path(name, "common").write_text("c" * 100, encoding="utf-8")
        Path(name, name).write_text(name, encoding="utf-8")
        still("tag", name, still("publish", name, "--kind", "source").out.strip())
    (row,) = still("du", "one", "--json").json["holders"]
    assert (row["shared"], row["name"]) == (100, "source one")
    still("tag", "one", session.state().tags["two"])
    for _ in range(2):
        still("gc", "--grace", "0")
    (alone,) = still("du", "two", "--json").json["holders"]
    assert alone["shared"] == 0
    assert alone["unique"] == alone["total"] == _on_disk(session)


def test_releases_hold_what_went_into_them_and_logs_and_orphans_have_rows(
    still: Still, session: Session, place: Path, policy: Path
) -> None:
    recorder = Recorder(session, place, logs=True)
    recorder.run(recorder.plan(policy))
    orphan = session.store.put_bytes(b"orphan")
    session.store.put_bytes(b"half")
    ((release, _),) = session.state().releases
    rows = {row[0]: row for row in still("du", "--by", "release").rows}
    assert int(rows[release[:12]][1]) > 0
    assert {"(logs)", "(no release)", "(orphans)"} <= rows.keys()
    assert int(rows["(orphans)"][1]) == orphan.size + 4


def test_only_so_many_rows_are_listed_largest_first(still: Still, session: Session) -> None:
    for size in (10, 30, 20):
        session.store.put_bytes(b"x" * size)
        Path(f"{size}").write_bytes(b"x" * size)
        still("publish", f"{size}", "--kind", "source")
    told = still("du", "--by", "artifact", "--top", "2")
    assert [row[1] for row in told.rows[:2]] == ["30", "20"]
    assert "1 more" in told.err
    assert still("du", "--by", "artifact", "--top", "2", "--json").json["left_out"] == 1


def test_left_overs_of_a_dead_publisher_are_told(still: Still, session: Session) -> None:
    left = session.home.objects / "tmp" / "put-dead"
    left.mkdir()
    (left / "0").write_bytes(b"12345")
    assert ["left over", "5"] in [row[:2] for row in still("du").rows]
    assert still("gc").code == 0
    assert "left over" not in still("du").out


@pytest.mark.parametrize(
    "wrong", [["nosuch"], ["--by", "size"], ["--top", "0"], ["source@latest", "x"]]
)
def test_wrong_usage_is_told(still: Still, session: Session, wrong: list[str]) -> None:
    assert session.home.exists
    answer = still("du", *wrong)
    assert answer.code == 2
    assert answer.err


def test_an_empty_store_holds_nothing(still: Still, session: Session) -> None:
    assert session.home.exists
    told = still("du", "--json").json
    assert (told["holders"], told["store"]) == ([], 0)
