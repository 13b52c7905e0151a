"""A finished registry of the first version, without its weights. It must open and answer for ever.

`tests/golden/finished` was made by `make demo` at cfb7322, and `answers.json` by the same program.
Never make either anew. An answer may gain keys; what it said then it still says.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stillhouse.phases.catalog import CATALOG
from stillhouse.registry.home import Home
from stillhouse.registry.planning.assess import assess
from stillhouse.registry.planning.runkey import run_key
from stillhouse.registry.planning.views import Reason, Site
from stillhouse.registry.state.state import State
from stillhouse.session import open_registry

from .conftest import Still

GOLDEN = Path(__file__).parents[1] / "golden" / "finished"
ANSWERS: list[dict[str, Any]] = json.loads((GOLDEN / "answers.json").read_text(encoding="utf-8"))
EVENTS = 91
RISEN = {"deployment": 2}
"""Phase -> its version then, where it makes something else since: asked again, it runs again.

deployment: manifests of rule 2 (docs/adr/0014-provenance-belongs-to-a-plan.md).
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "registry"
    shutil.copytree(GOLDEN, folder, ignore=shutil.ignore_patterns("answers.json"))
    for name in ("runs", "inbox"):  # git keeps no empty folder
        (folder / name).mkdir()
    return folder


@pytest.fixture(scope="module")
def state(finished: Path) -> State:
    return open_registry(Home(finished)).state()


def _still_says(now: object, then: object) -> bool:
    """Whether `now` says all that `then` said."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(
            key in now and _still_says(now[key], value) for key, value in then.items()
        )
    if isinstance(then, list):
        return isinstance(now, list) and len(now) == len(then) and all(map(_still_says, now, then))
    return now == then


@pytest.mark.parametrize(
    "row", [row for row in ANSWERS if "answer" in row], ids=lambda row: " ".join(row["asked"])[:60]
)
def test_it_answers_as_it_did(finished: Path, still: Still, row: dict[str, Any]) -> None:
    answer = still("--registry", str(finished), *row["asked"], "--json")
    assert answer.code == 0, answer.err
    assert _still_says(answer.json, row["answer"]), answer.out


def test_its_manifest_is_printed_byte_by_byte(finished: Path, still: Still) -> None:
    (row,) = (row for row in ANSWERS if row["asked"] == ["manifest"])
    said = still("--registry", str(finished), "manifest").out
    assert hashlib.sha256(said.encode()).hexdigest() == row["sha256"]


def test_every_run_key_is_what_its_run_says(state: State) -> None:
    versions = {spec.name: spec.version for spec in CATALOG}
    for run in state.runs.values():
        told = run.started
        key = run_key(
            phase=told.phase,
            version=told.phase_version,
            params=told.params,
            inputs=told.inputs,
            tools=told.tools,
        )
        assert key == run.key
        assert told.phase_version == RISEN.get(told.phase, versions[told.phase])


def test_today_its_plan_comes_to_the_same_run_keys_but_for_what_has_risen(
    state: State,
) -> None:
    """With the packages of then: a parameter or need that changed would re-run what rests on it."""
    (plan,) = state.requested
    packages: dict[str, str] = {}
    for run in state.runs.values():
        packages |= run.started.tools
    environment = state.runs[next(iter(state.runs))].environment
    assert environment is not None
    site = Site(environment=environment, versions=packages)
    now = "2026-12-01T00:00:00.000000Z"
    found = assess(state, plan, CATALOG, site, now, fresh=True)
    kept = [view for view in found.slots if view.spec.name not in RISEN]
    assert {view.reason for view in kept} == {Reason.SUCCEEDED}
    risen = {key for key, run in state.runs.items() if run.started.phase in RISEN}
    assert {view.key for view in kept} == set(state.runs) - risen


def test_asking_for_its_plan_again_executes_only_what_has_risen(
    finished: Path, tmp_path: Path, still: Still
) -> None:
    """On this machine, whose packages may be others. There are no weights to work on."""
    registry = Path(shutil.copytree(finished, tmp_path / "registry"))
    (plan,) = open_registry(Home(registry)).state().requested
    answer = still("--registry", str(registry), "run", plan)
    assert answer.code in (0, 1), answer.err
    lines = (registry / "events.log").read_bytes().splitlines()[EVENTS:]
    events = [json.loads(line.split(b"\t", 1)[1]) for line in lines]
    started = [event["data"]["phase"] for event in events if event["type"] == "run.started"]
    assert set(started) <= RISEN.keys()
