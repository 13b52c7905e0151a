"""Which runs make something again, and what of the tools is not what they were recorded with."""

from __future__ import annotations

import pytest

from stillhouse.registry.keeping.recovery import ToolChange, runs_to, steps_of, tool_changes
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError

from .plan_world import World, digest

PHASES = {"training": 1, "export": 1, "conversion": 1, "deployment": 1}


def _made() -> tuple[World, Digest, Digest]:
    """(world, an export, the package that was converted from it)."""
    world = World()
    view = world.run(world.plan())
    export = view.slot("export/prefill-8").outputs["export"]
    return world, export, view.slot("conversion/prefill-8").outputs["mlpackage"]


def test_what_is_missing_upstream_is_repeated_first_and_what_is_there_is_not() -> None:
    world, export, package = _made()
    only = steps_of(runs_to(world.state, package, ()))
    both = steps_of(runs_to(world.state, package, {export}))
    assert [step.slot for step in only] == ["conversion/prefill-8"]
    assert [step.slot for step in both] == ["export/prefill-8", "conversion/prefill-8"]
    assert both[1] == only[0]
    assert world.state.runs[only[0].run].seconds == only[0].seconds


def test_what_no_run_made_is_named_with_the_way_to_bring_it_back() -> None:
    world, _, _ = _made()
    given = digest("by hand")
    with pytest.raises(InputError) as caught:
        runs_to(world.state, given, {given})
    assert caught.value.code == "rewind.not_derivable"
    assert f"still repair {given[:SHORT]} --from PATH" in caught.value.remedy


def test_a_package_or_phase_that_is_another_than_recorded_or_gone_is_told() -> None:
    world, export, package = _made()
    runs = runs_to(world.state, package, {export})
    assert tool_changes(runs, world.versions, PHASES) == ()
    newer, other = {"torch": "2"}, PHASES | {"conversion": 3}
    changes = tool_changes(runs, newer, other)
    told = {(change.slot, change.tool): change for change in changes}
    assert told["export/prefill-8", "torch"].present == "2"
    assert told["conversion/prefill-8", "coremltools"] == ToolChange(
        slot="conversion/prefill-8", tool="coremltools", recorded="9", present=""
    )
    assert told["conversion/prefill-8", "phase conversion, version"].present == "3"
    assert len(told) == len(changes) == 3
    assert "here is none" in told["conversion/prefill-8", "coremltools"].sentence
