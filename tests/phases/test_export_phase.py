from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from stillhouse.phases import export
from stillhouse.phases.export.golden import TEXT, golden_tokens
from stillhouse.schemas import canonical
from stillhouse.schemas.errors import PhaseError, StillError
from stillhouse.schemas.recipe import Recipe

from .graph_parts import (
    LENGTH,
    HashingSink,
    export_context,
    export_tiny,
    metrics,
    read_contract,
    tiny_checkpoint,
    tiny_student,
)

GOLDEN = Path(__file__).parent / "golden_contract.json"
VARYING = ("export_digest", "export_sha256", "tools", "shape_validation")
"""What another version of torch may change; the rest is promised forever."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def recipe(
    prefill: tuple[int, ...], primary: int, decode_capacity: int | None = None, **more: Any
) -> Recipe:
    export = {"prefill": prefill, "primary": primary, "decode_capacity": decode_capacity}
    given = {} if "training" in more else {"checkpoint": "c" * 64}
    return Recipe.model_validate(
        {"name": "r", "policy": "p" * 64, "export": export, "given": given} | more
    )


def test_prefill_publishes_graph_contract_and_report(checkpoint: Path, tmp_path: Path) -> None:
    made = export_tiny(checkpoint, "prefill", tmp_path)
    contract = read_contract(tmp_path)
    assert contract.export_digest == made["export"].digest
    assert contract.export_sha256 == made["export"].files[0].sha256
    cache = (2, 2, LENGTH, 8)
    assert [t.shape for t in contract.outputs] == [(1, LENGTH, 64), cache, cache]
    assert set(metrics(made["report"])) == {
        "parity.max_abs",
        "parity.top1_agreement",
        "causality.max_abs_change",
        "archive.max_abs",
    }
    assert made["report"].facts["subject"] == made["export"].digest


def test_decode_publishes_a_state_and_compares_itself_with_prefill(
    checkpoint: Path, tmp_path: Path
) -> None:
    made = export_tiny(checkpoint, "decode", tmp_path)
    contract = read_contract(tmp_path)
    assert [(t.name, t.dtype, t.shape) for t in contract.states] == [
        ("k_cache", "float16", (2, 2, LENGTH, 8)),
        ("v_cache", "float16", (2, 2, LENGTH, 8)),
    ]
    found = metrics(made["report"])
    assert found["prefill_decode.max_abs"] < 1e-4
    assert found["prefill_decode.max_abs"] < found["prefill_decode.fp16_state_max_abs"] < 0.05
    assert len(canonical.encode(made["contract"].facts)) < 8192
    assert made["contract"].facts["states"][0]["name"] == "k_cache"


def test_the_contract_is_the_recorded_one(checkpoint: Path, tmp_path: Path) -> None:
    export_tiny(checkpoint, "decode", tmp_path)
    found = json.loads((tmp_path / "contract.json").read_bytes())
    for name in VARYING:
        assert found.pop(name)
    assert found["golden"].pop("logits_sha256")
    assert found == json.loads(GOLDEN.read_bytes())


@pytest.mark.parametrize("damage", ["nan", "shape", "garbage"])
def test_a_bad_checkpoint_is_refused_before_anything_is_stored(damage: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_checkpoint(tmp_path / "checkpoint")
    file = folder / "model.safetensors"
    weights = load_file(file)
    if damage == "nan":
        weights["model.norm.weight"][0] = torch.nan
    if damage == "shape":
        weights["model.norm.weight"] = torch.ones(5)
    save_file(weights, file)
    if damage == "garbage":
        file.write_bytes(b"\x80\x04not safetensors")
    sink = HashingSink()
    with pytest.raises(StillError):
        export.run(export_context(folder, "prefill", tmp_path / "work", sink))
    assert sink.puts == 0


def test_a_step_that_is_recorded_in_the_checkpoint_reaches_the_contract(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "checkpoint")
    (folder / "training_state.json").write_text('{"step": 44}')
    export_tiny(folder, "prefill", tmp_path / "work")
    assert read_contract(tmp_path / "work").checkpoint_step == 44


def word_tokenizer(file: Path, words: int) -> Path:
    vocabulary = {"[UNK]": 0} | {f"w{i}": i for i in range(1, words)} | {"the": words}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106  # a token of text
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(file))
    return file


def test_golden_tokens_are_a_text_through_the_checkpoints_tokenizer(tmp_path: Path) -> None:
    file = word_tokenizer(tmp_path / "tokenizer.json", 9)
    golden = golden_tokens(file, vocab_size=64, length=400)
    assert golden.text == "built_in"
    assert len(golden.ids) == 400
    assert golden.ids.count(9) >= TEXT.count("the ")


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    file = word_tokenizer(tmp_path / "tokenizer.json", 64)
    with pytest.raises(PhaseError, match="token id 64"):
        golden_tokens(file, vocab_size=64, length=4)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text("{")
    with pytest.raises(PhaseError, match="cannot be read"):
        golden_tokens(file, vocab_size=64, length=4)


def test_without_a_tokenizer_the_tokens_are_synthetic_and_fixed(tmp_path: Path) -> None:
    golden = golden_tokens(tmp_path / "tokenizer.json", vocab_size=64, length=6)
    assert (golden.text, golden.ids) == ("synthetic", (25, 5, 1, 58, 45, 1))


def test_only_the_primary_length_and_decode_are_required() -> None:
    slots = export.slots(recipe(prefill=(64, 128, 256), primary=128, decode_capacity=128))
    assert {s.id: s.optional for s in slots} == {
        "export/prefill-64": True,
        "export/prefill-128": False,
        "export/prefill-256": True,
        "export/decode-128": False,
    }


def test_another_length_leaves_the_other_slots_as_they_are() -> None:
    few = export.slots(recipe(prefill=(64,), primary=64))
    more = export.slots(recipe(prefill=(64, 128), primary=64))
    assert few == more[:1]


def test_a_model_trained_here_comes_before_its_export() -> None:
    assert export.slots(recipe((64,), 64))[0].needs[0].digest == "c" * 64
    trained = recipe(
        (64,),
        64,
        teacher={"model": "t" * 64, "name": "teacher"},
        dataset={
            "sources": [{"format": "jsonl", "questions": "q" * 64}],
            "answers": "given",
            "splits": {"train": 1, "held_out": 1, "evaluation": 1},
        },
        student={"layers": [0]},
        training={"steps": 1},
    )
    assert export.slots(trained)[0].needs[0].slot == "training"


def test_the_catalogs_rows_need_no_heavy_library() -> None:
    code = "import sys, stillhouse.phases.export, stillhouse.phases.conversion; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "stillhouse.phases.conversion" in loaded
    assert not {"torch", "coremltools", "numpy"} & set(loaded)


def test_a_longer_sequence_than_trained_for_is_warned_of(tmp_path: Path) -> None:
    from dataclasses import replace

    from stillhouse.phases.models import save_checkpoint

    student = tiny_student()
    student.config = replace(student.config, max_position_embeddings=8)
    save_checkpoint(student, tmp_path / "checkpoint")
    export_tiny(tmp_path / "checkpoint", "prefill", tmp_path / "work")
    assert "Positions from 8 on" in read_contract(tmp_path / "work").warnings[0]
