"""`still gc`: what goes, what stays, and that nothing is lost wherever it is killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stillhouse import collect, recipes
from stillhouse import stock as holdings
from stillhouse.cli.main import main
from stillhouse.phases.workers.job import Outcome
from stillhouse.publish import take_in
from stillhouse.registry.home import Home
from stillhouse.registry.keeping import collection
from stillhouse.schemas import canonical, moment
from stillhouse.schemas.artifact import Kind, Parent, Product
from stillhouse.schemas.events import ArtifactPublished, RunStarted
from stillhouse.session import Session

from .conftest import Answer, Still
from .recorded import Recorder

Travel = Callable[[int], None]


@pytest.fixture
def days(monkeypatch: pytest.MonkeyPatch) -> Travel:
    """`days(n)`: garbage collection thinks that so many have passed."""

    def travel(count: int) -> None:
        monkeypatch.setattr(
            "stillhouse.collect.clock", lambda: datetime.now(UTC) + timedelta(days=count)
        )

    return travel


def _source(still: Still, place: Path, name: str, text: str | None = None) -> str:
    path = place / name
    path.write_text(text or f"{name}\n", encoding="utf-8")
    answer = still("publish", path, "--kind", "source")
    assert answer.code == 0, answer.err
    return answer.out.strip()


def _folder(still: Still, place: Path, name: str, **files: str) -> str:
    for file, text in files.items():
        path = place / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return still("publish", place / name, "--kind", "source").out.strip()


def _fates(answer: Answer) -> dict[str, str]:
    assert answer.code == 0, answer.err
    return {item["digest"]: item["fate"] for item in answer.json["artifacts"]}


def _events(session: Session, kind: str) -> list[dict[str, Any]]:
    return [event.data for event in session.ledger.read() if event.type == kind]


def _started(key: str, *inputs: dict[str, str]) -> RunStarted:
    return RunStarted.model_validate(
        {
            "run": key,
            "phase": "dataset",
            "phase_version": 1,
            "plan": "cd" * 32,
            "slot": "dataset",
            "attempt": 1,
            "inputs": inputs,
            "params": {},
            "tools": {},
        }
    )


# -- what goes ----------------------------------------------------------------------------------


def test_an_old_artifact_is_condemned_readable_and_swept_after_the_grace(
    still: Still, session: Session, place: Path, days: Travel
) -> None:
    digest = _source(still, place, "a.txt")
    assert _fates(still("gc", "--json")) == {}
    days(15)
    assert _fates(still("gc", "--json")) == {digest: "condemn"}
    assert still("cat", digest).out == "a.txt\n"
    days(28)
    assert _fates(still("gc", "--json")) == {digest: "condemned"}
    days(30)
    assert _fates(still("gc", "--json")) == {digest: "sweep"}
    assert not session.store.has(digest)
    assert session.state().absent.keys() == {digest}
    assert session.state().condemned == {}
    assert _fates(still("gc", "--json")) == {}


def test_what_a_tag_names_is_kept_with_all_files_of_its_folder(
    still: Still, session: Session, place: Path, days: Travel
) -> None:
    kept = _folder(still, place, "kept", a="common", b="own")
    gone = _folder(still, place, "gone", a="common", c="other")
    still("tag", "mine", kept)
    for age in (15, 30):
        days(age)
        assert still("gc").code == 0
    assert still("checkout", kept, "out").code == 0
    assert (place / "out" / "a").read_text() == "common"
    assert session.state().absent.keys() == {gone}
    common = session.store.put_bytes(b"common").digest
    assert sorted(session.store.digests()) == sorted(
        {kept, common, session.store.put_bytes(b"own").digest}
    )


def test_a_tag_reprieves_what_is_condemned(
    still: Still, session: Session, place: Path, days: Travel
) -> None:
    digest = _source(still, place, "a.txt")
    days(15)
    still("gc")
    still("tag", "mine", digest)
    days(60)
    assert _fates(still("gc", "--json")) == {digest: "reprieve"}
    assert (session.home.objects / digest[:2] / digest[2:]).is_file()
    assert list(session.store.condemned()) == []
    assert session.state().condemned == {}


def test_a_condemned_blob_that_is_published_again_survives(
    still: Still, session: Session, place: Path, days: Travel
) -> None:
    digest = _source(still, place, "a.txt")
    days(15)
    still("gc")
    _source(still, place, "a.txt")
    assert session.state().condemned == {}
    still("tag", "mine", digest)
    days(60)
    still("gc")
    assert still("cat", digest).out == "a.txt\n"
    assert list(session.store.condemned()) == []


def test_a_swept_artifact_that_is_published_again_is_there_again(
    still: Still, session: Session, place: Path, days: Travel
) -> None:
    digest = _source(still, place, "a.txt")
    for age in (15, 30):
        days(age)
        still("gc")
    assert digest in session.state().absent
    _source(still, place, "a.txt")
    assert session.state().absent == {}
    assert still("cat", digest).out == "a.txt\n"


def test_what_a_killed_publisher_left_goes_too_and_is_recorded_as_orphans(
    still: Still, session: Session, days: Travel
) -> None:
    orphan = session.store.put_bytes(b"nobody refers to me").digest
    assert still("gc", "--json").json["bytes"]["condemned"] == 0
    for age in (15, 30):
        days(age)
        assert still("gc").code == 0
    assert not session.store.has(orphan)
    assert [e["orphans"] for e in _events(session, "bytes.condemned")] == [[orphan]]
    assert [e["orphans"] for e in _events(session, "bytes.swept")] == [[orphan]]


def test_thousands_of_orphans_fit_into_events(session: Session, still: Still) -> None:
    with session.store.batch() as batch:
        for n in range(2000):
            batch.add_bytes(b"%d" % n)
        batch.commit()
    assert still("gc", "--grace", "0").code == 0
    told = _events(session, "bytes.condemned")
    assert sum(len(e["orphans"]) for e in told) == sum(e["objects"] for e in told) == 2000


def test_what_a_finished_worker_left_for_the_reactor_is_kept(
    still: Still, session: Session
) -> None:
    made = session.store.put_bytes(b"made by a run").digest
    key = "ab" * 32
    session.ledger.append([_started(key)])
    product = Product(role="r", kind=Kind.REPORT, digest=made, form="blob", size=13)
    outcome = Outcome(run=key, attempt=1, status="succeeded", products=(product,), seconds=1.0)
    folder = session.home.run(key)
    folder.mkdir(parents=True)
    (folder / "outcome.json").write_bytes(canonical.encode(outcome.to_json()))
    still("gc", "--grace", "0")
    assert list(session.store.digests()) == [made]
    (folder / "outcome.json").unlink()
    still("gc", "--grace", "0")
    assert list(session.store.digests()) == []


def test_nothing_that_made_or_judged_a_release_ever_goes(
    still: Still, session: Session, place: Path, policy: Path, days: Travel
) -> None:
    recorder = Recorder(session, place)
    recorder.run(recorder.plan(policy))
    assert session.state().releases
    days(365)
    fates = _fates(still("gc", "--json"))
    state = session.state()
    shaped = {i.digest for run in state.runs.values() for i in run.started.inputs}
    judged = {digest for _, *digests in state.verdicts for digest in digests}
    assert shaped
    assert judged
    assert not fates.keys() & (shaped | judged)


def test_a_log_goes_with_what_its_run_made_and_fsck_and_logs_know(
    still: Still, session: Session, place: Path, policy: Path, days: Travel
) -> None:
    recorder = Recorder(session, place, logs=True)
    recorder.run(recorder.plan(policy, deployment=None))
    run = next(run for run in session.state().runs.values() if run.log)
    assert run.log is not None
    days(15)
    still("gc")
    assert session.store.read(run.log)
    days(30)
    still("gc")
    assert not session.store.has(run.log)
    assert still("logs", run.key).code != 0
    assert still("fsck").code == 0


def test_a_grace_that_is_shorter_than_recorded_is_recorded_before_it_counts(
    still: Still, session: Session, place: Path
) -> None:
    digest = _source(still, place, "a.txt")
    still("gc", "--grace", "0")
    far = _events(session, "bytes.condemned")[0]["until"]
    assert _fates(still("gc", "--grace", "0", "--json")) == {digest: "sweep"}
    assert far <= moment.spell(datetime.now(UTC))


def test_no_artifact_loses_bytes_before_the_time_that_was_recorded_for_it(
    still: Still, session: Session, place: Path, days: Travel
) -> None:
    digest = _source(still, place, "a.txt")
    days(15)
    still("gc")
    before = session.state().condemned[digest]
    answer = still("gc", "--grace", "1h", "--json")
    assert _fates(answer) == {digest: "condemn"}
    assert session.store.has(digest)
    assert session.state().condemned[digest] < before


# -- what is said -------------------------------------------------------------------------------


def test_a_dry_run_changes_nothing_and_says_what_a_real_one_does(
    still: Still, session: Session, home: Home, place: Path, days: Travel
) -> None:
    old = _source(still, place, "a.txt")
    kept = _source(still, place, "b.txt")
    still("tag", "mine", kept)
    days(15)
    before = home.log.read_bytes()
    answer = still("gc", "--dry-run")
    assert home.log.read_bytes() == before
    assert sorted(session.store.digests()) == sorted([old, kept])
    (row,) = [r for r in answer.rows if r[0] == "condemn"]
    assert row[1:5] == [old, "source", "6", "a.txt"]
    assert "still tag" in answer.err
    assert "Nothing was changed" in answer.err
    listed = still("gc", "--dry-run", "--all").rows
    assert ["keep", kept, "source", "6", "b.txt", "a tag names it: mine"] in listed
    assert ["total", "kept: a tag names it", "1", "6"] in listed
    told = still("gc", "--dry-run", "--all", "--json").json
    assert told["dry_run"]
    assert {k["digest"]: k["reason"] for k in told["kept"]} == {kept: "tagged"}
    assert _fates(still("gc", "--json")) == {old: "condemn"}


def test_totals_count_every_byte_of_the_store_once(
    still: Still, session: Session, place: Path, days: Travel
) -> None:
    kept = _folder(still, place, "kept", a="common", b="own")
    _folder(still, place, "gone", a="common", c="other")
    session.store.put_bytes(b"orphan")
    still("tag", "mine", kept)
    days(15)
    told = still("gc", "--json").json
    sizes = [path.stat().st_size for path in session.home.objects.rglob("*") if path.is_file()]
    assert sum(total["bytes"] for total in told["totals"]) == sum(sizes)


def test_who_keeps_a_sweep_from_what_could_go_is_told(
    still: Still, session: Session, place: Path
) -> None:
    _source(still, place, "a.txt")
    with session.store.lease():
        still("gc", "--grace", "0")
        told = still("gc", "--grace", "0", "--json").json
        assert told["bytes"]["leased"] == told["bytes"]["waiting"] == 6
        (lease,) = told["leases"]
        assert lease["pid"] == os.getpid()
        assert f"process {os.getpid()} may rely on them" in still("gc", "--grace", "0").err
    answer = still("gc", "--grace", "0")
    assert "may rely" not in answer.err
    assert session.state().absent


def test_a_short_grace_is_pointed_out(still: Still, place: Path) -> None:
    still("init")
    _source(still, place, "a.txt")
    assert "very next gc" in still("gc", "--grace", "0").err


@pytest.mark.parametrize(
    "text", ["", "14", "x", "-1d", "1y", "14d14d", "9999999d", "999999d", "52144w"]
)
def test_a_grace_that_is_no_duration_is_bad_usage(still: Still, home: Home, text: str) -> None:
    assert home.exists
    answer = still("gc", "--grace", text)
    assert answer.code == 2
    assert "Next:" in answer.err


def test_a_kept_folder_whose_list_is_damaged_stops_everything(
    still: Still, session: Session, place: Path
) -> None:
    kept = _folder(still, place, "kept", a="one", b="two")
    orphan = session.store.put_bytes(b"orphan").digest
    still("tag", "mine", kept)
    path = session.store.path(kept)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    answer = still("gc", "--grace", "0")
    assert answer.code == 1
    assert "still repair" in answer.err
    assert orphan in session.store.digests()


def test_two_do_not_collect_at_once(still: Still, home: Home) -> None:
    from stillhouse.stock import alone

    with alone(home):
        assert still("gc").code == 1
    assert still("gc").code == 0


# -- beside others ------------------------------------------------------------------------------


def test_a_publisher_that_looked_before_is_never_hurt(
    still: Still, session: Session, place: Path
) -> None:
    """It saw the object in its place, was slow, and recorded only after two collections."""
    path = place / "a.txt"
    path.write_text("mine", encoding="utf-8")
    with session.store.lease():
        stored = session.store.put_file(path)
        for _ in range(3):
            assert still("gc", "--grace", "0").code == 0
        fact = ArtifactPublished(
            digest=stored.digest, kind=Kind.SOURCE, form="blob", size=4, origin="imported"
        )
        session.ledger.append([fact])
    still("tag", "mine", stored.digest)
    for _ in range(3):
        assert still("gc", "--grace", "0").code == 0
    assert session.store.read(stored.digest) == b"mine"


def test_what_a_recipe_names_stays_until_the_recipe_is_recorded(
    still: Still, session: Session, place: Path, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = place / "r.toml"
    recipe.write_text('name = "r"\npolicy = "policy.toml"\n', encoding="utf-8")
    assert policy.is_file()
    real = take_in

    def slow(*given: Any) -> Any:
        found = real(*given)
        for _ in range(2):
            assert still("gc", "--grace", "0").code == 0
        return found

    monkeypatch.setattr(recipes, "take_in", slow)
    plan = recipes.resolve(session, recipe)
    assert session.state().absent == {}
    assert session.store.has(session.state().recipe(plan).policy)


def test_a_decision_is_taken_again_when_something_was_recorded_meanwhile(
    still: Still, session: Session, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = _source(still, place, "a.txt")
    still("gc", "--grace", "0")
    real, late = collection.decide, list[object]()

    def slow(*given: Any, **more: Any) -> Any:
        found = real(*given, **more)
        if not late:
            late.append(still("tag", "mine", digest))
        return found

    monkeypatch.setattr(collect, "decide", slow)
    still("gc", "--grace", "0")
    assert late
    assert session.state().absent == {}
    assert session.store.read(digest) == b"a.txt\n"


def _after_each_decision(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[int], object], most: int
) -> list[int]:
    """What is recorded by others between a decision and its record, so many times at most."""
    real, decisions = collection.decide, list[int]()

    def slow(*given: Any, **more: Any) -> Any:
        found = real(*given, **more)
        decisions.append(len(decisions))
        if len(decisions) <= most:
            act(len(decisions))
        return found

    monkeypatch.setattr(collect, "decide", slow)
    return decisions


@pytest.mark.usefixtures("home")
def test_publishers_of_other_things_do_not_keep_it_from_deciding(
    still: Still, place: Path, days: Travel, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = _source(still, place, "a.txt")
    kept = _source(still, place, "kept.txt")
    still("tag", "kept", kept)
    days(15)

    def busy(count: int) -> None:
        new = _source(still, place, f"{count}.txt")
        still("tag", f"kept-{count}", kept)
        still("tag", f"new-{count}", new)

    decisions = _after_each_decision(monkeypatch, busy, most=1000)
    assert _fates(still("gc", "--json")) == {digest: "condemn"}
    assert len(decisions) == 1


@pytest.mark.parametrize("how", ["tagged", "made into a tagged one", "part of a tagged folder"])
def test_what_is_needed_since_the_look_is_kept_and_the_disk_is_looked_at_once(
    still: Still,
    session: Session,
    place: Path,
    days: Travel,
    monkeypatch: pytest.MonkeyPatch,
    *,
    how: str,
) -> None:
    digest = _source(still, place, "a.txt")
    days(15)
    still("gc")

    def need(_count: int) -> None:
        needing = digest
        if how == "made into a tagged one":
            (place / "child").write_text("child", encoding="utf-8")
            made_from = (Parent(role="source", digest=digest),)
            needing = take_in(session, place / "child", Kind.SOURCE, parents=made_from).digest
        elif how == "part of a tagged folder":
            needing = _folder(still, place, "folder", a="a.txt\n")
        still("tag", "mine", needing)

    looks = list[Home]()
    placed = holdings._placed

    def look(home: Home) -> Any:
        looks.append(home)
        return placed(home)

    monkeypatch.setattr(holdings, "_placed", look)
    days(60)
    decisions = _after_each_decision(monkeypatch, need, most=1)
    assert still("gc").code == 0
    assert (len(decisions), len(looks)) == (2, 1)
    assert still("gc").code == 0
    assert session.store.read(digest) == b"a.txt\n"
    assert list(session.store.condemned()) == []


def test_a_run_that_started_meanwhile_keeps_its_inputs(
    still: Still, session: Session, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = _source(still, place, "a.txt")
    still("gc", "--grace", "0")
    fact = _started("ab" * 32, {"role": "source", "digest": digest})
    real, late = collection.decide, list[object]()

    def slow(*given: Any, **more: Any) -> Any:
        found = real(*given, **more)
        if not late:
            late.append(session.ledger.append([fact]))
        return found

    monkeypatch.setattr(collect, "decide", slow)
    still("gc", "--grace", "0")
    assert late
    assert session.state().absent == {}
    assert session.store.read(digest) == b"a.txt\n"


# -- killed anywhere ----------------------------------------------------------------------------

_CALLS = ("rename", "unlink", "link", "fsync", "chmod", "write", "mkdir")


def _killed(act: Callable[[], object], after: int) -> bool:
    """Do it in a forked process that dies before one of its system calls; whether it died."""
    child = os.fork()
    if child == 0:
        left = after

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any, **more: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*given, **more)

            return call

        try:
            for name in _CALLS:
                setattr(os, name, counted(getattr(os, name)))
            act()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _consistent(session: Session, contents: dict[str, bytes], live: set[str]) -> None:
    """Nothing live is lost, and what is gone is known to be."""
    state = session.state()
    for digest, data in contents.items():
        if digest not in state.absent:
            assert session.store.read(digest) == data
    assert not live & (state.absent.keys() | state.condemned.keys())


def test_killed_at_any_step_it_loses_nothing_live_and_the_next_one_finishes(
    still: Still, session: Session, place: Path
) -> None:
    deaths = 0
    for after in range(200):
        contents = {
            _source(still, place, f"{after}-{n}.txt"): f"{after}-{n}.txt\n".encode()
            for n in range(3)
        }
        first, second, third = contents
        session.store.put_bytes(b"orphan %d" % after)
        still("tag", "kept", first)
        assert still("gc", "--grace", "0").code == 0  # second and third are condemned
        still("tag", "again", second)
        _source(still, place, f"{after}-new.txt")
        died = _killed(lambda: main(["gc", "--grace", "0"]), after)
        _consistent(session, contents, {first, second} if not died else {first})
        for _ in range(3):
            assert still("gc", "--grace", "0").code == 0
        _consistent(session, contents, {first, second})
        assert third in session.state().absent
        assert set(session.store.digests()) == {first, second}
        assert list(session.store.condemned()) == []
        deaths += died
        if not died:
            break
    assert deaths > 15
    assert not died


def _collect_until(stop: Path, rng: random.Random) -> None:
    """In a process of its own: collect again and again, each time in one that may be killed."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(devnull, descriptor)
    while not stop.exists():
        child = os.fork()
        if child == 0:
            os._exit(main(["gc", "--grace", "0"]))
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
        code = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(code) and os.waitstatus_to_exitcode(code) != 0:
            stop.with_name("failed").touch()


def test_publishers_race_with_collectors_that_are_killed_and_nothing_tagged_is_lost(
    still: Still, session: Session, place: Path
) -> None:
    """Collectors take at once, without any grace, what is not tagged yet."""
    rng, stop = random.Random(7), place / "stop"
    collector = os.fork()
    if collector == 0:
        try:
            _collect_until(stop, random.Random(8))
        finally:
            os._exit(0)
    tagged: dict[str, bytes] = {}
    try:
        for turn in range(120):
            data = b"content %d" % rng.randrange(40)
            path = place / f"p{turn}"
            path.write_bytes(data)
            with session.store.lease():  # as a publisher that has more to record
                digest = take_in(session, path, Kind.SOURCE, renew=True).digest
                if rng.random() < 0.4:
                    assert still("tag", f"t-{digest[:6]}", digest).code == 0
                    tagged[digest] = data
    finally:
        stop.touch()
        os.waitpid(collector, 0)
    assert not (place / "failed").exists()
    state = session.state()
    assert state.absent
    for digest, data in tagged.items():
        assert digest not in state.absent
        assert session.store.read(digest) == data
