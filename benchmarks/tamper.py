"""Seeded edits, cuts, swaps, doubled lines and forks of a ledger: each must be found at its event.

Each case changes a copy of a log and audits it with `registry.audit.examine`, as `still audit`
does, against the projection that was made before. The last kinds have no projection, only the last
event's hash, kept elsewhere; then the audit names two events between which the first bad one is.
Where it must be found is told by a comparison of both logs, line by line, which knows no chain.
Ends with 1 when a case was not found, or not at its event.

    python benchmarks/tamper.py [--quick] [--cases N]
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from world import World, write

from stillhouse.registry.audit.audit import Examination, Projected, examine, read_projection
from stillhouse.registry.audit.witnesses import Witness
from stillhouse.registry.projection.projection import Projection
from stillhouse.schemas.event import GENESIS

CASES = 5200
QUICK = 300
REGISTRIES = 4
ARTIFACTS = 110
"""Of each registry: one plan and what plans share, about 200 events."""

Lines = list[bytes]
"""Whole lines of a log, each with its LF; perhaps a torn one at the end."""


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A log, and what remembers it."""

    lines: Lines
    projected: Projected
    head: Witness


# -- what is done to a log -------------------------------------------------------------------------


def edit(chance: random.Random, lines: Lines) -> Lines:
    """Replace, insert or delete a byte anywhere."""
    log = bytearray(b"".join(lines))
    place = chance.randrange(len(log))
    match chance.choice(["replace", "insert", "delete"]):
        case "replace":
            log[place] ^= 1 << chance.randrange(8)
        case "insert":
            log.insert(place, chance.randrange(256))
        case _:
            del log[place]
    return _split(bytes(log))


def digit(chance: random.Random, lines: Lines) -> Lines:
    """Exchange one digit for another, so that the JSON stays valid."""
    log = bytearray(b"".join(lines))
    places = [place for place, byte in enumerate(log) if byte in b"0123456789"]
    place = chance.choice(places)
    log[place] = chance.choice([byte for byte in b"0123456789" if byte != log[place]])
    return _split(bytes(log))


def cut_anywhere(chance: random.Random, lines: Lines) -> Lines:
    """Keep some bytes."""
    log = b"".join(lines)
    return _split(log[: chance.randrange(len(log))])


def cut_at_a_line(chance: random.Random, lines: Lines) -> Lines:
    """Keep some lines, perhaps a part of a batch."""
    return lines[: chance.randrange(len(lines))]


def cut_at_a_batch(chance: random.Random, lines: Lines) -> Lines:
    """Keep some batches, which is a valid log."""
    return lines[: chance.choice([n for n in range(len(lines)) if _begins(lines[n])])]


def swap(chance: random.Random, lines: Lines) -> Lines:
    """Exchange two lines."""
    one, other = chance.sample(range(len(lines)), 2)
    changed = lines.copy()
    changed[one], changed[other] = changed[other], changed[one]
    return changed


def double(chance: random.Random, lines: Lines) -> Lines:
    """Put a line in once more, at its place or elsewhere."""
    line = chance.randrange(len(lines))
    place = chance.choice([line, chance.randrange(len(lines) + 1)])
    return [*lines[:place], lines[line], *lines[place:]]


def remove(chance: random.Random, lines: Lines) -> Lines:
    """Take out some lines in a row, but not the last."""
    begin = chance.randrange(len(lines) - 1)
    end = chance.randrange(begin + 1, len(lines))
    return lines[:begin] + lines[end:]


def fork(chance: random.Random, lines: Lines) -> Lines:
    """Change an event, and hash it and all after it anew."""
    return _forged(lines, chance.randrange(len(lines)), chance)


def fork_and_cut(chance: random.Random, lines: Lines) -> Lines:
    """The same, and end at an earlier batch."""
    begin = chance.randrange(len(lines))
    ends = [n for n in range(begin + 1, len(lines)) if _begins(lines[n])]
    return _forged(lines, begin, chance)[: chance.choice(ends) if ends else None]


def forge_all(chance: random.Random, lines: Lines) -> Lines:
    """Change the first event, and hash the whole log anew."""
    return _forged(lines, 0, chance)


def _forged(lines: Lines, begin: int, chance: random.Random) -> Lines:
    changed = lines[:begin]
    prev = lines[begin - 1][:64] if begin else GENESIS.encode()
    for place, line in enumerate(lines[begin:]):
        body = line[65:-1]
        if place == 0:
            name = b'"user":"%d"' % chance.randrange(10**6)
            start = body.index(b'"user":"')
            body = body[:start] + name + body[body.index(b'"', start + 8) + 1 :]
        start = body.rindex(b'},"prev":"') + 10
        body = body[:start] + prev + body[start + 64 :]
        prev = hashlib.sha256(body).hexdigest().encode()
        changed.append(prev + b"\t" + body + b"\n")
    return changed


def _split(log: bytes) -> Lines:
    """As the ledger splits: at LF and nothing else."""
    *whole, torn = log.split(b"\n")
    return [line + b"\n" for line in whole] + ([torn] if torn else [])


def _begins(line: bytes) -> bool:
    """Whether a line is the first of its batch."""
    return line[line.index(b'"batch":"') + 9 :].startswith(b"1/")


Tamper = Callable[[random.Random, Lines], Lines]
WITH_PROJECTION: Mapping[str, Tamper] = {
    "edited byte": edit,
    "edited digit": digit,
    "cut anywhere": cut_anywhere,
    "cut at a line": cut_at_a_line,
    "cut at a batch": cut_at_a_batch,
    "swapped lines": swap,
    "doubled line": double,
    "removed lines": remove,
    "fork": fork,
    "fork, then cut": fork_and_cut,
    "forged whole": forge_all,
}
WITH_A_HEAD: Mapping[str, Tamper] = {
    "fork, head only": fork,
    "cut at a batch, head only": cut_at_a_batch,
}


# -- whether it is found ---------------------------------------------------------------------------


def first_bad(before: Lines, after: Lines) -> int:
    """The number of the first event that is not what it was.

    A batch of which a part is missing at the end is gone as a whole.
    """
    same = next(
        (n for n, (old, new) in enumerate(zip(before, after, strict=False)) if old != new),
        min(len(before), len(after)),
    )
    if same < len(after) and after[same].endswith(b"\n"):
        return same + 1
    while not _begins(before[same]):
        same -= 1
    return same + 1


def located(found: Examination, bad: int) -> bool:
    """Whether the first finding is about that event, or the least that heads can tell."""
    first = found.findings[0]
    return first.after < bad <= first.event


def make(folder: Path, seed: int) -> Registry:
    """A registry that was projected."""
    log = folder / "events.log"
    write(log, World(seed=seed).batches(ARTIFACTS))
    projection = Projection(folder / "registry.duckdb", log)
    projection.catch_up()
    lines = _split(log.read_bytes())
    head = Witness(source="kept", seq=len(lines), hash=lines[-1][:64].decode())
    projected = read_projection(folder / "registry.duckdb")
    found = examine(log, projected, [head])
    if found.findings or found.compared != len(lines):
        raise AssertionError(f"an honest ledger is accused: {found.findings}")
    return Registry(lines=lines, projected=projected, head=head)


def try_one(log: Path, registry: Registry, kind: str, chance: random.Random) -> tuple[bool, bool]:
    """Whether one case is found, and whether it is located."""
    tamper = WITH_PROJECTION.get(kind)
    heads: Sequence[Witness] = ()
    projected = registry.projected
    if tamper is None:
        tamper, heads, projected = WITH_A_HEAD[kind], [registry.head], Projected(state="absent")
    tampered = tamper(chance, registry.lines)
    log.write_bytes(b"".join(tampered))
    found = examine(log, projected, heads)
    if not found.findings:
        return False, False
    return True, located(found, first_bad(registry.lines, tampered))


def main(cases: int) -> int:
    """Print for each kind how many were tried, found and located."""
    kinds = [*WITH_PROJECTION, *WITH_A_HEAD]
    tried, detected, in_place = Counter[str](), Counter[str](), Counter[str]()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tamper-") as name:
        registries = []
        for seed in range(REGISTRIES):
            (Path(name) / str(seed)).mkdir()
            registries.append(make(Path(name) / str(seed), seed))
        for case in range(cases):
            kind = kinds[case % len(kinds)]
            registry = registries[case // len(kinds) % REGISTRIES]
            found, there = try_one(Path(name) / "case.log", registry, kind, random.Random(case))
            tried[kind] += 1
            detected[kind] += found
            in_place[kind] += there
            if not there:
                print(f"case {case} ({kind}): found {found}, located {there}")
    print(f"{'kind':28} {'tried':>7} {'detected':>9} {'located':>8}")
    for kind in kinds:
        print(f"{kind:28} {tried[kind]:7} {detected[kind]:9} {in_place[kind]:8}")
    total = tried.total(), detected.total(), in_place.total()
    print(f"{'all':28} {total[0]:7} {total[1]:9} {total[2]:8}", end="   ")
    print(f"({time.perf_counter() - begun:.0f} s, {len(registries[0].lines)} events a log)")
    return 0 if total[0] == total[1] == total[2] else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tamper with a ledger, and audit it.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} cases")
    parser.add_argument("--cases", type=int, default=CASES)
    given = parser.parse_args()
    sys.exit(main(QUICK if given.quick else given.cases))
