"""What a phase hands to the rest: products, with facts in the form of their kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillhouse.phases.contract import Context
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.facts import ExportFacts, ReportFacts, facts_of
from stillhouse.schemas.report import Report, metric

from .release_parts import Sink

SUBJECT = "5" * 64


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(
        slot="tested",
        params={},
        inputs={},
        scratch=tmp_path,
        sink=Sink(tmp_path / "store"),
        progress=lambda *_, **__: None,
    )


def test_a_report_tells_all_but_its_details(context: Context) -> None:
    report = Report(
        phase="training",
        subject=SUBJECT,
        metrics=(metric("loss", 0.5), metric("kl", float("nan"))),
        not_run=("device_predict",),
        details={"curve": [1, 2]},
    )
    product = context.report(report)
    assert product.facts == {
        "phase": "training",
        "subject": SUBJECT,
        "metrics": [
            {"name": "loss", "value": 0.5, "unit": ""},
            {"name": "kl", "unit": "", "nonfinite": "nan"},
        ],
        "not_run": ["device_predict"],
    }
    assert facts_of(product, ReportFacts).metrics == report.metrics


@pytest.mark.parametrize("facts", [None, {}, ExportFacts(mode="decode", length=8)])
def test_facts_of_another_form_are_never_recorded(
    context: Context, facts: ExportFacts | None
) -> None:
    """They would be malformed for ever, and stop every later look at them."""
    made = context.scratch / "made"
    made.write_bytes(b"{}")
    with pytest.raises(TypeError, match="the facts of a report are ReportFacts"):
        context.file("report", Kind.REPORT, made, facts=facts)


def test_a_kind_without_a_form_carries_what_its_phase_likes(context: Context) -> None:
    made = context.scratch / "made"
    made.write_bytes(b"{}")
    assert context.file("rows", Kind.DATASET, made, facts={"rows": 1}).facts == {"rows": 1}
    assert context.file("rows", Kind.DATASET, made).facts == {}
