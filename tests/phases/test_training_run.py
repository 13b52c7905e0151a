from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillhouse.phases import training
from stillhouse.phases.data.records import read_cache, write_cache
from stillhouse.phases.models import load_checkpoint
from stillhouse.schemas.artifact import Product
from stillhouse.schemas.errors import InputError, PhaseError
from stillhouse.schemas.recipe import Recipe

from .training_parts import EOS, SIZES, TAUGHT_EOS, V, a_context, write_inputs

torch.set_num_threads(1)


class KilledError(Exception):
    """Stands for a kill between two steps."""


def killer(at: int) -> Any:
    def progress(_label: str, done: int, _total: int, **_figures: float) -> None:
        if done == at:
            raise KilledError

    return progress


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def finished(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a run that nothing disturbed."""
    home = tmp_path_factory.mktemp("finished")
    training.run(a_context(inputs, home))
    return home


def digests(products: tuple[Product, ...]) -> dict[str, str]:
    return {product.role: str(product.digest) for product in products}


def report_of(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "work" / "report.json").read_bytes())
    return found


def metrics_of(home: Path) -> dict[str, Any]:
    return {m["name"]: m for m in report_of(home)["metrics"]}


def test_the_catalog_row_needs_no_heavy_library() -> None:
    code = (
        "import sys, stillhouse.phases.training; assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_recipe_that_trains_asks_for_one_slot() -> None:
    sections: dict[str, Any] = {
        "name": "a",
        "policy": "0" * 64,
        "teacher": {"model": "1" * 64, "name": "t"},
        "dataset": {
            "sources": [{"format": "jsonl", "questions": "2" * 64}],
            "answers": "given",
            "splits": {"train": 1, "held_out": 1, "evaluation": 1},
        },
        "student": {"layers": [0, 2]},
        "training": {"steps": 3},
    }
    (slot,) = training.SPEC.slots(Recipe.model_validate(sections))
    assert slot.id == "training"
    assert slot.params["student"] == {"layers": [0, 2]}
    assert slot.params["training"]["steps"] == 3
    assert [(n.role, n.slot, n.output) for n in slot.needs] == [
        (role, "dataset", role) for role in ("dataset", "teacher_cache", "teacher_model")
    ]
    del sections["training"]
    assert training.SPEC.slots(Recipe.model_validate(sections)) == ()


def test_two_runs_make_the_same_bytes(
    inputs: dict[str, Path], finished: Path, tmp_path: Path
) -> None:
    again = training.run(a_context(inputs, tmp_path))
    assert digests(again) == digests(training.run(a_context(inputs, finished)))
    assert {made.role for made in training.SPEC.makes} == set(digests(again))


@pytest.mark.parametrize("at", [1, 2, 3, 5, 6, 7])
def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(
    inputs: dict[str, Path], finished: Path, tmp_path: Path, at: int
) -> None:
    with pytest.raises(KilledError):
        training.run(a_context(inputs, tmp_path, progress=killer(at)))
    steps: list[int] = []
    resumed = training.run(
        a_context(inputs, tmp_path, progress=lambda _label, done, _total, **_: steps.append(done))
    )
    assert steps[0] == (at - 1) // 2 * 2 + 1  # at most checkpoint_every steps are done again
    assert digests(resumed) == digests(training.run(a_context(inputs, finished)))


def test_a_resume_point_half_written_by_a_kill_is_not_used(
    inputs: dict[str, Path], finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        training.run(a_context(inputs, tmp_path, progress=killer(5)))
    torn = tmp_path / "work" / "step-00000006.partial"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    resumed = training.run(a_context(inputs, tmp_path))
    assert not torn.exists()
    assert digests(resumed) == digests(training.run(a_context(inputs, finished)))


def test_the_checkpoint_is_a_whole_model_folder_and_can_be_trained_on(finished: Path) -> None:
    (folder,) = (finished / "work").glob("step-*")
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "training_state.json",
        "training_state.safetensors",
    }
    student, config = load_checkpoint(folder)
    assert config.num_hidden_layers == 2
    assert (
        sum(p.numel() for p in student.parameters()) == report_of(finished)["details"]["parameters"]
    )


def test_the_baseline_is_the_teachers_chosen_layers_untouched(
    inputs: dict[str, Path], finished: Path
) -> None:
    baseline = load_checkpoint(finished / "work" / "untrained")[0].state_dict()
    teacher = load_checkpoint(inputs["teacher_model"])[0].state_dict()
    assert torch.equal(
        baseline["model.layers.1.mlp.up_proj.weight"], teacher["model.layers.2.mlp.up_proj.weight"]
    )


def test_the_report_holds_every_metric_of_the_design(finished: Path) -> None:
    metrics = metrics_of(finished)
    assert set(metrics) == {
        "steps",
        "nonfinite_steps",
        "checkpoint.nonfinite",
        "train.loss_first",
        "train.loss_last",
        "held_out.kl",
        "held_out.untrained_kl",
        "held_out.top1_agreement",
        "held_out.perplexity",
    }
    assert metrics["steps"]["value"] == 7
    assert metrics["checkpoint.nonfinite"]["value"] == 0
    assert metrics["train.loss_last"]["value"] < metrics["train.loss_first"]["value"]
    for name in ("held_out.kl", "held_out.top1_agreement", "held_out.perplexity"):
        assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"]


def test_the_curves_have_the_points_that_were_asked_for(finished: Path) -> None:
    details = report_of(finished)["details"]
    assert [p["step"] for p in details["curve"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [p["step"] for p in details["held_out"]] == [0, 3, 6, 7]


def test_held_out_figures_are_those_of_the_saved_weights(
    inputs: dict[str, Path], finished: Path
) -> None:
    from stillhouse.phases.numerics import distances as numerics
    from stillhouse.phases.training.examples import collate, read_examples

    examples = read_examples(inputs["dataset"], inputs["teacher_cache"], "held_out", vocab_size=V)
    for folder, name in (("step-00000007", "held_out.kl"), ("untrained", "held_out.untrained_kl")):
        student, _ = load_checkpoint(finished / "work" / folder)
        batch = collate(examples)
        with torch.no_grad():
            logits = student(batch.input_ids)[batch.rows, batch.columns]
            kl = numerics.kl_topk_tail(logits, batch.top_ids, batch.top_logprobs, batch.tail)
        assert metrics_of(finished)[name]["value"] == pytest.approx(kl.mean().item(), rel=1e-5)


def test_training_brings_held_out_text_closer_to_the_teacher(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    context = a_context(inputs, tmp_path, steps=60, checkpoint_every=60, learning_rate=1e-3)
    training.run(context)
    metrics = metrics_of(tmp_path)
    assert metrics["held_out.kl"]["value"] < 0.9 * metrics["held_out.untrained_kl"]["value"]


def shaped(context: Any) -> Any:
    """The same context with a fresh student in place of the teacher's layers."""
    params = {"student": SIZES, "training": context.params["training"]}
    return type(context)(**{**vars(context), "params": params})


def test_a_fresh_student_that_was_killed_before_its_first_resume_point_ends_the_same(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    undisturbed = training.run(shaped(a_context(inputs, tmp_path / "a", steps=2)))
    with pytest.raises(KilledError):
        training.run(shaped(a_context(inputs, tmp_path / "b", steps=2, progress=killer(1))))
    resumed = training.run(shaped(a_context(inputs, tmp_path / "b", steps=2)))
    assert digests(resumed) == digests(undisturbed)


def test_what_ended_answers_in_training_is_an_end_in_the_checkpoint(finished: Path) -> None:
    (folder,) = (finished / "work").glob("step-*")
    assert set(load_checkpoint(folder)[1].eos_token_ids) == {EOS, TAUGHT_EOS}


def test_the_shape_of_a_fresh_student_is_obeyed(inputs: dict[str, Path], tmp_path: Path) -> None:
    context = a_context(inputs, tmp_path, steps=1)
    shape = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    params = {"student": shape, "training": context.params["training"]}
    training.run(type(context)(**{**vars(context), "params": params}))
    _, config = load_checkpoint(tmp_path / "work" / "step-00000001")
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (16, 1, V)


def test_a_layer_that_the_teacher_lacks_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no layer 3"):
        training.run(a_context(inputs, tmp_path, layers=(0, 3)))
    assert list((tmp_path / "work").iterdir()) == []


def test_a_diverging_run_fails_with_its_step_and_publishes_nothing(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(PhaseError, match=r"at step|after") as caught:
        training.run(a_context(inputs, tmp_path, learning_rate=1e30, warmup_steps=0))
    assert caught.value.code == "training.nonfinite"
    assert not list((tmp_path / "objects").glob("??/*"))


def test_progress_is_told_after_every_step(inputs: dict[str, Path], tmp_path: Path) -> None:
    told: list[tuple[str, int, int, set[str]]] = []
    context = a_context(
        inputs,
        tmp_path,
        steps=2,
        progress=lambda label, done, total, **figures: told.append(
            (label, done, total, set(figures))
        ),
    )
    training.run(context)
    figures = {"loss", "tokens_per_second"}
    assert told == [("training step", 1, 2, figures), ("training step", 2, 2, figures)]


def test_other_teacher_opinions_make_another_checkpoint(
    inputs: dict[str, Path], finished: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for path in inputs["teacher_cache"].iterdir():
        (cache / path.name).write_bytes(path.read_bytes())
    rows = read_cache(cache, "train")
    for row in rows.values():
        np.negative(row.top_logprobs, out=row.top_logprobs)
        row.top_logprobs[:] = -row.top_logprobs[:, ::-1]
    write_cache(cache, "train", rows, vocab_size=V)
    made = digests(training.run(a_context(inputs | {"teacher_cache": cache}, tmp_path)))
    undisturbed = digests(training.run(a_context(inputs, finished)))
    assert made["untrained"] == undisturbed["untrained"]
    assert made["checkpoint"] != undisturbed["checkpoint"]
