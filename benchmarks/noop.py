"""A finished pipeline asked for again: `still run` against DVC, Snakemake and Dagster.

All four get the same graph: the slots of a finished plan, with as many inputs and outputs, and the
very bytes of its artifacts; where we ran a phase, a peer's stage copies them. Each is built once,
and then timed as a person would start it, whole processes, interleaved, doing nothing: that
nothing was done is checked each time. Dagster has no command that looks whether there is anything
to do, so a small program of its own evaluates the graph once, as its daemon does, from the cursor
of the evaluation before; the time inside of that evaluation is printed as well.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import peers
from finished import Finished, environment, finished

from stillhouse.registry.home import Home
from stillhouse.registry.planning.views import PlanView
from stillhouse.schemas.plan import Need
from stillhouse.session import Session, open_registry
from stillhouse.store.trees.checkout import checkout

ROUNDS = 9
QUICK_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one slot is to a peer."""

    name: str
    needs: tuple[str, ...]
    """Paths that it reads."""
    makes: dict[str, str]
    """Path that it makes -> where the bytes are copied from."""
    folders: frozenset[str]
    """Those of `makes` that are folders."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One program, and how it is asked for a finished graph."""

    name: str
    command: Sequence[str]
    folder: Path
    environment: dict[str, str]
    idle: Callable[[str], bool]
    """Whether what it printed says that nothing was done."""
    inside: Callable[[str], float] | None = None
    """Seconds of the evaluation alone, where it printed them."""


# -- the graph ----------------------------------------------------------------------------------


def lay_out(pipeline: Finished, folder: Path) -> tuple[Stage, ...]:
    """Write every artifact of the finished plan below `folder`; the stages over them."""
    session = open_registry(Home(pipeline.registry))
    reactor = session.reactor()
    (plan,) = reactor.state.requested
    view = reactor.view(plan)
    return tuple(_stage(session, view, slot.slot.id, folder) for slot in view.slots)


def _stage(session: Session, view: PlanView, slot: str, folder: Path) -> Stage:
    found = view.slot(slot)
    needs = tuple(dict.fromkeys(_path(need) for need in found.slot.needs))
    for need in found.slot.needs:
        if need.digest is not None:
            _write(session, need.digest, folder / _path(need))
    makes, folders = {}, set()
    for role, digest in found.outputs.items():
        target, source = f"made/{_plain(slot)}/{role}", f"kept/{digest[:16]}"
        _write(session, digest, folder / source)
        makes[target] = source
        if (folder / source).is_dir():
            folders.add(target)
    return Stage(name=_plain(slot), needs=needs, makes=makes, folders=frozenset(folders))


def _plain(slot: str) -> str:
    return slot.replace("/", "_").replace("-", "_")


def _path(need: Need) -> str:
    return (
        f"in/{need.digest[:16]}" if need.digest else f"made/{_plain(need.slot or '')}/{need.output}"
    )


def _write(session: Session, digest: str, path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        published = session.state().artifacts[digest][0]
        checkout(session.store, digest, published.fact.form, path)


# -- the contenders -----------------------------------------------------------------------------


def stillhouse(pipeline: Finished) -> Contender:
    """Ours; idle when the ledger did not grow."""
    log = pipeline.registry / "events.log"
    size = log.stat().st_size
    return Contender(
        name="still run",
        command=pipeline.still("run", str(pipeline.recipe)),
        folder=pipeline.registry,
        environment=environment(),
        idle=lambda _: log.stat().st_size == size,
    )


def dvc(programs: Path, folder: Path, stages: Sequence[Stage]) -> Contender:
    """The same stages in `dvc.yaml`, built once."""
    document = {
        stage.name: {"cmd": _copying(stage), "deps": list(stage.needs), "outs": list(stage.makes)}
        for stage in stages
    }
    # JSON is YAML.
    (folder / "dvc.yaml").write_text(json.dumps({"stages": document}), encoding="utf-8")
    settings = os.environ | {"DVC_NO_ANALYTICS": "1"}
    _told([str(programs / "dvc"), "init", "--no-scm"], folder, settings)
    _told([str(programs / "dvc"), "repro"], folder, settings)
    return Contender(
        name="dvc repro",
        command=[str(programs / "dvc"), "repro"],
        folder=folder,
        environment=settings,
        idle=lambda told: "Running stage" not in told and "up to date" in told,
    )


def snakemake(programs: Path, folder: Path, stages: Sequence[Stage]) -> Contender:
    """The same stages in a `Snakefile`, built once."""
    ends = [target for stage in stages for target in stage.makes]
    rules = [f"rule all:\n    input: {ends!r}\n"]
    for stage in stages:
        made = [f"directory({t!r})" if t in stage.folders else repr(t) for t in stage.makes]
        rules.append(
            f"rule {stage.name}:\n    input: {list(stage.needs)!r}\n"
            f"    output: {', '.join(made)}\n    shell: {_copying(stage)!r}\n"
        )
    (folder / "Snakefile").write_text("\n".join(rules), encoding="utf-8")
    command = [str(programs / "snakemake"), "--cores", "2"]
    _told(command, folder, dict(os.environ))
    return Contender(
        name="snakemake",
        command=command,
        folder=folder,
        environment=dict(os.environ),
        idle=lambda told: "Nothing to be done" in told,
    )


def dagster(programs: Path, folder: Path, stages: Sequence[Stage]) -> Contender:
    """The same stages as eager multi-assets, made once."""
    document = [{"name": s.name, "needs": s.needs, "makes": s.makes} for s in stages]
    graph = folder / "graph.json"
    graph.write_text(json.dumps(document), encoding="utf-8")
    (folder / "home").mkdir()
    (folder / "home" / "dagster.yaml").write_text(
        "telemetry:\n  enabled: false\n", encoding="utf-8"
    )
    settings = os.environ | {"DAGSTER_HOME": str(folder / "home")}
    program = Path(__file__).with_name("dagster_peer.py")
    interpreter = str(programs / "python")
    _told([interpreter, str(program), "build", str(graph)], folder, settings)
    return Contender(
        name="dagster",
        command=[interpreter, str(program), "pass", str(graph)],
        folder=folder,
        environment=settings,
        idle=lambda told: _reported(told)["requested"] == 0,
        inside=lambda told: _reported(told)["seconds"],
    )


def _reported(told: str) -> dict[str, float]:
    """The one JSON line among whatever else Dagster printed."""
    (line,) = (line for line in told.splitlines() if line.startswith("{"))
    found: dict[str, float] = json.loads(line)
    return found


def _copying(stage: Stage) -> str:
    return " && ".join(
        f"mkdir -p made/{stage.name} && cp -r {source} {target}"
        for target, source in stage.makes.items()
    )


# -- measuring ----------------------------------------------------------------------------------


def measure(contenders: Sequence[Contender], rounds: int) -> dict[str, list[float]]:
    """Seconds of each whole process, round by round. Raises SystemExit when one did some work."""
    times: dict[str, list[float]] = {c.name: [] for c in contenders}
    for _ in range(rounds):
        for contender in contenders:
            begun = time.perf_counter()
            told = _told(contender.command, contender.folder, contender.environment)
            times[contender.name].append(time.perf_counter() - begun)
            if not contender.idle(told):
                raise SystemExit(f"{contender.name} did something:\n{told}")
            if contender.inside:
                within = f"{contender.name}, inside of it"
                times.setdefault(within, []).append(contender.inside(told))
    return times


def _told(command: Sequence[str], folder: Path, settings: dict[str, str]) -> str:
    """What a command printed. Raises SystemExit when it failed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stdout}")
    return done.stdout


def main(arguments: argparse.Namespace) -> None:
    """Print the median seconds of each, and the ratio to ours."""
    with (
        peers.folder(arguments.peers) as cache,
        finished(arguments.finished) as pipeline,
        tempfile.TemporaryDirectory(prefix="noop-") as name,
    ):
        graph = Path(name) / "graph"
        graph.mkdir()
        stages = lay_out(pipeline, graph)
        contenders = [stillhouse(pipeline)]
        for peer, build in (("dvc", dvc), ("snakemake", snakemake), ("dagster", dagster)):
            programs, folder = peers.install(cache, peer), Path(name) / peer
            shutil.copytree(graph, folder)
            contenders.append(build(programs, folder, stages))
        tell(stages, graph)
        times = measure(contenders, QUICK_ROUNDS if arguments.quick else ROUNDS)
    ours = statistics.median(times["still run"])
    for each, found in times.items():
        median = statistics.median(found)
        print(f"{each:26} p50 {median:7.3f} s   {median / ours:6.1f} x still run")


def tell(stages: Sequence[Stage], graph: Path) -> None:
    """Say what is compared."""
    size = sum(f.stat().st_size for f in graph.rglob("*") if f.is_file())
    edges = sum(len(stage.needs) for stage in stages)
    made = sum(len(stage.makes) for stage in stages)
    print(f"{len(stages)} stages, {edges} inputs, {made} outputs, {size / 1e6:.1f} MB;", end=" ")
    print(", ".join(pin for pins in peers.PINNED.values() for pin in pins))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, metavar="DIR", help="keep installed peers here")
    parser.add_argument("--finished", type=Path, metavar="DIR", help="keep the finished run here")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds")
    main(parser.parse_args())
