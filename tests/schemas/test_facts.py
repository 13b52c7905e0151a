"""The facts of events: every recorded form still parses, and dumps to what it was read from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.events import ArtifactPublished
from stillhouse.schemas.facts import FORMS, MlpackageFacts, ReportFacts, facts_of

GOLDEN = Path(__file__).parents[1] / "golden"
LOGS = ("finished/events.log", "events-v1.log", "events-v2.log")
SUBJECT = "5" * 64


def recorded(log: str) -> list[ArtifactPublished]:
    """Every publication of a ledger that carries facts of a known form."""
    events = [
        json.loads(line.split(b"\t", 1)[1]) for line in (GOLDEN / log).read_bytes().splitlines()
    ]
    found = [
        ArtifactPublished.model_validate(event["data"])
        for event in events
        if event["type"] == ArtifactPublished.TYPE
    ]
    return [fact for fact in found if fact.facts and fact.kind in FORMS]


def published(kind: Kind = Kind.REPORT, **facts: Any) -> ArtifactPublished:
    return ArtifactPublished(
        digest="a" * 64, kind=kind, form="blob", size=1, origin="run", facts=facts
    )


@pytest.mark.parametrize("log", LOGS)
def test_facts_of_every_ledger_are_read_and_dumped_unchanged(log: str) -> None:
    assert recorded(log)
    for fact in recorded(log):
        told = facts_of(fact, FORMS[fact.kind]).as_given()
        assert canonical.encode(told) == canonical.encode(fact.facts), fact.kind


def test_what_a_whole_pipeline_recorded_is_what_would_be_recorded_now() -> None:
    finished = recorded("finished/events.log")
    assert {fact.kind for fact in finished} == set(FORMS)
    for fact in finished:
        told = facts_of(fact, FORMS[fact.kind]).to_json()
        assert canonical.encode(told) == canonical.encode(fact.facts), fact.kind


@pytest.mark.parametrize(
    ("facts", "where"),
    [
        ({"phase": "training", "subject": SUBJECT}, "metrics: Field required"),
        ({"phase": "training", "subject": "5", "metrics": []}, "subject: "),
        ({"phase": "training", "subject": SUBJECT, "metrics": [{"n": 1}]}, "metrics.0.name: "),
        ({"phase": "training", "subject": SUBJECT, "metrics": [], "mood": "good"}, "mood: "),
        ({}, "phase: Field required"),
    ],
)
def test_facts_of_another_form_are_malformed(facts: dict[str, Any], where: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        facts_of(published(**facts), ReportFacts)
    assert caught.value.code == "event.malformed"
    assert f"the report {'a' * 12} " in caught.value.message
    assert where in caught.value.message
    assert "events.log" in caught.value.remedy


def test_a_package_may_lack_what_it_was_made_from() -> None:
    assert facts_of(published(Kind.MLPACKAGE), MlpackageFacts) == MlpackageFacts()


def test_a_probe_keeps_what_no_form_names() -> None:
    bare = {"python": "3.11", "absent": None}
    form = FORMS[Kind.ENVIRONMENT]
    assert facts_of(published(Kind.ENVIRONMENT, **bare), form).as_given() == bare
