"""Who holds the bytes: every object has a holder, and every holder the name people know it by."""

from __future__ import annotations

import pytest

from stillhouse.registry.keeping.marking import Seen, Stock
from stillhouse.registry.keeping.retention import releases_of
from stillhouse.registry.keeping.usage import By, Holder, holders
from stillhouse.registry.state.state import State
from stillhouse.schemas.digest import SHORT
from stillhouse.schemas.events import TagMoved

from .plan_world import World, digest

_GIVEN_UP, _ORPHAN = digest("given up"), digest("orphan")


def _released() -> tuple[World, str, str]:
    """A world with a release: (world, the release, the package in it)."""
    world = World()
    view = world.run(world.plan())
    release = view.slot("deployment").outputs["release"]
    package = view.slot("conversion/prefill-8").outputs["mlpackage"]
    world.record(TagMoved(name="best", digest=package))
    return world, release, package


def _stock(state: State) -> Stock:
    """Every artifact one object of ten bytes; beside them what was given up, and an orphan."""
    needs = {artifact: frozenset((artifact,)) for artifact in state.artifacts}
    return Stock(
        oldest_lease=None,
        held=frozenset(),
        needs=needs,
        remnants=frozenset((_GIVEN_UP,)),
        placed={one: Seen(10, 0) for one in (*needs, _GIVEN_UP)},
        condemned={_ORPHAN: Seen(3, 0)},
    )


def _rows(world: World, by: By) -> dict[str, Holder]:
    found, shared = holders(world.state, _stock(world.state), by)
    assert shared == 0
    return {row.holder: row for row in found}


@pytest.mark.parametrize("by", list(By))
def test_the_rows_add_up_to_the_store_and_the_largest_comes_first(by: By) -> None:
    world, _, _ = _released()
    rows = list(_rows(world, by).values())
    assert sum(row.total for row in rows) == 10 * len(world.state.artifacts) + 10 + 3
    assert [row.total for row in rows] == sorted((row.total for row in rows), reverse=True)
    assert {"(given up)", "(orphans)"} <= {row.holder for row in rows}


def test_artifacts_are_named_and_others_have_a_row_for_what_has_no_name() -> None:
    world, release, package = _released()
    assert _rows(world, By.ARTIFACT)[package].name == "mlpackage mlpackage"
    assert _rows(world, By.TAG)["best"].total == 10
    assert "(no tag)" in _rows(world, By.TAG)
    assert "(no artifact)" not in _rows(world, By.ARTIFACT)
    parents = {p.digest for p in world.state.artifacts[release][0].fact.parents}
    there = [one for one in (release, *parents) if one in world.state.artifacts]
    assert _rows(world, By.RELEASE)[release[:SHORT]].total == 10 * len(there)


def test_a_release_that_two_plans_cut_is_named_once() -> None:
    world, release, package = _released()
    ((_, plan),) = world.state.releases
    world.state.releases[release, digest("another plan")] = world.state.releases[release, plan]
    assert releases_of(world.state)[package] == [release]
    assert releases_of(world.state)[release] == [release]
    assert plan not in releases_of(world.state)
