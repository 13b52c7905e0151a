"""Two plans whose runs make equal bytes: neither lends the other its history."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillhouse.lineage import closure
from stillhouse.registry.home import Home
from stillhouse.registry.lineage.graph import Lineage
from stillhouse.registry.lineage.own import OwnLineage
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.session import Session

from .conftest import Still
from .recorded import Recorder


@pytest.fixture
def plans(session: Session, policy: Path, place: Path) -> tuple[str, str]:
    recorder = Recorder(session, place / "scratch")
    first = recorder.plan(policy)
    recorder.run(first)
    second = recorder.plan(policy, name="second", deployment={"max_new_tokens": 7})
    recorder.run(second)
    return first, second


@pytest.fixture
def shared(session: Session, plans: tuple[str, str]) -> str:
    """A package that the second plan reused, as the first one made it."""
    runs = session.state().filled
    (made,) = {session.state().runs[runs[p, "conversion/prefill-8"]].key for p in plans}
    return session.state().runs[made].outputs["mlpackage"]


def _kinds(told: dict[str, list[dict[str, str]]]) -> set[tuple[str, str]]:
    return {(a["kind"], a["digest"]) for a in told["artifacts"]}


def test_within_a_plan_its_own_recipe_stands_behind_what_it_reused(
    still: Still, plans: tuple[str, str], shared: str
) -> None:
    for plan in plans:
        told = still("lineage", shared, "--plan", plan, "--json").json
        assert {d for kind, d in _kinds(told) if kind == "recipe"} == {plan}
        assert {kind for kind, _ in _kinds(told)} >= {"mlpackage", "export", "checkpoint"}


def test_all_is_what_every_run_recorded_that_made_equal_bytes(
    still: Still, session: Session, shared: str
) -> None:
    told = still("lineage", shared, "--all", "--json").json
    assert "also_made_by_others" not in told
    assert told == still("lineage", shared, "--json").json  # no release, and no plan was named
    assert _kinds(told) == {(a.kind, a.digest) for a in closure(session, shared).artifacts}


def test_what_other_runs_made_too_is_said(still: Still, plans: tuple[str, str]) -> None:
    answer = still("lineage", "mlpackage@latest", "--plan", plans[1])
    assert "other runs made" in answer.err


def test_the_way_within_a_plan_leads_over_its_own_arrows(
    still: Still, plans: tuple[str, str], shared: str
) -> None:
    assert still("lineage", shared, "--to", "checkpoint@latest", "--plan", plans[1]).code == 0
    other = still(
        *("lineage", shared, "--to", plans[0], "--plan", plans[1], "--circumstances", "--json")
    )
    assert other.code == 1
    assert "--all" in other.err


@pytest.mark.parametrize(
    "typed",
    [["--plan", "abcd", "--all"], ["--plan", "abcd", "--down"], ["--plan", "source@latest"]],
)
def test_a_plan_that_can_not_be_meant_is_refused(
    still: Still, shared: str, typed: list[str]
) -> None:
    assert still("lineage", shared, *typed).code == 2


def test_an_artifact_has_only_the_arrows_that_it_is_given(
    home: Home, session: Session, shared: str
) -> None:
    lineage = Lineage(home.log, home.lineage)
    export = next(
        lineage.digest(a.node)
        for a in lineage.arrows(lineage.node(shared), "up")
        if a.role == "export"
    )
    own = OwnLineage(lineage, {shared: [Parent(role="export", digest=export)]})
    node, parent = lineage.node(shared), lineage.node(export)
    assert [a.node for a in own.arrows(node, "up")] == [parent]
    assert own.levels(node, "up") == [[node], [parent]]
    assert own.levels(node, "up", 0) == [[node]]
    assert own.shared(node) == 1
    found = own.derivation(node, parent)
    assert found is not None
    assert [a.role for a in found.arrows] == ["export"]
    back = own.derivation(parent, node)
    assert back is not None
    assert (back.way, [a.node for a in back.arrows]) == ("down", [node])
    assert own.derivation(node, lineage.node(session.state().latest[Kind.POLICY])) is None
    with pytest.raises(ValueError, match="down"):
        own.arrows(node, "down")
    assert session.state().published(export, Kind.EXPORT)
