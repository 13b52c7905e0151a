"""The protocol of publishers, workers and garbage collection as a step model: no file, no process.

Everything that the file system does in one step is one step here. `Rules` turns off one condition
of docs/store.md each, to show that the model would notice. A schedule is one random interleaving;
it is lost when an object that the ledger refers to is in no place any more.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from random import Random

GRACE = 6
"""Ticks."""
_STEPS_A_TICK = 3
"""The clock is coarse: what happens within one tick has one time."""

Steps = Generator[None, None, None]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What makes it safe; all true in the store."""

    grace: bool = True
    leases: bool = True
    strictly_before: bool = True
    """Condemned before the lease began, not in the same tick."""
    ledger_read_again: bool = True
    ledger_after_leases: bool = True
    lease_before_look: bool = True
    put_links_back: bool = True
    gc_alone_takes_names_away: bool = True
    outcome_before_lease_ends: bool = True
    outcomes_after_leases: bool = True
    outcomes_before_ledger: bool = True
    recorded_before_outcome_goes: bool = True


@dataclass
class World:
    """One object, whose content many want."""

    steps: int = 0
    in_place: bool = False
    condemned_at: int | None = None
    leases: dict[int, int] = field(default_factory=dict)
    outcomes: set[int] = field(default_factory=set)
    """Workers that left word of it, for the reactor to record."""
    ledger: set[int] = field(default_factory=set)
    """Who refers to the object."""

    @property
    def now(self) -> int:
        return self.steps // _STEPS_A_TICK

    @property
    def lost(self) -> bool:
        return bool(self.ledger) and not self.in_place and self.condemned_at is None


def publisher(world: World, rules: Rules, me: int, *, lease: bool) -> Steps:
    """Puts the object and records it. Without a lease it must be done within the grace period."""
    if lease and rules.lease_before_look:
        world.leases[me] = world.now
        yield
    looked = world.now
    own = yield from _look(world, rules)
    yield
    shown = yield from _show(world, rules, own=own)
    yield
    if not shown:
        world.leases.pop(me, None)
        return
    if lease and not rules.lease_before_look:
        world.leases[me] = world.now
        yield
    if lease or world.now - looked < GRACE:
        world.ledger.add(me)
        yield
    world.leases.pop(me, None)


def worker(world: World, rules: Rules, me: int, work: int) -> Steps:
    """Works long without a lease, puts the object under one, and leaves word to be recorded.

    What it reads is in the ledger since before it began, and needs no lease.
    """
    for _ in range(work):
        yield
    if rules.lease_before_look:
        world.leases[me] = world.now
        yield
    own = yield from _look(world, rules)
    yield
    if not rules.lease_before_look:
        world.leases[me] = world.now
        yield
    if not (yield from _show(world, rules, own=own)):
        world.leases.pop(me, None)
        return
    yield
    for left in (True, False) if rules.outcome_before_lease_ends else (False, True):
        if left:
            world.outcomes.add(me)
        else:
            world.leases.pop(me, None)
        yield
    for recorded in (True, False) if rules.recorded_before_outcome_goes else (False, True):
        if recorded:
            world.ledger.add(me)
        else:
            world.outcomes.discard(me)
        yield


def _look(world: World, rules: Rules) -> Generator[None, None, bool]:
    """Whether a copy of one's own is needed: the object is not there, and not condemned."""
    if world.in_place:
        return False
    yield
    return not (yield from _linked_back(world, rules))


def _linked_back(world: World, rules: Rules) -> Generator[None, None, bool]:
    if world.condemned_at is None:
        return False
    if rules.put_links_back:
        world.in_place = True
        if world.condemned_at is not None:
            world.condemned_at = world.now  # a link sets ctime
    if not rules.gc_alone_takes_names_away:
        yield
        world.condemned_at = None
    return True


def _show(world: World, rules: Rules, *, own: bool) -> Generator[None, None, bool]:
    if own:
        world.in_place = True
        return True
    if world.in_place:
        return True
    yield
    return (yield from _linked_back(world, rules))


def forgetter(world: World) -> Steps:
    """Drops what is referred to, as an eviction does; so garbage comes to be."""
    for _ in range(2):
        yield
        if world.ledger:
            world.ledger.discard(min(world.ledger))


def collector(world: World, rules: Rules, rounds: int) -> Steps:
    """Garbage collection, of which one runs at a time."""
    for _ in range(rounds):
        marked = bool(world.ledger or world.outcomes)
        yield
        if not marked:
            yield from _condemn(world)
        yield
        yield from _sweep(world, rules, marked=marked)


def _condemn(world: World) -> Steps:
    if not world.in_place:
        return
    if world.condemned_at is None:
        world.in_place = False
        world.condemned_at = world.now
        return
    yield  # two names of one file: a rename does nothing, so the first is taken away
    world.in_place = False
    world.condemned_at = world.now


def _sweep(world: World, rules: Rules, *, marked: bool) -> Steps:
    at, now = world.condemned_at, world.now
    if at is None:
        return
    yield
    seen: dict[str, bool] = {}
    oldest: int | None = None
    for place in _order(rules):
        if place == "leases":
            oldest = min(world.leases.values(), default=None)
        else:
            seen[place] = bool(world.ledger if place == "ledger" else world.outcomes)
        yield
    referred = seen["outcomes"] or (seen["ledger"] if rules.ledger_read_again else marked)
    if referred:
        world.in_place = True
        yield
        world.condemned_at = None
    elif _may_go(rules, at=at, now=now, oldest=oldest):
        world.condemned_at = None


def _order(rules: Rules) -> list[str]:
    """In which order garbage collection looks."""
    order = ["leases", "outcomes", "ledger"]
    if not rules.outcomes_after_leases:
        order = ["outcomes", "leases", "ledger"]
    if not rules.outcomes_before_ledger:
        order = ["leases", "ledger", "outcomes"]
    if not rules.ledger_after_leases:
        order = ["ledger", "leases", "outcomes"]
    return order


def _may_go(rules: Rules, *, at: int, now: int, oldest: int | None) -> bool:
    if rules.grace and now - at <= GRACE:
        return False
    if oldest is None or not rules.leases:
        return True
    return at < oldest if rules.strictly_before else at <= oldest


def lost(seed: int, rules: Rules) -> bool:
    """Whether this schedule loses an object that the ledger refers to."""
    chance = Random(seed)
    world = World(in_place=chance.random() < 0.8)
    if world.in_place and chance.random() < 0.4:
        world.ledger.add(-1)
    both = [
        worker(world, rules, me, work=chance.choice((0, 4, 12)))
        if chance.random() < 0.5
        else publisher(world, rules, me, lease=me == 1 or chance.random() < 0.5)
        for me in (1, 2)
    ]
    actors = [collector(world, rules, rounds=3), *both, forgetter(world)]
    return any(world.lost for _ in _interleaved(world, actors, chance))


def _interleaved(world: World, actors: list[Steps], chance: Random) -> Iterable[None]:
    """Some actors are slow for a while, so that whole rounds pass between two of their steps.

    Sometimes much happens within one tick, and sometimes many ticks pass at once.
    """
    weights = [chance.choice((1, 1, 4, 20)) for _ in actors]
    paces = chance.choice(((0, 1, 1, 2, 12), (0, 0, 0, 0, 0, 0, 30)))
    while actors:
        (turn,) = chance.choices(range(len(actors)), weights)
        world.steps += chance.choice(paces)
        try:
            next(actors[turn])
        except StopIteration:
            del actors[turn], weights[turn]
        yield
