"""Facts as the state reads them: parsed once, and malformed ones are told, not stumbled over."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse.registry.planning.assess import assess
from stillhouse.registry.state.state import Published
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.facts import ReportFacts
from stillhouse.schemas.policy import Verdict

from .plan_world import CATALOG, NOW, World, decide


def rewrite(world: World, digest: Digest, **facts: Any) -> None:
    """Let another program have recorded other facts of an artifact."""
    world.state.artifacts[digest] = [
        Published.of(p.seq, p.ts, p.fact.model_copy(update={"facts": facts}))
        for p in world.state.artifacts[digest]
    ]


@pytest.fixture
def world() -> World:
    return World()


def test_facts_are_parsed_once(world: World) -> None:
    view = world.run(world.plan())
    published = world.state.from_run(view.slot("export/prefill-8").outputs["report"])
    assert published is not None
    assert published.facts(ReportFacts) is published.facts(ReportFacts)


@pytest.mark.parametrize("kind", [Kind.RECIPE, Kind.POLICY, Kind.REPORT])
def test_a_plan_with_malformed_facts_is_not_assessed(world: World, kind: Kind) -> None:
    plan = world.plan()
    report = world.run(plan).slot("export/prefill-8").outputs["report"]
    digests = {Kind.RECIPE: plan, Kind.POLICY: world.state.recipe(plan).policy, Kind.REPORT: report}
    rewrite(world, digests[kind], mood="good")
    with pytest.raises(IntegrityError, match=f"the {kind} .* does not carry the facts") as caught:
        assess(world.state, plan, CATALOG, world.site, NOW)
    assert caught.value.code == "event.malformed"


def test_nothing_is_judged_over_malformed_measurements(world: World) -> None:
    plan = world.plan()
    rewrite(world, world.environment, metrics=[{"name": 1}])
    with pytest.raises(IntegrityError, match=r"the environment .* metrics\.0\.name"):
        decide(world.state, (plan,), CATALOG, world.site, NOW)


def test_an_environment_that_measured_nothing_passes_no_gate(world: World) -> None:
    plan = world.plan()
    rewrite(world, world.environment, python="3.11")
    view = world.run(plan)
    first = view.closed_gates[0]
    assert (first.gate, first.verdict) == ("environment.versions", Verdict.NOT_RUN)
    assert not world.executed
