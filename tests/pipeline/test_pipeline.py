"""The main job on the tiny recipe: once, and then everything one can ask of a finished registry."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from .still import LIMIT_SECONDS, command, environment, events, still, still_json
from .tiny import write

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A registry in which the tiny recipe was run, and the recipe."""
    folder = tmp_path_factory.mktemp("pipeline")
    recipe = write(folder / "input")
    registry = folder / "still"
    still(registry, "init")
    still(registry, "run", str(recipe))
    return registry, recipe


@pytest.fixture(scope="module")
def release(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deployable folder."""
    folder = tmp_path_factory.mktemp("out") / "release"
    still(made[0], "manifest", "--out", str(folder))
    return folder


def _types(registry: Path) -> list[str]:
    return [event["type"] for event in events(registry)]


def test_every_slot_ran_once_and_a_release_was_cut(made: tuple[Path, Path]) -> None:
    started = [e["data"]["slot"] for e in events(made[0]) if e["type"] == "run.started"]
    shapes = ("prefill-16", "prefill-24", "decode-24")
    wanted = ["dataset", "training", "evaluation", "deployment"]
    wanted += [f"{phase}/{s}" for phase in ("export", "conversion", "verification") for s in shapes]
    assert sorted(started) == sorted(wanted)
    assert _types(made[0]).count("release.cut") == 1


def test_a_second_run_does_no_work(made: tuple[Path, Path]) -> None:
    registry, recipe = made
    before = len(events(registry))
    still(registry, "run", str(recipe))
    assert len(events(registry)) == before


def test_the_manifest_claims_only_what_gates_on_its_own_digests_say(release: Path) -> None:
    manifest = json.loads((release / "deployment_manifest.json").read_bytes())
    claimed = {c["name"] for c in manifest["capabilities"]}
    assert claimed == {
        "matches_checkpoint",
        "stateful_decode",
    }  # no Mac here: nothing runs_on_device
    assert "device_predict" in " ".join(manifest["not_run"])
    required = [g for g in manifest["gates"] if g["required"]]
    assert required
    assert all(g["verdict"] == "pass" for g in required)
    released = {a["digest"] for a in manifest["artifacts"]}
    assert all(set(c["subjects"]) <= released for c in manifest["capabilities"])
    assert manifest["signature"] == "unsigned"


def test_the_folder_verifies_and_every_change_to_it_is_named(
    release: Path, made: tuple[Path, Path], tmp_path: Path
) -> None:
    still(made[0], "verify", str(release))
    copy = tmp_path / "copy"
    shutil.copytree(release, copy)
    weights = next(copy.glob("models/*/Data/*/weights/weight.bin"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(data)
    (copy / "tokenizer" / "tokenizer.json").unlink()
    (copy / "extra.txt").write_text("x", encoding="utf-8")
    told = still(made[0], "verify", str(copy), expect=1)
    said = told.stdout + told.stderr
    for name in ("weight.bin", "tokenizer.json", "extra.txt"):
        assert name in said


def test_the_ledger_and_the_projection_audit_clean_by_plain_sql(made: tuple[Path, Path]) -> None:
    statement = (
        "SELECT count(*) AS bad FROM (SELECT *, lag(hash, 1, repeat('0',64)) OVER (ORDER BY seq) "
        "AS lp FROM event) "
        "WHERE hash <> sha256(body::VARCHAR) OR prev <> lp OR prev <> body->>'prev'"
    )
    rows = still_json(made[0], "sql", statement)
    assert json.dumps(rows).count('"bad": 0') == 1
    still(made[0], "fsck")


def test_an_audit_derives_the_sealed_manifest_again(made: tuple[Path, Path]) -> None:
    (report,) = still_json(made[0], "audit")["manifests"]
    assert (report["rule"], report["differing"], report["overclaimed"]) == (2, [], [])


def test_lineage_leads_from_the_release_to_the_teacher(made: tuple[Path, Path]) -> None:
    text = still(made[0], "lineage", "release@latest", "--up").stdout
    for kind in ("mlpackage", "export", "checkpoint", "dataset", "teacher", "source"):
        assert kind in text


def test_publishing_twice_names_the_same_digest_and_records_once(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    source = tmp_path / "more.jsonl"
    source.write_text('{"prompt": "hello", "answer": "hi"}\n', encoding="utf-8")
    first = still(made[0], "publish", str(source), "--kind", "source").stdout.strip()
    count = len(events(made[0]))
    again = still(made[0], "publish", str(source), "--kind", "source").stdout.strip()
    assert first == again
    assert len(first) == 64
    assert len(events(made[0])) == count


def test_a_stricter_policy_judges_again_runs_nothing_and_stops_the_release(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    registry, recipe = made
    inputs = tmp_path / "input"
    shutil.copytree(recipe.parent, inputs)
    policy = inputs / "policy.toml"
    policy.write_text(
        policy.read_text("utf-8").replace(
            'metric = "trained.kl", op = "<=", value = 100',
            'metric = "trained.kl", op = "<=", value = 0.0',
        ),
        encoding="utf-8",
    )
    before = _types(registry).count("run.started")
    told = still(registry, "run", str(inputs / "tiny.toml"), expect=1)
    assert "evaluation.measured" in told.stdout + told.stderr
    assert _types(registry).count("run.started") == before
    assert _types(registry).count("release.cut") == 1


def test_a_tier_that_needs_a_mac_gets_no_release_here(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    registry, recipe = made
    inputs = tmp_path / "input"
    shutil.copytree(recipe.parent, inputs)
    path = inputs / "tiny.toml"
    path.write_text(
        path.read_text("utf-8").replace('tier = "tier_2"', 'tier = "tier_1"'), encoding="utf-8"
    )
    told = still(registry, "run", str(path), expect=1)
    assert "verification.device_predict" in told.stdout + told.stderr


def test_two_runs_side_by_side_share_the_work_and_make_the_same_bytes_again(
    made: tuple[Path, Path], release: Path, tmp_path: Path
) -> None:
    _, recipe = made
    other = tmp_path / "still"
    still(other, "init")
    both = [
        subprocess.Popen(
            command(other, "run", str(recipe)), stdout=subprocess.DEVNULL, env=environment()
        )
        for _ in range(2)
    ]
    assert [process.wait(LIMIT_SECONDS) for process in both] == [0, 0]
    started = Counter(e["data"]["run"] for e in events(other) if e["type"] == "run.started")
    assert max(started.values()) == 1
    out = tmp_path / "release"
    still(other, "manifest", "--out", str(out))
    ours, theirs = (_files(folder) for folder in (release, out))
    # The manifest names events of its own ledger; everything that is shipped beside it is equal.
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == ["deployment_manifest.json"]


def _files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_the_recipe_of_this_test_names_every_section() -> None:
    from stillhouse.schemas.recipe import Recipe

    from .tiny import RECIPE

    sections: dict[str, Any] = tomllib.loads(RECIPE)
    assert set(Recipe.model_fields) - set(sections) == {"schema_version", "given"}
