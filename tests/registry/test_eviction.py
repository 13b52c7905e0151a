"""What may be evicted, and that objects which something else needs are not among what goes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stillhouse.registry.keeping.eviction import decide_eviction
from stillhouse.registry.keeping.marking import Seen, Stock
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import BusyError, InputError
from stillhouse.schemas.events import ArtifactEvicted

from .plan_world import World, digest

MINE = {digest("list"), digest("own file"), digest("common file")}


def _world() -> tuple[World, Digest]:
    """A plan that has run, and the package in its release."""
    world = World()
    view = world.run(world.plan())
    return world, view.slot("conversion/prefill-8").outputs["mlpackage"]


def _stock(artifact: Digest) -> Stock:
    return Stock(
        oldest_lease=None,
        held=frozenset(),
        needs={artifact: frozenset(MINE), digest("other"): frozenset({digest("common file")})},
        remnants=frozenset(),
        placed={one: Seen(10, 0) for one in MINE},
        condemned={},
    )


def _code(world: World, artifact: Digest, stock: Stock, *, force: bool = False) -> str:
    with pytest.raises((InputError, BusyError)) as caught:
        decide_eviction(world.state, stock, artifact, MINE, force=force)
    return caught.value.code


def test_only_what_nothing_else_needs_goes() -> None:
    world, package = _world()
    world.state.releases.clear()
    stock = _stock(package)
    found = decide_eviction(world.state, stock, package, MINE, force=False)
    assert found.objects == MINE - {digest("common file")}
    assert found.size == 20
    held = replace(stock, held=frozenset({digest("own file")}))
    assert decide_eviction(world.state, held, package, MINE, force=False).size == 10
    run = world.state.runs[found.runs[-1].key]
    assert package in run.outputs.values()
    run.log = digest("list")
    assert (
        digest("list")
        not in decide_eviction(world.state, stock, package, MINE, force=False).objects
    )


def test_what_a_release_was_made_from_and_a_report_go_only_by_force() -> None:
    world, package = _world()
    (plan,) = world.state.requested
    report = world.view(plan).slot("export/prefill-8").outputs["report"]
    assert _code(world, package, _stock(package)) == "evict.released"
    assert _code(world, report, _stock(report)) == "evict.report"
    for forced in (package, report):
        assert decide_eviction(world.state, _stock(forced), forced, MINE, force=True).runs


def test_what_is_gone_in_use_or_can_not_be_made_again_is_refused_by_force_too() -> None:
    world, package = _world()
    (plan,) = world.state.requested
    export = world.view(plan).slot("export/prefill-8").outputs["export"]
    given = digest("weights")
    assert _code(world, given, _stock(given), force=True) == "evict.not_derivable"
    (run,) = [r for r in world.state.runs.values() if export in r.outputs.values()]
    world.record(ArtifactEvicted(digest=export, run=run.key, size=1))
    empty = replace(_stock(export), placed={})
    assert _code(world, export, empty, force=True) == "evict.absent"
    (reader,) = [r for r in world.state.runs.values() if package in r.outputs.values()]
    world.record(reader.started.model_copy(update={"attempt": 2}))
    stock = _stock(export)
    with pytest.raises(BusyError, match=reader.key[:SHORT]):
        decide_eviction(world.state, stock, export, MINE, force=True)
