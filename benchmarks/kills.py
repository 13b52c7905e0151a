"""kill -9 in every role at random moments, some hundred times; then every promise is checked.

Publishers, `still run`, a daemon with its workers, projectors and readers share one registry and
are started again each time they are killed. Each process notes every event that was acknowledged to
it in a file of its own before it does anything else; at the end all of them must be in the ledger,
at their place and with their hash. What is asked for is cheap and real: releases of a finished tiny
pipeline under other runtime budgets (every phase but the last is reused), data sets under another
seed, and data sets that must fail. Linux only: live workers are found in /proc.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import peers
from aftermath import Aftermath
from finished import ROOT, environment, finished

from stillhouse.schemas.digest import Digest
from stillhouse.schemas.recipe import Recipe
from tests.pipeline.still import workers

KILLS = 500
QUICK_KILLS = 40
LONGEST_PAUSE = 1.2
"""Seconds between two kills, at most; drawn evenly."""

ROLES = {"publisher": 2, "run": 1, "daemon": 1, "projector": 1, "reader": 1}
"""Role -> processes of it at once."""

WORKER, WARM = "worker", "warm worker"
"""One that has a run, and one that waits for a run; `run` and the daemon start them."""

_LIMITS = "attempts = 100\nbackoff = 0.05\n"
"""A worker that is killed for the fourth time is not at fault."""

_LONGEST_GOODBYE = 10.0
"""Seconds in which a waiting worker must notice that it is no longer needed."""

_TOO_MANY = 10_000
"""Examples that no data set here can have."""

_MOST_OPEN = 3
"""Plans that may be unfinished before a publisher asks for another."""


# -- what the processes do ----------------------------------------------------------------------


def play(role: str, registry: Path, notes: Path, seed: int) -> int:
    """Be one process of a role, until killed; `run` ends by itself."""
    _note_what_is_acknowledged(notes)
    return _PARTS[role](registry, random.Random(seed))


def _note_what_is_acknowledged(notes: Path) -> None:
    """From now on `seq TAB hash` of each event goes to `notes` as soon as it is acknowledged."""
    from hashlib import sha256

    from stillhouse.registry.ledger.ledger import Ledger
    from stillhouse.schemas import canonical
    from stillhouse.schemas.event import Event
    from stillhouse.schemas.events import Payload

    fd = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    plain = Ledger.append

    def append(self: Ledger, payloads: Sequence[Payload], **wishes: object) -> tuple[Event, ...]:
        done = plain(self, payloads, **wishes)  # type: ignore[arg-type]  # passed on as they came
        lines = [f"{e.seq}\t{sha256(canonical.encode(e.to_json())).hexdigest()}\n" for e in done]
        os.write(fd, "".join(lines).encode())
        return done

    Ledger.append = append  # type: ignore[method-assign]


def _publish(registry: Path, chance: random.Random) -> int:
    """Small files, at times what others publish just now, one through the inbox, and plans."""
    from stillhouse import publish, recipes
    from stillhouse.registry.home import Home
    from stillhouse.schemas.artifact import Kind
    from stillhouse.session import open_registry

    session = open_registry(Home(registry))
    with tempfile.TemporaryDirectory(dir=registry.parent) as name:
        path = Path(name) / "note.txt"
        while True:
            (deed,) = chance.choices(("new", "the same", "inbox", "plan"), (60, 30, 3, 7))
            path.write_bytes(chance.randbytes(chance.randrange(1, 4000)))
            if deed == "new":
                publish.take_in(session, path, chance.choice((Kind.SOURCE, Kind.FIXTURES)))
            elif deed == "the same":
                path.write_text(f"{session.ledger.head().seq // 20}\n")
                publish.take_in(session, path, Kind.SOURCE)
            elif deed == "inbox":
                shown = session.home.inbox / "source" / f"{chance.getrandbits(64):x}.txt"
                shutil.copy(path, shown.with_suffix(".tmp"))
                shown.with_suffix(".tmp").rename(shown)
            elif len(_open_plans(registry)) < _MOST_OPEN:
                recipe = variant(_base(registry), chance)
                recipes.request(session, recipes.publish_resolved(session, recipe, ()))
            time.sleep(chance.uniform(0, 0.5))


def _run(registry: Path, chance: random.Random) -> int:
    """`still run` of a new recipe. Ends with 1 when the data set was one that must fail."""
    from stillhouse.cli.main import main as still
    from stillhouse.schemas import canonical

    path = registry.parent / f"recipe-{chance.getrandbits(64):x}.json"
    path.write_bytes(canonical.encode(variant(_base(registry), chance).to_json()))
    return still(["--registry", str(registry), "run", str(path)])


def _watch(registry: Path, _chance: random.Random) -> int:
    from stillhouse.cli.main import main as still

    return still(["--registry", str(registry), "watch"])


def _project(registry: Path, chance: random.Random) -> int:
    """Catch up again and again; sometimes from nothing, sometimes by a person's question."""
    from stillhouse.cli.main import main as still
    from stillhouse.registry.home import Home
    from stillhouse.session import open_registry

    session = open_registry(Home(registry))
    while True:
        (deed,) = chance.choices(("catch up", "rebuild", "ask"), (90, 3, 7))
        if deed == "catch up":
            session.projection.catch_up(60)
        elif deed == "rebuild":
            session.projection.rebuild(60)
        elif code := still(["--registry", str(registry), "sql", "SELECT count(*) FROM event"]):
            return code
        time.sleep(chance.uniform(0, 0.3))


def _read(registry: Path, chance: random.Random) -> int:
    from stillhouse.cli.main import main as still

    verbs = ("log", "ls", "gates", "why dataset", "lineage release@latest", "fsck")
    while True:
        (verb,) = chance.choices(verbs, (2, 2, 2, 2, 2, 1))
        code = still(["--registry", str(registry), *verb.split()])
        if code not in ((0, 1) if verb == "gates" else (0,)):  # 1: a gate is closed
            return code
        time.sleep(chance.uniform(0, 0.3))


_PARTS: dict[str, Callable[[Path, random.Random], int]] = {
    "publisher": _publish,
    "run": _run,
    "daemon": _watch,
    "projector": _project,
    "reader": _read,
}


def _base(registry: Path) -> Recipe:
    """The recipe of the finished pipeline, in digests."""
    from stillhouse.registry.home import Home
    from stillhouse.session import open_registry

    state = open_registry(Home(registry)).state()
    return state.recipe(next(iter(state.requested)))


def variant(base: Recipe, chance: random.Random) -> Recipe:
    """A recipe that nobody asked for before: mostly another budget, else another data set."""
    document = base.to_json()
    (sort,) = chance.choices(("release", "data", "too little data"), (75, 20, 5))
    if sort == "release":
        document["deployment"]["max_new_tokens"] = chance.randrange(1, 2**40)
        return Recipe.model_validate(document)
    kept = {name: document[name] for name in ("name", "tier", "policy", "teacher", "dataset")}
    kept["dataset"]["seed"] = chance.randrange(1, 2**40)
    if sort == "too little data":
        kept["dataset"]["splits"]["train"] = _TOO_MANY
    return Recipe.model_validate(kept)


def must_fail(recipe: Recipe) -> bool:
    """Whether this is one of the recipes that can not be done."""
    return recipe.dataset is not None and recipe.dataset.splits.train == _TOO_MANY


def _open_plans(registry: Path) -> set[Digest]:
    """Plans that were asked for and are neither done nor failed."""
    from stillhouse.registry.home import Home
    from stillhouse.session import open_registry

    state = open_registry(Home(registry)).state()
    failed = {run.started.plan for run in state.runs.values() if run.last == "failed"}
    ends = {
        plan: "deployment" if state.recipe(plan).deployment else "dataset"
        for plan in state.requested
    }
    return {plan for plan, end in ends.items() if (plan, end) not in state.filled} - failed


# -- the killing --------------------------------------------------------------------------------


@dataclass
class Cast:
    """All processes of one round, started again whenever they end."""

    registry: Path
    chance: random.Random
    playing: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)
    started: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)
    """How processes ended that nobody killed, where they should not have."""

    @property
    def folder(self) -> Path:
        """Where notes and the last words of each process are."""
        return self.registry.parent / "notes"

    def fill(self) -> None:
        """Start what is missing of each role."""
        for role, process in list(self.playing):
            if process.poll() is not None:
                self.playing.remove((role, process))
                self._look_at(role, process)
        alive = Counter(role for role, _ in self.playing)
        for role, wanted in ROLES.items():
            for _ in range(wanted - alive[role]):
                self._start(role)

    def kill(self) -> None:
        """Kill one process of a role that was killed least often so far, if one is alive."""
        roles = [*ROLES, WORKER, WARM]
        self.chance.shuffle(roles)
        for role in sorted(roles, key=lambda r: self.killed[r]):
            found = self._alive(role)
            if found:
                os.kill(self.chance.choice(found), signal.SIGKILL)
                self.killed[role] += 1
                return

    def stop(self) -> None:
        """End everybody who is left, the gentle way."""
        for _, process in self.playing:
            process.terminate()
        for _, process in self.playing:
            process.wait(60)

    def _alive(self, role: str) -> list[int]:
        if role in {WORKER, WARM}:
            found = workers(self.registry)
            return [pid for pid, has_run in found.items() if has_run == (role == WORKER)]
        return [p.pid for name, p in self.playing if name == role and p.poll() is None]

    def _start(self, role: str) -> None:
        self.started += 1
        name = f"{role}-{self.started}"
        seed = str(self.chance.getrandbits(64))
        words = ["--play", role, str(self.registry), str(self.folder / f"{name}.acks"), seed]
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, __file__, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment(),
                cwd=ROOT,
            )
        process.name = name  # type: ignore[attr-defined]  # to find its last words
        self.playing.append((role, process))

    def _look_at(self, role: str, process: subprocess.Popen[bytes]) -> None:
        """Complain about a process that ended by itself and not well."""
        code = process.returncode
        well = (0, 1) if role == "run" else ()
        if code == -signal.SIGKILL:
            return
        log = self.folder / f"{process.name}.log"  # type: ignore[attr-defined]
        told = log.read_text(encoding="utf-8", errors="replace").strip()
        if code not in well or "Traceback" in told:
            self.surprises.append(f"{log.stem} ended with {code}: {told[-2000:]}")


def left_behind(registry: Path) -> list[str]:
    """Complaints about workers that outlive everything that they could work for."""
    deadline = time.monotonic() + _LONGEST_GOODBYE
    while found := workers(registry):
        if time.monotonic() > deadline:
            return [f"process {pid} is a worker that nobody needs" for pid in found]
        time.sleep(0.1)
    return []


def main(arguments: argparse.Namespace) -> int:
    """Kill, let everything come to rest, and check. Returns 0 when every promise was kept."""
    wanted = arguments.kills or (QUICK_KILLS if arguments.quick else KILLS)
    chance = random.Random(arguments.seed)
    with (
        finished(arguments.finished) as pipeline,
        peers.folder(arguments.work) as work,
    ):
        registry = work / "still"
        shutil.copytree(pipeline.registry, registry, symlinks=True)
        with (registry / "config.toml").open("a", encoding="utf-8") as config:
            config.write(_LIMITS)
        cast = Cast(registry=registry, chance=chance)
        cast.folder.mkdir()
        begun = time.monotonic()
        _kill_all(cast, wanted)
        print(f"seed {arguments.seed}: {cast.killed.total()} kills", end=" ")
        print(f"in {time.monotonic() - begun:.0f} s: {dict(sorted(cast.killed.items()))}")
        problems = cast.surprises + Aftermath(registry, cast.folder, must_fail).problems()
        problems += left_behind(registry)
    for problem in problems:
        print(f"BROKEN: {problem}")
    return 1 if problems else 0


def _kill_all(cast: Cast, wanted: int) -> None:
    try:
        while cast.killed.total() < wanted:
            cast.fill()
            time.sleep(cast.chance.uniform(0, LONGEST_PAUSE))
            cast.kill()
            if cast.killed.total() % 50 == 0:
                print(f"{cast.killed.total()} kills", file=sys.stderr)
    finally:
        cast.stop()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--play"]:
        part, where, acks, number = sys.argv[2:]
        sys.exit(play(part, Path(where), Path(acks), int(number)))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, metavar="N", help=f"default: {KILLS}")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_KILLS} kills")
    parser.add_argument("--finished", type=Path, metavar="DIR", help="keep the finished run here")
    parser.add_argument("--work", type=Path, metavar="DIR", help="a new folder that stays")
    sys.exit(main(parser.parse_args()))
