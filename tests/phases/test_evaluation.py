from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.phases.data.records import read_split
from stillhouse.phases.evaluation import SPEC, run, slots
from stillhouse.phases.evaluation.decoding import Written
from stillhouse.phases.evaluation.fidelity import distance
from stillhouse.phases.evaluation.figures import Bootstrap, Measured, metrics_of
from stillhouse.phases.evaluation.work import choose, evaluate
from stillhouse.schemas import canonical
from stillhouse.schemas.errors import InputError, PhaseError
from stillhouse.schemas.policy import Check, Gate, Verdict, judge
from stillhouse.schemas.recipe import EvaluationSection, Recipe
from stillhouse.schemas.report import Metric, Report

from .evaluation_parts import (
    SECTION,
    a_bench,
    a_context,
    a_record,
    a_student,
    a_tokenizer,
    with_vocabulary,
    write_dataset,
    write_model,
    write_tokenizer,
)

MEASURED = ("kl", "top1_agreement", "perplexity", "slot_accuracy", "json_validity")


def metrics(report: Report) -> dict[str, Metric]:
    return {m.name: m for m in report.metrics}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("bench")
    return evaluate(a_context(folder / "run", a_bench(folder)))


# --- slots ------------------------------------------------------------------------------------

BASE = {"name": "r", "policy": "0" * 64, "teacher": {"model": "1" * 64, "name": "t"}}


def needs_of(**sections: Any) -> dict[str, str]:
    (slot,) = slots(Recipe.model_validate(BASE | {"evaluation": {}} | sections))
    return {n.role: n.slot or n.digest or "" for n in slot.needs}


def test_what_was_made_here_is_compared() -> None:
    trained = {
        "dataset": {
            "sources": [{"format": "jsonl", "questions": "2" * 64}],
            "answers": "given",
            "splits": {"train": 1, "held_out": 1, "evaluation": 1},
        },
        "student": {"layers": [0]},
        "training": {"steps": 1},
    }
    assert needs_of(**trained) == {
        "teacher": "dataset",
        "dataset": "dataset",
        "checkpoint": "training",
        "untrained": "training",
    }


def test_what_was_given_is_compared_without_an_untrained_model() -> None:
    given = {"checkpoint": "3" * 64, "dataset": "4" * 64}
    assert needs_of(given=given) == {
        "teacher": "1" * 64,
        "dataset": "4" * 64,
        "checkpoint": "3" * 64,
    }


def test_a_recipe_without_an_evaluation_section_evaluates_nothing() -> None:
    assert slots(Recipe.model_validate(BASE)) == ()
    assert [m.role for m in SPEC.makes] == ["report"]


def test_what_reads_a_gguf_teacher_is_in_the_key() -> None:
    assert {"gguf", "accelerate", "safetensors"} <= set(SPEC.tools)


def test_importing_the_phase_loads_no_heavy_library() -> None:
    code = (
        "import sys, stillhouse.phases.evaluation; assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run((sys.executable, "-c", code), cwd=Path(__file__).parents[2], check=True)


# --- the report -------------------------------------------------------------------------------


def test_every_model_is_measured_and_only_students_against_the_teacher(report: Report) -> None:
    expected = {f"{m}.{what}" for m in ("untrained", "trained") for what in MEASURED}
    expected |= {f"teacher.{what}" for what in MEASURED[2:]}
    assert set(metrics(report)) == expected


def test_every_number_has_its_count_and_an_interval_around_it(report: Report) -> None:
    for found in report.metrics:
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high
    counts = {m.name: m.n for m in report.metrics}
    assert counts["trained.kl"] == counts["teacher.perplexity"]
    assert counts["trained.slot_accuracy"] == SECTION["slots"]
    assert counts["trained.json_validity"] == SECTION["free_form"]


def test_slots_of_one_call_do_not_count_as_independent() -> None:
    """Ten calls with nine slots each, all right or all wrong, are ten observations."""
    measured = Measured()
    for example in range(10):
        right = Written(text="", good=example % 2 == 0)
        measured.slots += [(f"e{example}", f"a{slot}", right) for slot in range(9)]
    measured.distances = [("e0", distance(torch.zeros(1, 2), torch.tensor([0]), None))]
    rows = metrics_of("m", measured, Bootstrap(resamples=2000, seed=0))
    (found,) = (m for m in rows if m.name == "m.slot_accuracy")
    assert (found.value, found.n) == (0.5, 90)
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low > 0.5  # over 90 independent slots it would be 0.2


def test_the_answers_of_the_split_are_what_is_counted(tmp_path: Path) -> None:
    paths = a_bench(tmp_path)
    found = metrics(evaluate(a_context(tmp_path / "run", paths)))
    records = read_split(paths["dataset"], "evaluation")
    assert found["trained.kl"].n == sum(r.answer_length for r in records)


def test_a_student_with_the_teachers_weights_is_at_no_distance(tmp_path: Path) -> None:
    paths = a_bench(tmp_path, trained=a_student(1))
    found = metrics(evaluate(a_context(tmp_path / "run", paths)))
    assert found["trained.kl"].value == 0
    assert found["trained.top1_agreement"].value == 1
    assert (found["untrained.kl"].value or 0) > 0.01
    for what in MEASURED[2:]:
        assert found[f"trained.{what}"].value == found[f"teacher.{what}"].value


def test_two_evaluations_give_the_same_bytes(tmp_path: Path, report: Report) -> None:
    again = evaluate(a_context(tmp_path / "run", a_bench(tmp_path)))
    assert canonical.encode(again.to_json()) == canonical.encode(report.to_json())


def test_the_run_publishes_one_report_about_the_checkpoint(tmp_path: Path) -> None:
    context = a_context(tmp_path / "run", a_bench(tmp_path))
    (product,) = run(context)
    assert product.role == "report"
    assert product.facts["subject"] == context.one("checkpoint").digest
    assert not (context.scratch / "teacher_logits").exists()


def test_details_are_for_people_and_name_every_item(report: Report) -> None:
    rows = report.details["trained"]
    assert len(rows["examples"]) == report.details["examples"] == 8
    assert {row["argument"] for row in rows["slots"]} == {"city", "count"}
    assert len(rows["free_form"]) == SECTION["free_form"]


# --- numbers ----------------------------------------------------------------------------------


def test_distances_of_constructed_logits_are_the_ones_by_hand() -> None:
    teacher = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    model = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0]])
    found = distance(model, torch.tensor([0, 1]), teacher)
    uniform_to_skewed = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert found.kl == pytest.approx(uniform_to_skewed / 2, abs=1e-6)
    assert found.nll == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2, abs=1e-6)
    assert found.top1_agreement == 1
    assert distance(model, torch.tensor([0, 1]), None).kl is None


def test_weights_that_are_not_finite_fail_their_gates_and_nothing_else(tmp_path: Path) -> None:
    ruined = a_student(3)
    with torch.no_grad():
        ruined.model.norm.weight.fill_(math.nan)
    report = evaluate(a_context(tmp_path / "run", a_bench(tmp_path, trained=ruined)))
    canonical.encode(report.to_json())
    found = metrics(report)
    for what in ("kl", "perplexity"):
        assert found[f"trained.{what}"].nonfinite == "nan"
        gate = Gate(checks=(Check(metric=f"trained.{what}", op="<=", value=1e9),))
        assert judge(gate, report.metrics)[0] is Verdict.FAIL
    assert found["untrained.kl"].value is not None


# --- what is asked ----------------------------------------------------------------------------


def test_slots_and_prompts_are_counted_off_in_the_splits_order(tmp_path: Path) -> None:
    tokenizer = a_tokenizer(tmp_path)
    records = [a_record(tokenizer, {"a": 1, "b": 2}, question=str(n)) for n in range(3)]
    section = EvaluationSection(slots=3, free_form=1)
    tasks = choose(records, tokenizer, section)
    assert [len(t.slots) for t in tasks] == [2, 1, 0]
    assert [t.free for t in tasks] == [True, False, False]


def test_a_split_without_calls_measures_no_slots_rather_than_zero(tmp_path: Path) -> None:
    paths = a_bench(tmp_path)
    tokenizer = a_tokenizer(tmp_path / "tokenizer")
    plain = a_record(tokenizer, {}).model_copy(update={"tools": ()})
    raw = plain.to_json() | {"id": a_plain_id(plain.to_json())}
    (paths["dataset"] / "evaluation.jsonl").write_bytes(canonical.encode(raw) + b"\n")
    found = metrics(evaluate(a_context(tmp_path / "run", paths)))
    assert "trained.kl" in found
    assert "trained.slot_accuracy" not in found
    assert "trained.json_validity" not in found


def a_plain_id(raw: dict[str, Any]) -> str:
    from stillhouse.phases.data.records import Message, content_id

    messages = [Message.model_validate(m) for m in raw["messages"]]
    return content_id(messages, raw.get("tools", ()), raw["answer"])


# --- refusals ---------------------------------------------------------------------------------


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    paths = a_bench(tmp_path)
    write_dataset(paths["dataset"], [], paths["teacher"])
    with pytest.raises(PhaseError, match="evaluation split is empty"):
        evaluate(a_context(tmp_path / "run", paths))


def test_a_model_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    paths = a_bench(tmp_path)
    write_tokenizer(paths["checkpoint"], extra="<|other|>")
    with pytest.raises(PhaseError, match="trained model has another tokenizer"):
        evaluate(a_context(tmp_path / "run", paths))


def test_a_model_with_another_vocabulary_is_refused(tmp_path: Path) -> None:
    paths = a_bench(tmp_path)
    write_model(paths["checkpoint"], a_student(3, with_vocabulary(300)))
    with pytest.raises(PhaseError, match="teacher 257, untrained 257, trained 300"):
        evaluate(a_context(tmp_path / "run", paths))


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    paths = a_bench(tmp_path)
    (paths["checkpoint"] / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        evaluate(a_context(tmp_path / "run", paths))


def test_code_beside_a_checkpoint_is_refused(tmp_path: Path) -> None:
    paths = a_bench(tmp_path)
    config = json.loads((paths["checkpoint"] / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model"}
    (paths["checkpoint"] / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="auto_map"):
        evaluate(a_context(tmp_path / "run", paths))
