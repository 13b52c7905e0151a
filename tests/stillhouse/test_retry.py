"""Retries, asked for by a program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillhouse.registry.home import Home
from stillhouse.registry.state.runs import RunName
from stillhouse.retry import Retries, retry
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.events import ArtifactPublished, PlanRequested, RunFailed, RunStarted
from stillhouse.session import Session, make_registry, open_registry

PLANS = ("d" * 64, "e" * 64)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A registry with one failed run of each of two plans; only the first is asked for."""
    home = Home(tmp_path / ".still")
    make_registry(home)
    found = open_registry(home)
    for run, plan in zip("ab", PLANS, strict=True):
        about: dict[str, Any] = {"run": run * 64, "phase": "p", "plan": plan, "slot": "s"}
        begun = RunStarted(**about, attempt=1, phase_version=1, inputs=(), params={}, tools={})
        broke = RunFailed(**about, attempt=1, code="x", message="m", remedy="r", seconds=1)
        found.ledger.append([begun, broke])
    about = {"digest": PLANS[0], "kind": Kind.RECIPE, "form": "blob", "size": 1}
    recipe = ArtifactPublished.model_validate({**about, "origin": "imported"})
    found.ledger.append([recipe, PlanRequested(plan=PLANS[0])])
    return found


def test_plans_that_are_not_asked_for_are_told_with_the_runs(session: Session) -> None:
    runs = tuple(RunName(run=run * 64, slot="s") for run in "ab")
    assert retry(session) == Retries(runs=runs, dropped=(PLANS[1],))
    assert session.state().runs["a" * 64].tried_again(1)


def test_what_is_to_be_tried_again_is_not_retried_with_all_others(session: Session) -> None:
    retry(session)
    before = session.ledger.head().seq
    assert retry(session) == Retries(runs=(), dropped=())
    assert session.ledger.head().seq == before
