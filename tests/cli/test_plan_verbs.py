"""The verbs about plans: gates, why, manifest, verify, run, over recorded outcomes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.events import GateWaived
from stillhouse.schemas.policy import Verdict
from stillhouse.schemas.release import GateRow, WaiverRow
from stillhouse.session import Session

from .conftest import Still
from .recorded import Recorder

TOO_FAR = {"export/prefill-8": {"parity.max_abs": 0.5}}
"""The required gate export.parity does not pass over the primary shape."""


@pytest.fixture
def recorder(session: Session, tmp_path: Path) -> Recorder:
    return Recorder(session=session, scratch=tmp_path / "scratch")


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the program although it may not be installed."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.fixture
def done(recorder: Recorder, policy: Path) -> Digest:
    """A plan that came to a release."""
    plan = recorder.plan(policy)
    assert recorder.run(plan).done
    return plan


@pytest.fixture
def closed(recorder: Recorder, policy: Path) -> Digest:
    """A plan that a closed gate keeps from its release."""
    recorder.measured = TOO_FAR
    plan = recorder.plan(policy)
    assert not recorder.run(plan).done
    return plan


def _events(session: Session) -> int:
    return session.ledger.head().seq


# -- gates --------------------------------------------------------------------------------------


def test_gates_shows_each_check_of_the_latest_plan(still: Still, done: Digest) -> None:
    (row,) = [r for r in still("gates").rows if r[:2] == ["export.parity", "export/prefill-8"]]
    assert row[:3] == ["export.parity", "export/prefill-8", "pass"]
    assert row[3:] == ["parity.max_abs", "0.01", "<=", "0.1", "8", "yes", ""]
    assert still("gates", done[:8]).rows == still("gates").rows


def test_gates_of_an_artifact_are_the_verdicts_over_it(still: Still, closed: Digest) -> None:
    told = still("gates", closed[:8], "--json").json
    (failed,) = [g for g in told if g["verdict"] == "fail"]
    over = still("gates", failed["subject"], "--json").json
    assert {(g["gate"], g["verdict"]) for g in over} == {
        ("export.causality", "pass"),
        ("export.parity", "fail"),
    }
    (row,) = [r for r in still("gates", failed["subject"]).rows if r[0] == "export.parity"]
    assert row[:5] == ["export.parity", "fail", "parity.max_abs", "0.5", "<="]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("verb", ["gates", "manifest"])
def test_without_any_plan_the_next_step_is_named(still: Still, verb: str) -> None:
    answer = still(verb)
    assert answer.code == 2
    assert "still run RECIPE" in answer.err


# -- why ----------------------------------------------------------------------------------------


def test_why_of_a_phase_tells_each_of_its_slots(still: Still, done: Digest) -> None:
    told = still("why", "export", "--json").json
    assert [t["slot"] for t in told] == ["export/prefill-8", "export/prefill-16"]
    assert {t["status"] for t in told} == {"filled"}
    assert told[0]["ran"]["because"] == "it was the first run of its slot"
    assert told[0]["ran"]["plan"] == done


def test_why_of_a_blocked_slot_names_the_gate(still: Still, closed: Digest) -> None:
    answer = still("why", "conversion/prefill-8", "--plan", closed[:8])
    assert answer.code == 0
    assert answer.rows[0][:2] == ["conversion/prefill-8", "blocked"]
    assert "export.parity" in answer.rows[0][2]


def test_why_of_an_artifact_says_what_of_its_key_was_new(
    still: Still, recorder: Recorder, policy: Path, done: Digest
) -> None:
    other = recorder.plan(policy, export={"prefill": [8], "primary": 8, "threads": 1})
    recorder.run(other)
    made = still("why", "export/prefill-8", "--json").json[0]["outputs"]["export"]
    told = still("why", made, "--json").json
    assert told["differs"] == [
        {"what": "parameter", "name": "threads", "before": "2", "after": "1"}
    ]
    assert told["because"] == "parameter threads was 2, then 1"
    assert told["plan"] == other != done
    assert "parameter threads was 2, then 1" in still("why", made).out


def test_why_of_a_slot_filled_by_an_earlier_run_says_so(
    still: Still, recorder: Recorder, policy: Path, done: Digest
) -> None:
    recorder.run(recorder.plan(policy, name="other"))
    told = still("why", "export/prefill-8", "--json").json[0]
    assert told["reason"] == "reused"
    assert told["ran"]["plan"] == done


def test_why_of_nothing_known_lists_the_slots(still: Still, done: Digest) -> None:
    answer = still("why", "exprot")
    assert answer.code == 2
    assert "export/prefill-8" in answer.err
    assert still("why", done).rows[0][:2] == ["published", "imported"]  # made by no run


# -- manifest -----------------------------------------------------------------------------------


def test_manifest_prints_the_recorded_bytes(still: Still, done: Digest) -> None:
    answer = still("manifest")
    assert answer.code == 0
    assert answer.json["plan"] == done
    assert answer.json["not_run"] == ["device_predict"]
    assert still("manifest", done[:8]).out == answer.out
    assert still("manifest", "release@latest", "--json").out == answer.out


def test_manifest_of_a_plan_without_a_release_lists_what_is_missing(
    still: Still, closed: Digest
) -> None:
    answer = still("manifest", closed[:8])
    assert (answer.code, answer.out) == (1, "")
    assert "export.parity" in answer.err
    assert "parity.max_abs 0.5 <= 0.1 (n = 8)" in answer.err
    assert "still waive export.parity" in answer.err
    told = still("manifest", "--json")
    assert (told.code, told.json["release"]) == (1, None)
    assert [m["what"] for m in told.json["missing"]] == ["export.parity"]
    assert told.json["name"] in answer.err


def test_a_waived_gate_lets_the_release_through_and_is_shown(
    still: Still, recorder: Recorder, closed: Digest
) -> None:
    (failed,) = [g for g in still("gates", "--json").json if g["verdict"] == "fail"]
    still(
        *("waive", "export.parity", failed["subject"][:SHORT]),
        *("--reason", "known", "--until", "2999-01-01"),
    )
    assert recorder.run(closed).done
    (gate,) = [g for g in still("gates", "--json").json if g["waiver"]]
    assert (gate["gate"], gate["verdict"]) == ("export.parity", "fail")
    assert gate["waiver"]["reason"] == "known"
    assert still("manifest").code == 0


def test_an_older_release_is_not_taken_for_that_of_the_latest_plan(
    still: Still, recorder: Recorder, policy: Path, done: Digest
) -> None:
    recorder.failing = {"export/prefill-8"}
    other = recorder.plan(policy, export={"prefill": [8], "primary": 8, "threads": 1})
    recorder.run(other)
    answer = still("manifest")
    assert answer.json["plan"] == done
    assert f"the latest plan, {other[:SHORT]}, has no release" in answer.err


def test_another_tier_than_the_release_has_is_bad_input(still: Still, done: Digest) -> None:
    assert still("manifest", "--tier", "tier_2").json["plan"] == done
    other = still("manifest", "--tier", "tier_3")
    assert other.code == 2
    assert "is of tier_2, not of tier_3" in other.err
    assert still("manifest", "--tier", "gold").code == 2


def test_what_is_no_release_and_no_recipe_has_no_manifest(still: Still, done: Digest) -> None:
    assert done
    answer = still("manifest", "policy@latest")
    assert answer.code == 2
    assert "is a policy" in answer.err


def test_a_release_is_written_out_whole_and_verifies(
    still: Still, place: Path, done: Digest
) -> None:
    assert done
    folder = place / "out"
    assert still("manifest", "--tier", "tier_2", "--out", folder).out == f"{folder}\n"
    assert json.loads((folder / "deployment_manifest.json").read_bytes())["plan"] == done
    assert still("verify", folder).code == 0
    assert still("manifest", "--out", folder).code == 2
    told = still("manifest", "--out", place / "again", "--json").json
    assert (told["folder"], told["files"]) == (str(place / "again"), len(list(folder.iterdir())))
    assert told["size"] == sum(path.stat().st_size for path in folder.iterdir())


def test_verify_names_each_file_that_is_missing_added_or_changed(
    still: Still, place: Path, done: Digest
) -> None:
    assert done
    folder = place / "out"
    still("manifest", "--out", folder)
    (folder / "weight.bin").write_bytes(b"other weights")
    (folder / "stranger").write_bytes(b"")
    (folder / "runtime_config.json").unlink()
    told = still("verify", folder, "--json")
    assert told.code == 1
    assert (told.json["changed"], told.json["added"], told.json["missing"]) == (
        ["weight.bin"],
        ["stranger"],
        ["runtime_config.json"],
    )
    words = [row[:2] for row in still("verify", folder).rows]
    assert ["changed", "weight.bin"] in words
    assert ["added", "stranger"] in words
    assert ["missing", "runtime_config.json"] in words


def test_verify_needs_no_registry(
    still: Still, place: Path, done: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert done
    still("manifest", "--out", place / "out")
    (place / "away").mkdir()
    (place / "out").rename(place / "away" / "out")
    (place / ".still").rename(place / "not-a-registry")
    monkeypatch.chdir(place / "away")
    assert still("verify", "out").code == 0
    assert still("verify", "elsewhere").code == 2


def test_verify_of_an_artifact_hashes_its_objects(
    still: Still, session: Session, done: Digest
) -> None:
    assert done
    assert still("verify", "release@latest", "--json").json["checked"] == 3
    member = {row[0]: row[2] for row in still("cat", "release@latest").rows}["weight.bin"]
    path = session.store.path(member)
    path.chmod(0o600)
    path.write_bytes(b"weights of a neighbour")
    answer = still("verify", "release@latest", "--json")
    assert (answer.code, answer.json["changed"]) == (1, ["weight.bin"])
    path.unlink()
    assert still("verify", "release@latest", "--json").json["missing"] == ["weight.bin"]


@pytest.mark.parametrize("until", ["2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"])
def test_a_release_that_rests_on_a_waiver_says_when_that_has_expired(
    still: Still, recorder: Recorder, policy: Path, place: Path, until: str
) -> None:
    subject = "a" * 64
    waiver = WaiverRow(author="ada", reason="known", until=until, seq=1)
    gate = GateRow(
        gate="export.parity",
        slot="export/prefill-8",
        subject=subject,
        policy="b" * 64,
        verdict=Verdict.FAIL,
        required=True,
        waiver=waiver,
    )
    recorder.gates = (gate,)
    recorder.run(recorder.plan(policy))
    told = [
        still("manifest"),
        still("manifest", "--out", place / "out"),
        still("verify", "release@latest"),
        still("verify", place / "out"),
    ]
    over = until.startswith("2001")
    for answer in told:
        assert answer.code == 0
        assert ("export.parity (export/prefill-8), by ada until 2001-01-01" in answer.err) is over
    rows = still("verify", place / "out", "--json").json["expired_waivers"]
    assert [(row["gate"], row["author"], row["until"]) for row in rows] == (
        [("export.parity", "ada", until)] if over else []
    )
    # Whoever renewed it answers for it again; a folder away from its registry can not know.
    renewed = waiver.model_dump() | {"gate": gate.gate, "subject": subject}
    renewed.pop("seq")
    recorder.session.ledger.append([GateWaived(**renewed | {"until": "2999-01-01T00:00:00Z"})])
    assert "Note" not in still("manifest").err
    assert ("Note" in still("verify", place / "out").err) is over


# -- run ----------------------------------------------------------------------------------------


def test_a_finished_plan_is_not_run_again(still: Still, session: Session, done: Digest) -> None:
    before = _events(session)
    answer = still("run", done[:8])
    assert answer.code == 0
    assert _events(session) == before
    release = still("ls", "--kind", "release", "--json").json[0]["digest"]
    assert ["release", release] in answer.rows


def test_the_last_line_of_json_is_the_summary(still: Still, done: Digest) -> None:
    summary = json.loads(still("run", done[:8], "--json").out.splitlines()[-1])["summary"]
    assert (summary["done"], summary["missing"]) == (True, [])
    assert {s["status"] for s in summary["slots"]} == {"filled"}
    assert all(g["verdict"] == "pass" for g in summary["gates"])


def test_a_closed_gate_ends_a_run_with_1_and_its_numbers(still: Still, closed: Digest) -> None:
    answer = still("run", closed[:8])
    assert answer.code == 1
    (missing,) = [row for row in answer.rows if row[0] == "missing"]
    assert missing[1] == "export.parity"
    assert "parity.max_abs 0.5 <= 0.1" in missing[2]
    assert "still waive" in answer.err


@pytest.mark.usefixtures("workers")
def test_a_failed_run_is_named_with_what_to_do(
    still: Still, recorder: Recorder, policy: Path
) -> None:
    """With a real worker: the recipe's checkpoint is recorded, but its bytes are gone."""
    recorder.checkpoint_stored = False
    plan = recorder.plan(policy, export={"prefill": [8], "primary": 8})
    answer = still("run", plan)
    assert answer.code == 1
    (missing,) = [row for row in answer.rows if row[0] == "missing"]
    assert missing[1] == "export/prefill-8"
    key = still("why", "export/prefill-8", "--json").json[0]["run"]
    assert answer.rows[-1][0] == "and"
    assert "that wait for it" in answer.rows[-1][1]
    last = answer.err.splitlines()[-1]
    assert f"still logs {key[:SHORT]}" in last
    assert f"still retry {key[:SHORT]}" in last
    assert "is not in the store" in still("show", key).out
    assert [row[2] for row in still("retry").rows] == [key]


def test_what_only_waits_for_a_failed_slot_is_counted_and_not_told(
    still: Still, recorder: Recorder, policy: Path
) -> None:
    recorder.failing = {"export/prefill-8"}
    plan = recorder.plan(policy)
    recorder.run(plan)
    told = still("manifest", plan)
    assert (told.code, told.err.count("missing  ")) == (1, 1)
    assert "It broke." in told.err
    assert "export/prefill-8: failed, its run failed" in told.err
    # The gate over the export; its conversion, its verification and the release.
    assert told.err.splitlines()[-1] == "  and      4 gates and slots that wait for it"
    whole = [item["what"] for item in still("manifest", plan, "--json").json["missing"]]
    assert whole == ["export/prefill-8", "export.parity"]


@pytest.mark.usefixtures("home")
def test_a_recipe_that_is_not_there_or_wrong_is_bad_input(still: Still, place: Path) -> None:
    assert still("run", "nothing.toml").code == 2
    (place / "bad.toml").write_text("name = ", encoding="utf-8")
    assert "TOML" in still("run", "bad.toml").err
    (place / "odd.toml").write_text('name = "x"\nflavour = 3\n', encoding="utf-8")
    assert still("run", "odd.toml").code == 2
    assert still("log").out == ""


@pytest.mark.usefixtures("workers")
def test_ctrl_c_stops_the_worker_so_that_the_next_run_can_go_on(
    recorder: Recorder, policy: Path, place: Path
) -> None:
    plan = recorder.plan(policy, export={"prefill": [8], "primary": 8})
    command = [sys.executable, "-m", "stillhouse.cli.main", "run", plan]
    process = subprocess.Popen(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("run.started"):
            process.send_signal(signal.SIGINT)
            break
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "goes on from what is recorded" in said
    reactor = recorder.session.reactor()
    with reactor.advancing() as mine:
        assert mine
        reactor.tick()  # what the next command does first
    assert [run.status for run in reactor.state.runs.values()] == ["abandoned"]
