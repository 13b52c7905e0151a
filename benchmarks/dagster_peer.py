"""Dagster's side of the comparisons; run by the interpreter of Dagster's own environment.

`dagster_peer.py build GRAPH` makes every asset of a graph once. `dagster_peer.py pass GRAPH` then
evaluates them as its daemon would: all are `eager()`, and nothing is to be done. `dagster_peer.py
idle N` times such evaluations over a finished chain of N assets, inside of the process. Each prints
one JSON object. DAGSTER_HOME names where it keeps its records.
"""

# ruff: noqa: ANN401  # Dagster keeps the types of cursors and results to itself

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

_SETTLING = 2
"""Evaluations after everything was made until the cursor holds that nothing is to be done."""

_ROUNDS = 3


def build(path: Path) -> dict[str, Any]:
    """Make every asset of the graph, and leave the cursor of a finished evaluation beside it."""
    assets = _assets(path)
    made = {key for asset in assets for key in asset.keys}
    given = {key for asset in assets for key in asset.dependency_keys} - made
    with dg.DagsterInstance.get() as instance:
        for key in sorted(given):  # came from outside; an eager asset waits for what is missing
            instance.report_runless_asset_event(dg.AssetMaterialization(key))
        done = dg.materialize(assets, instance=instance)
        _keep(path, _settled(assets, instance))
    return {"success": done.success, "assets": len(assets), "version": dg.__version__}


def evaluate(path: Path) -> dict[str, Any]:
    """Evaluate the graph once, going on from the last cursor; what was asked for."""
    assets = _assets(path)
    text = path.with_suffix(".cursor").read_text(encoding="utf-8")
    cursor: Any = dg.deserialize_value(text)
    with dg.DagsterInstance.get() as instance:
        begun = time.perf_counter()
        result = _evaluate(assets, instance, cursor)
        seconds = time.perf_counter() - begun
        _keep(path, result.cursor)
    return {"requested": result.total_requested, "seconds": seconds}


def idle(count: int) -> dict[str, Any]:
    """Seconds of evaluations over a finished chain of `count` eager assets: nothing is new."""
    assets = _chain(count)
    with dg.DagsterInstance.get() as instance:
        for asset in assets:
            instance.report_runless_asset_event(dg.AssetMaterialization(asset.key))
        cursor = _settled(assets, instance)
        times = []
        for _ in range(_ROUNDS):
            begun = time.perf_counter()
            result = _evaluate(assets, instance, cursor)
            times.append(time.perf_counter() - begun)
            cursor = result.cursor
    return {
        "assets": count,
        "requested": result.total_requested,
        "seconds": times,
        "version": dg.__version__,
    }


def _chain(count: int) -> list[dg.AssetsDefinition]:
    assets: list[dg.AssetsDefinition] = []
    for place in range(count):

        @dg.asset(
            name=f"a{place}",
            deps=[assets[-1]] if assets else [],
            automation_condition=dg.AutomationCondition.eager(),
        )
        def made() -> None: ...

        assets.append(made)
    return assets


def _assets(path: Path) -> list[dg.AssetsDefinition]:
    """One multi-asset a stage, each output an eager asset that depends on all that it reads."""
    stages = json.loads(path.read_text(encoding="utf-8"))
    return [_stage(path.parent, stage) for stage in stages]


def _stage(root: Path, stage: dict[str, Any]) -> dg.AssetsDefinition:
    specs = [
        dg.AssetSpec(
            _key(target),
            deps=[_key(need) for need in stage["needs"]],
            automation_condition=dg.AutomationCondition.eager(),
        )
        for target in stage["makes"]
    ]

    @dg.multi_asset(name=stage["name"], specs=specs)
    def made():  # noqa: ANN202  # Dagster reads the annotation, and finds none right
        for target, source in stage["makes"].items():
            _copy(root / source, root / target)
            yield dg.MaterializeResult(_key(target))

    return made


def _key(path: str) -> dg.AssetKey:
    return dg.AssetKey([word.replace("-", "_").replace(".", "_") for word in path.split("/")])


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    copy: Callable[[Path, Path], object] = shutil.copytree if source.is_dir() else shutil.copy
    copy(source, target)


def _evaluate(
    assets: Sequence[dg.AssetsDefinition], instance: dg.DagsterInstance, cursor: Any
) -> Any:
    """One evaluation; cursor and result are of types that Dagster keeps to itself."""
    return dg.evaluate_automation_conditions(
        dg.Definitions(assets=assets),
        instance=instance,
        evaluation_time=datetime.now(UTC),
        cursor=cursor,
    )


def _settled(assets: Sequence[dg.AssetsDefinition], instance: dg.DagsterInstance) -> Any:
    cursor = None
    for _ in range(_SETTLING):
        cursor = _evaluate(assets, instance, cursor).cursor
    return cursor


def _keep(path: Path, cursor: Any) -> None:
    path.with_suffix(".cursor").write_text(dg.serialize_value(cursor), encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    """Do what the two words ask for."""
    verb, subject = arguments
    verbs: dict[str, Callable[[], dict[str, Any]]] = {
        "build": lambda: build(Path(subject)),
        "pass": lambda: evaluate(Path(subject)),
        "idle": lambda: idle(int(subject)),
    }
    print(json.dumps(verbs[verb]()))


if __name__ == "__main__":
    main(sys.argv[1:])
