"""Publishers and `still gc` on one registry, as real processes, until the time is up.

Publishers publish small files and move a few tags to them, as fast as they can; every other file is
one of a few that all of them publish, tag and drop again and again, so what is condemned is wanted
again all the time. In turns, on registries that are alike, a collector runs `still gc` beside them
every so many seconds, and does not. Nothing that a tag names may ever be missing or wrong; what is
compared is how many files the publishers get done. `--every 0 --grace 0` collects without a pause
and takes at once what no tag names yet: the hardest for what must not be lost, and a core's work.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import statistics
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import peers
from store_probes import Probes, still

from stillhouse.publish import take_in
from stillhouse.registry.home import Home
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.errors import StillError
from stillhouse.session import Session, open_registry
from stillhouse.store.disk.hashing import hash_bytes
from stillhouse.tags import move_tag

SECONDS, QUICK_SECONDS = 600.0, 6.0
STRETCH, QUICK_STRETCH = 20.0, 3.0
"""Seconds with the collector, then as long without it, or the other way round."""
EVERY, QUICK_EVERY = 10.0, 1.0
"""Seconds from one collection to the next."""
GRACE = "1s"
OBJECTS, QUICK_OBJECTS = 5000, 200
"""Objects that a tag keeps from the beginning."""
SHARED = 12
"""Contents that all publishers have."""
SIZE = 32_000
"""Bytes of a file."""
_READY = 0.5
"""Seconds that the processes have to start."""
TAGS = 3
"""Of each publisher; each put moves one."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a stretch goes."""

    seconds: float
    every: float
    grace: str
    publishers: int


@dataclass
class Stretch:
    """What came of one."""

    waits: list[float] = field(default_factory=list)
    """Seconds that each put took, its tag included."""
    collections: int = 0
    given_up: int = 0
    """Collections that ended because something was recorded at every look."""
    cpu: float = 0.0
    """Seconds of CPU that the collector used."""
    beaten: int = 0
    """Files that were collected, as the ledger says, before their publisher could tag them."""
    events: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def content(number: int) -> bytes:
    """One of the files."""
    return hash_bytes(b"%d" % number).digest.encode() * (SIZE // 64)


# -- the processes ------------------------------------------------------------------------------


def publisher(registry: Path, who: int, plan: Plan, begin: float) -> tuple[list[float], int]:
    """Publish, tag, look whether all that our tags name is whole; again.

    Returns seconds of each put, and how many files were collected before their tag.
    """
    session, chance = open_registry(Home(registry)), random.Random(who)
    path = registry.parent / f"file-{who}"
    held: dict[str, str] = {}
    waits, beaten = [], 0
    _put(session, path, chance, who)  # imports and the first look at the ledger do not count
    _wait(begin)
    while (now := time.monotonic()) < begin + plan.seconds:
        name = f"p{who}-{chance.randrange(TAGS)}"
        digest = _put(session, path, chance, who)
        move_tag(session, name, digest)
        waits.append(time.monotonic() - now)
        if digest in session.state().absent:
            beaten += 1
            held.pop(name, None)
        else:
            held[name] = digest
        for mine in held.values():
            session.store.verify(mine)
    return waits, beaten


def _put(session: Session, path: Path, chance: random.Random, who: int) -> str:
    number = chance.choice((chance.randrange(SHARED), chance.getrandbits(64)))
    path.write_bytes(content(number))
    return take_in(session, path, Kind.SOURCE, name=f"{who}", renew=True).digest


def collector(registry: Path, plan: Plan, begin: float) -> tuple[int, int, float]:
    """`still gc`, in a process of its own each time.

    Returns how often it collected, how often it gave up because others recorded all the time, and
    the seconds of CPU that it used.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done, given_up = 0, 0
    due = begin + plan.every / 2
    while due < begin + plan.seconds:
        _wait(due)
        code, said = still(registry, "gc", "--grace", plan.grace)
        if code and "at every look" not in said:
            raise RuntimeError(f"still gc ended with {code}: {said}")
        done, given_up = done + (code == 0), given_up + (code != 0)
        due = max(due + plan.every, time.monotonic())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done, given_up, used


def _wait(until: float) -> None:
    time.sleep(max(0.0, until - time.monotonic()))


# -- the turns ----------------------------------------------------------------------------------


def furnish(registry: Path, objects: int) -> None:
    """A registry that holds a tagged folder of many small files."""
    code, said = still(registry, "init")
    if code:
        raise RuntimeError(said)
    folder = registry.parent / "kept"
    folder.mkdir()
    for number in range(objects):
        (folder / str(number)).write_bytes(b"%d" % number * 100)
    session = open_registry(Home(registry))
    move_tag(session, "kept", take_in(session, folder, Kind.SOURCE).digest)


def stretch(template: Path, plan: Plan, *, collecting: bool) -> Stretch:
    """Run all for a while on a registry of their own, and look at what is there afterwards."""
    registry = template.parent / "turn" / "still"
    shutil.copytree(template, registry)
    found = Stretch()
    try:
        _run(registry, plan, found, collecting=collecting)
        _check(registry, found)
    finally:
        shutil.rmtree(registry.parent)
    return found


def _run(registry: Path, plan: Plan, found: Stretch, *, collecting: bool) -> None:
    begin = time.monotonic() + _READY
    with ProcessPoolExecutor(plan.publishers + 1) as pool:
        crew = [
            pool.submit(publisher, registry, who, plan, begin) for who in range(plan.publishers)
        ]
        gc = pool.submit(collector, registry, plan, begin) if collecting else None
    for one in crew:
        try:
            waits, beaten = one.result()
        except StillError as error:
            found.problems.append(error.message)
            continue
        found.waits += waits
        found.beaten += beaten
    if gc is not None:
        found.collections, found.given_up, found.cpu = gc.result()


def _check(registry: Path, found: Stretch) -> None:
    """Everything that a tag names, or that is not recorded as given up, is there and whole."""
    probes = Probes(registry)
    state = probes.session.state()
    probes.disposable = state.artifacts.keys() - set(state.tags.values())
    found.problems += probes.problems()
    for event in probes.session.ledger.read():
        if event.type.startswith("bytes."):
            found.events[event.type] += event.data.get("objects", 1)


def main(arguments: argparse.Namespace) -> int:
    """Take turns until the time is up; 1 when anything was lost."""
    quick = arguments.quick
    plan = Plan(
        seconds=arguments.stretch or (QUICK_STRETCH if quick else STRETCH),
        every=(QUICK_EVERY if quick else EVERY) if arguments.every is None else arguments.every,
        grace=arguments.grace,
        publishers=arguments.publishers,
    )
    wanted = arguments.seconds or (QUICK_SECONDS if quick else SECONDS)
    turns: dict[bool, list[Stretch]] = {True: [], False: []}
    with peers.folder(arguments.work) as work:
        furnish(work / "still", QUICK_OBJECTS if quick else OBJECTS)
        begun, order = time.monotonic(), [True, False]
        while time.monotonic() - begun < wanted:
            for collecting in order:
                turns[collecting].append(stretch(work / "still", plan, collecting=collecting))
            order.reverse()
    return report(turns, plan)


def report(turns: dict[bool, list[Stretch]], plan: Plan) -> int:
    """Print medians and the ratio; 1 when anything was lost."""
    problems = [problem for found in (*turns[True], *turns[False]) for problem in found.problems]
    for problem in problems:
        print(f"BROKEN: {problem}")
    print(f"{plan.publishers} publishers, still gc --grace {plan.grace} every {plan.every:g} s,")
    print(f"{len(turns[True])} stretches of {plan.seconds:g} s with it and as many without")
    rates = {}
    for collecting, name in ((True, "with"), (False, "without")):
        rates[collecting] = statistics.median(
            len(f.waits) / plan.seconds for f in turns[collecting]
        )
        waits = sorted(wait for found in turns[collecting] for wait in found.waits)
        print(
            f"{name:8} {rates[collecting]:7.1f} files a second   each "
            f"{statistics.median(waits) * 1e3:.1f} ms, 99 % within "
            f"{waits[len(waits) * 99 // 100] * 1e3:.1f} ms, longest {waits[-1] * 1e3:.0f} ms"
        )
    pairs = [len(a.waits) / len(b.waits) for a, b in zip(turns[True], turns[False], strict=True)]
    cores = len(os.sched_getaffinity(0))
    used = statistics.median(found.cpu for found in turns[True])
    events = sum((found.events for found in turns[True]), Counter[str]())
    print(
        f"ratio    {rates[True] / rates[False]:7.3f}   pair by pair {statistics.median(pairs):.3f}"
    )
    print(
        f"gc used  {used:7.2f} s of CPU a stretch: {used / plan.seconds / cores:.1%} of {cores} "
        f"cores   {sum(found.collections for found in turns[True])} collections, "
        f"{sum(found.given_up for found in turns[True])} given up"
    )
    print("objects  " + ", ".join(f"{n} {kind}" for kind, n in sorted(events.items())), end="; ")
    print(f"{sum(found.beaten for found in turns[True])} files collected before their tag")
    print(f"lost {len(problems)}")
    return int(bool(problems))


if __name__ == "__main__":
    os.umask(0o022)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, help=f"in all; default: {SECONDS:g}")
    parser.add_argument("--stretch", type=float, help=f"seconds; default: {STRETCH:g}")
    parser.add_argument("--every", type=float, help=f"seconds; 0: no pause; default: {EVERY:g}")
    parser.add_argument("--grace", default=GRACE, help=f"of gc; default: {GRACE}")
    parser.add_argument("--publishers", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a few short stretches, a small store")
    parser.add_argument("--work", type=Path, metavar="DIR", help="an empty folder that stays")
    sys.exit(main(parser.parse_args()))
