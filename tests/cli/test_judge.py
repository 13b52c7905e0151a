from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillhouse.schemas.digest import SHORT
from stillhouse.schemas.events import (
    ArtifactPublished,
    GateWaived,
    PlanRequested,
    RunAbandoned,
    RunCancelled,
    RunFailed,
    RunRetried,
    RunStarted,
    RunSucceeded,
)
from stillhouse.session import Session

from .conftest import Still

pytestmark = pytest.mark.usefixtures("home")

KEYS = tuple(c * 64 for c in "abc")


def _types(session: Session) -> list[str]:
    return [event.type for event in session.ledger.read()]


def _runs(session: Session) -> None:
    """One run that succeeded and two that failed."""
    for key, failed in zip(KEYS, (False, True, True), strict=True):
        common = {"run": key, "phase": "training", "plan": "d" * 64, "slot": "s", "attempt": 1}
        session.ledger.append(
            [
                RunStarted(**common, phase_version=1, inputs=(), params={}, tools={}),
                RunFailed(**common, code="x", message="m.", remedy="r.", seconds=1)
                if failed
                else RunSucceeded(**common, outputs=(), seconds=1),
            ]
        )


def test_a_tag_moves_and_says_where_it_was(
    still: Still, session: Session, policy: Path, place: Path
) -> None:
    first = still("publish", policy, "--kind", "policy").out.strip()
    second = still("publish", place / "policy.toml", "--kind", "source").out.strip()
    assert still("tag", "mine", first).code == 0
    assert still("tag", "mine", second).rows == [["mine", second, "source"]]
    moves = [e.data for e in session.ledger.read() if e.type == "tag.moved"]
    assert [m.get("previous") for m in moves] == [None, first]
    still("tag", "mine", second)
    assert _types(session).count("tag.moved") == 2
    assert still("tag", "--json").json == {"mine": second}


@pytest.mark.parametrize("name", ["abcd", "policy", "-x", "a b", "", "x:y", "x@latest"])
def test_names_that_could_mean_something_else_are_no_tags(
    still: Still, session: Session, policy: Path, name: str
) -> None:
    still("publish", policy, "--kind", "policy")
    assert still("tag", "--", name, "policy@latest").code == 2
    assert "tag.moved" not in _types(session)


def test_an_unknown_tag_is_an_error(still: Still) -> None:
    assert still("tag", "nobody").code == 2


def test_retry_reopens_every_failed_run_at_once(still: Still, session: Session) -> None:
    _runs(session)
    answer = still("retry")
    assert [row[2] for row in answer.rows] == [KEYS[1], KEYS[2]]
    retried = [e for e in session.ledger.read() if e.type == RunRetried.TYPE]
    assert [e.batch for e in retried] == ["1/2", "2/2"]
    assert "still run" in answer.err


def test_retry_of_one_run_by_prefix(still: Still, session: Session) -> None:
    _runs(session)
    assert [r["run"] for r in still("retry", "bbbb", "--json").json] == [KEYS[1]]
    assert "not failed" in still("retry", "aaaa").err
    unknown = still("retry", "ffff")
    assert unknown.code == 2
    assert KEYS[2][:12] in unknown.err
    assert _types(session).count(RunRetried.TYPE) == 1


def _begun(session: Session, key: str) -> dict[str, Any]:
    """One run that was started; what names it."""
    common = {"run": key, "phase": "training", "plan": "d" * 64, "slot": "s", "attempt": 1}
    session.ledger.append([RunStarted(**common, phase_version=1, inputs=(), params={}, tools={})])
    return common


def test_retry_of_all_takes_up_what_was_cancelled_and_leaves_what_goes_on_by_itself(
    still: Still, session: Session
) -> None:
    cancelled, lost, live = (_begun(session, key) for key in KEYS)
    session.ledger.append([RunCancelled(run=cancelled["run"], attempt=1)])
    session.ledger.append([RunAbandoned(**cancelled, reason="ended", stopped=True)])
    session.ledger.append([RunAbandoned(**lost, reason="killed")])
    assert [row[2] for row in still("retry").rows] == [cancelled["run"]]
    # By its name it can be had at once, however long it would have waited.
    assert [row[2] for row in still("retry", lost["run"][:8]).rows] == [lost["run"]]
    refused = still("retry", live["run"][:8])
    assert refused.code == 2
    assert "it goes on" in refused.err


def test_retry_of_all_takes_up_what_died_as_often_as_it_may(still: Still, session: Session) -> None:
    lost = _begun(session, KEYS[0])
    session.ledger.append([RunAbandoned(**lost, reason="killed")])
    assert still("retry").out == ""
    session.home.config.write_text("attempts = 1\n", encoding="utf-8")
    assert [row[2] for row in still("retry").rows] == [KEYS[0]]


def test_retry_says_when_the_plan_of_a_run_is_not_asked_for(still: Still, session: Session) -> None:
    _runs(session)
    assert f"still run {'d' * SHORT}" in still("retry", "bbbb").err
    about = {"digest": "d" * 64, "kind": "recipe", "form": "blob", "size": 1, "origin": "imported"}
    recipe = ArtifactPublished.model_validate(about)
    session.ledger.append([recipe, PlanRequested(plan="d" * 64)])
    assert "not asked for" not in still("retry", "cccc").err


def test_retry_with_nothing_failed_says_so_and_records_nothing(
    still: Still, session: Session
) -> None:
    answer = still("retry")
    assert (answer.code, answer.out) == (0, "")
    assert _types(session) == []


def test_a_waiver_records_author_reason_and_end(
    still: Still, session: Session, policy: Path
) -> None:
    subject = still("publish", policy, "--kind", "policy").out.strip()
    answer = still(
        "waive", "export.parity", subject[:8], "--reason", "known", "--until", "2999-01-31"
    )
    assert answer.code == 0
    (event,) = [e for e in session.ledger.read() if e.type == GateWaived.TYPE]
    assert event.data["subject"] == subject
    assert event.data["reason"] == "known"
    assert event.data["author"] == event.actor.user
    assert event.data["until"] == "2999-01-31T23:59:59.999999Z"
    assert "never judged" in answer.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("export.partiy", "r", "2999-01-01"), "export.parity"),
        (("export.parity", " ", "2999-01-01"), "needs a reason"),
        (("export.parity", "r", "2001-01-01"), "not in the future"),
        (("export.parity", "r", "tomorrow"), "not a date"),
        (("export.parity", "r", "2999-01-01T10:00:00"), "no time zone"),
        (("export.parity", "r", "9999-12-31T23:59:59-12:00"), "beyond the year 9999"),
        (("export.parity", "r" * 1001, "2999-01-01"), "1001 characters"),
    ],
)
def test_bad_waivers_are_refused(
    still: Still, session: Session, policy: Path, given: tuple[str, str, str], said: str
) -> None:
    still("publish", policy, "--kind", "policy")
    gate, reason, until = given
    answer = still("waive", gate, "policy@latest", "--reason", reason, "--until", until)
    assert answer.code == 2
    assert said in answer.err
    assert GateWaived.TYPE not in _types(session)
