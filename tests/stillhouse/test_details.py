"""Everything that is recorded of one artifact or one run."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse.details import ArtifactDetails, RunDetails, details_of
from stillhouse.logs import log_end
from stillhouse.registry.state.runs import RunStatus
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.errors import ReferenceError_
from stillhouse.schemas.events import (
    ArtifactPublished,
    BytesCondemned,
    BytesSwept,
    RunAbandoned,
    RunCancelled,
    RunStarted,
    RunSucceeded,
    TagMoved,
)
from stillhouse.schemas.plain import plain
from stillhouse.session import Session

ONE, TWO, RUN, PLAN = "1" * 64, "2" * 64, "ab" * 32, "cd" * 32
ABOUT: dict[str, Any] = {"run": RUN, "phase": "training", "plan": PLAN, "slot": "training"}
LATER = "2026-12-01T00:00:00.000000Z"


def _published(digest: str, *parents: str) -> ArtifactPublished:
    return ArtifactPublished(
        digest=digest,
        kind=Kind.SOURCE,
        form="blob",
        size=1,
        origin="imported",
        parents=tuple(Parent(role="source", digest=parent) for parent in parents),
    )


def _started(attempt: int = 1) -> RunStarted:
    return RunStarted(**ABOUT, attempt=attempt, phase_version=1, inputs=(), params={}, tools={})


def _artifact(session: Session, reference: str) -> ArtifactDetails:
    found = details_of(session, reference)
    assert isinstance(found, ArtifactDetails)
    return found


def _run(session: Session) -> RunDetails:
    found = details_of(session, RUN[:8])
    assert isinstance(found, RunDetails)
    return found


def test_an_artifact_has_every_publication_and_what_it_shaped(session: Session) -> None:
    facts = [_published(ONE), _published(TWO, ONE), _published(ONE)]
    session.ledger.append([*facts, TagMoved(name="mine", digest=ONE)])
    found = _artifact(session, "mine")
    assert (found.children, found.tags) == ((TWO,), ("mine",))
    told = plain(found)["publications"]
    assert [each["seq"] for each in told] == [1, 3]
    assert told[0] == {"seq": 1, "ts": told[0]["ts"], **facts[0].to_json()}


def test_bytes_that_are_condemned_or_gone_say_since_or_until_when(session: Session) -> None:
    session.ledger.append([_published(ONE)])
    found = _artifact(session, ONE)
    assert (found.bytes, found.absent_since, found.remedy, found.swept_after) == (
        "",
        None,
        "",
        None,
    )
    session.ledger.append([BytesCondemned(artifacts=(ONE,), objects=1, size=1, until=LATER)])
    found = _artifact(session, ONE)
    assert (found.bytes, found.swept_after, found.remedy) == ("condemned", LATER, "")
    (gone,) = session.ledger.append([BytesSwept(artifacts=(ONE,), objects=1, size=1)])
    found = _artifact(session, ONE)
    assert (found.bytes, found.absent_since, found.swept_after) == ("absent", gone.seq, None)
    assert "still repair" in found.remedy


def test_an_artifact_is_meant_before_a_run_whose_key_begins_alike(session: Session) -> None:
    session.ledger.append([_started()])
    assert _run(session).run == RUN
    session.ledger.append([_published(RUN[:8] + "0" * 56)])
    assert _artifact(session, RUN[:8]).digest.startswith(RUN[:8])
    with pytest.raises(ReferenceError_):
        details_of(session, "cd" * 4)


def test_a_run_stands_as_its_state_says(session: Session) -> None:
    session.ledger.append([_started()])
    assert plain(_run(session))["status"] == "running"
    session.ledger.append([RunCancelled(run=RUN, attempt=1)])
    session.ledger.append([RunAbandoned(**ABOUT, attempt=1, reason="Killed.", stopped=True)])
    assert _run(session).status is RunStatus.CANCELLED


def test_the_log_of_a_live_attempt_is_read_from_its_folder(session: Session) -> None:
    session.ledger.append([_started()])
    assert log_end(session, RUN, 2) == []
    folder = session.home.run(RUN)
    folder.mkdir(parents=True)
    (folder / "log.1").write_bytes(b"one\ntwo\nhalf \xff")
    assert log_end(session, RUN, 2) == ["two", "half \ufffd"]


def test_the_log_of_an_attempt_that_ended_is_read_from_the_store(session: Session) -> None:
    log = session.store.put_bytes(b"one\ntwo\n").digest
    session.ledger.append(
        [_started(), RunSucceeded(**ABOUT, attempt=1, outputs=(), seconds=1, log=log)]
    )
    assert log_end(session, RUN, 1) == ["two"]
