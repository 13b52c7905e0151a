"""`still evict`: only what can be made again goes, at once, and never from under anybody."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from stillhouse.cli.main import main
from stillhouse.schemas.artifact import Kind
from stillhouse.session import Session
from stillhouse.store.disk.hashing import hash_bytes

from .conftest import Still
from .recorded import Recorder
from .repeatable import COUNTED, SAID, Repeatable
from .test_gc import _killed


@pytest.fixture
def runs(session: Session, place: Path) -> Repeatable:
    """Records runs."""
    return Repeatable(session, place / "phase")


def test_its_bytes_are_freed_at_once_and_its_recipe_stays(
    still: Still, session: Session, runs: Repeatable
) -> None:
    digest = runs.ran("say", SAID, runs.published(b"input"))
    answer = still("evict", digest, "--json")
    assert (answer.code, answer.json["freed"]) == (0, len(SAID))
    assert not session.store.has(digest)
    assert session.state().absent.keys() == {digest}
    assert session.state().artifacts[digest][0].run == answer.json["run"]
    assert still("fsck").code == 0


def test_what_another_artifact_needs_stays(
    still: Still, session: Session, runs: Repeatable, place: Path
) -> None:
    digest = runs.ran("say", SAID)
    (place / "folder").mkdir()
    (place / "folder" / "same").write_bytes(SAID)
    folder = still("publish", "folder", "--kind", "source").out.strip()
    assert still("evict", digest, "--json").json["freed"] == 0
    assert session.store.has(digest)
    assert still("checkout", folder, "out").code == 0


def test_a_dry_run_says_so_and_changes_nothing(
    still: Still, session: Session, runs: Repeatable
) -> None:
    digest = runs.ran("say", SAID)
    before = session.home.log.read_bytes()
    answer = still("evict", digest, "--dry-run")
    assert answer.rows[0] == ["would free", digest, str(len(SAID))]
    assert answer.rows[1][:2] == ["made by", "tested/say"]
    assert session.store.has(digest)
    assert session.home.log.read_bytes() == before


def test_what_was_published_by_hand_is_refused(
    still: Still, session: Session, runs: Repeatable
) -> None:
    digest = runs.published(b"input")
    answer = still("evict", digest)
    assert answer.code == 2
    assert "no recorded run made it" in answer.err
    assert session.store.has(digest)


def test_what_needs_an_input_that_is_gone_for_good_is_refused_and_the_input_named(
    still: Still, runs: Repeatable
) -> None:
    gone = runs.published(b"input")
    for _ in range(2):
        still("gc", "--grace", "0")
    digest = runs.ran("say", SAID, gone)
    answer = still("evict", digest)
    assert answer.code == 2
    assert gone[:12] in answer.err
    assert "still repair" in answer.err


def test_what_needs_an_input_that_can_be_made_again_goes(
    still: Still, session: Session, runs: Repeatable
) -> None:
    first = runs.ran("say", SAID)
    second = runs.ran("count", COUNTED, first)
    assert still("evict", first).code == 0
    answer = still("evict", second, "--json")
    assert len(answer.json["steps"]) == 2
    assert session.state().absent.keys() == {first, second}


def test_what_is_made_from_itself_can_not_go(still: Still, runs: Repeatable) -> None:
    """A phase may hand on an input as one of its outputs."""
    digest = runs.published(SAID)
    runs.ran("say", SAID, digest)
    answer = still("evict", digest)
    assert answer.code == 2
    assert "reads it as well" in answer.err


def test_what_a_run_reads_now_is_refused(still: Still, session: Session, runs: Repeatable) -> None:
    digest = runs.ran("say", SAID)
    runs.started("hold", digest)
    answer = still("evict", digest)
    assert answer.code == 1
    assert "tested/hold" in answer.err
    assert session.store.has(digest)


def test_a_release_and_what_it_was_made_from_go_only_by_force(
    still: Still, session: Session, place: Path, policy: Path
) -> None:
    Recorder(session, place).run(Recorder(session, place).plan(policy))
    ((release, _),) = session.state().releases
    package = next(
        p.digest
        for p in session.state().artifacts[release][0].fact.parents
        if p.role.startswith("mlpackage")
    )
    for digest in (release, package):
        answer = still("evict", digest)
        assert answer.code == 2
        assert "--force" in answer.err
        assert still("evict", digest, "--force").code == 0
        assert digest in session.state().absent


def test_a_report_goes_only_by_force(still: Still, runs: Repeatable) -> None:
    """It holds times, so no other run would make the same bytes."""
    digest = runs.ran("say", SAID, kind=Kind.REPORT)
    assert "is a report" in still("evict", digest).err
    assert still("evict", digest, "--force").code == 0


def test_bytes_that_somebody_at_work_may_have_seen_wait_for_the_next_gc(
    still: Still, session: Session, runs: Repeatable
) -> None:
    digest = runs.ran("say", SAID)
    with session.store.lease():
        answer = still("evict", digest)
        assert "still gc" in answer.err
        assert session.store.read(digest) == SAID
        assert still("gc").code == 0
        assert session.store.read(digest) == SAID
    assert still("gc").code == 0
    assert not session.store.has(digest)


def test_a_publisher_that_looked_before_gets_its_bytes_back(
    still: Still, session: Session, runs: Repeatable
) -> None:
    digest = runs.ran("say", SAID)
    with session.store.lease():
        session.store.put_bytes(SAID)
        still("evict", digest)
        runs.published(SAID, Kind.SOURCE)
    still("gc")
    assert session.store.read(digest) == SAID
    assert (session.home.objects / digest[:2] / digest[2:]).is_file()


def test_what_is_gone_already_is_told(still: Still, runs: Repeatable) -> None:
    digest = runs.ran("say", SAID)
    still("evict", digest)
    answer = still("evict", digest)
    assert answer.code == 2
    assert f"still rewind {digest[:12]}" in answer.err


@pytest.mark.parametrize("wrong", [[], ["nosuch"], ["--dry"]])
def test_wrong_usage_is_told(still: Still, session: Session, wrong: list[str]) -> None:
    assert session.home.exists
    assert still("evict", *wrong).code == 2


def test_killed_at_any_step_it_loses_nothing_and_what_may_be_gone_is_known(
    still: Still, session: Session, runs: Repeatable
) -> None:
    kept = runs.published(b"kept")
    still("tag", "kept", kept)
    deaths = 0
    for after in range(100):
        made = [b"made %d" % after, b"also made %d" % after]
        objects = {hash_bytes(data).digest: data for data in made}
        digest = runs.ran_folder(f"say {after}", *made)
        still("tag", "made", digest)
        died = _killed(partial(main, ["evict", digest]), after)
        deaths += died
        if digest not in session.state().absent:
            assert [session.store.read(o) for o in objects] == made
        assert session.store.read(kept) == b"kept"
        again = still("evict", digest)
        assert again.code == 0 or "gone already" in again.err
        assert not any(session.store.has(o) for o in (digest, *objects))
        assert digest in session.state().absent
        if not died:
            break
    assert deaths > 5
    assert not died
