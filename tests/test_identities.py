"""Literals of every pre-image that names something. A change here makes old work run again.

Should one of these fail, the pre-image changed: put it back, or raise the version in its tag
knowing that every registry then does that work anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from stillhouse.phases.data.records import Message, Record, content_id
from stillhouse.phases.dataset.answers import answer_key, example_seed
from stillhouse.phases.dataset.scoring import cache_key, score_key
from stillhouse.phases.dataset.sources import Example, content_key, read_source
from stillhouse.phases.models import StudentConfig, from_shape
from stillhouse.phases.numerics.distances import bootstrap_interval
from stillhouse.phases.reactor.repeat import repeat_key
from stillhouse.phases.teachers import Prompt, Sampling
from stillhouse.phases.training.examples import order
from stillhouse.registry.planning.runkey import run_key
from stillhouse.schemas.artifact import Parent
from stillhouse.schemas.recipe import DatasetSection, Source

A, B = "aa" * 32, "bb" * 32
CHAT = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="  Wie  ist das Wetter in KÖLN?\n"),
)
TOOL = {"name": "weather", "description": "", "parameters": {"type": "object", "properties": {}}}


@dataclass
class Known:
    """Of a teacher, what its answers and scores are named by."""

    identity: str = f"{A} bfloat16"


def _record() -> Record:
    return Record(
        id=content_id(CHAT, (TOOL,), "It rains."),
        messages=CHAT,
        tools=(TOOL,),
        answer="It rains.",
        prompt="…",
        token_ids=(3, 1, 4, 1, 5, 9),
        answer_start=4,
    )


def _run_key(**changes: Any) -> str:
    given: dict[str, Any] = {
        "phase": "export",
        "version": 3,
        "params": {"shape": "prefill-128", "epsilon": 1e-6, "names": ["a", "ö"], "none": None},
        "inputs": (
            Parent(role="checkpoint", digest=A),
            Parent(role="environment", digest=B, circumstance=True),
        ),
        "tools": {"torch": "2.13.0", "numpy": "2.4.0"},
    }
    return run_key(**given | changes)


def test_a_run_key() -> None:
    assert _run_key() == "d69bb9e418e6542665af31e9bff1ecdb8be2ccafd814d18275429d39f56ad960"


def test_an_environment_is_not_in_a_run_key_and_a_version_is() -> None:
    bare = _run_key(inputs=(Parent(role="checkpoint", digest=A),))
    assert bare == _run_key()
    assert _run_key(version=4) == "f9de1bc6f9ded88792418a903cd11d1eca4e797952117925324450387bca166b"


def test_a_repeated_runs_folder() -> None:
    assert repeat_key(A) == "041d45442396958e30f67f01b13afbc9bbbf85e47093ef0a54dbcefe102de4dc"


def test_a_records_id() -> None:
    assert (
        content_id(CHAT, (TOOL,), "It rains.")
        == "9929d65f304210532c9a1f1b69b15fe08f0c46f4c2f4df5295a28688458bee37"
    )
    assert (
        content_id(CHAT[1:], (), "")
        == "3c00a40461942a370f947ed5300f5f24683cad7b276edea8e8e24e4578fb8386"
    )


def test_the_key_by_which_splits_are_kept_apart() -> None:
    same = (Message(role="user", content="wie ist das wetter in köln?"),)
    assert (
        content_key(CHAT)
        == content_key(same)
        == "b30054b57d9138388407f0300f88e4e521986503293dbf69ffa01d6e3f5f316f"
    )


def test_a_score_and_a_cache() -> None:
    key = score_key(Known(), _record(), 32)  # type: ignore[arg-type]  # only its identity counts
    assert key == "e195d1916b2032d6bf02f2edea25d9e8b99824401dafb35b0da9886100787802"
    assert cache_key([key, A]) == "d75172944718fd7e26b28778ec6dab72ace3127dc19a44103758263f97d41782"


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (
            Sampling(max_new_tokens=64),
            "1b23486c394ce232c9d99e05d011871aaff23fbb5c866b6d064bb4876524504c",
        ),
        (
            Sampling(max_new_tokens=64, temperature=0.7, top_p=0.9),
            "e240ce14338e5817ba7ea0bbaf32ec4fcb7ef54d2d668832b9bc3fe7b2a9a7b7",
        ),
    ],
    ids=["greedy", "sampled"],
)
def test_a_generated_answer(sampling: Sampling, expected: str) -> None:
    prompt = Prompt(token_ids=(3, 1, 4, 1), seed=2**59 + 1)
    assert answer_key(Known(), prompt, sampling) == expected  # type: ignore[arg-type]  # as above


SECTION = DatasetSection.model_validate(
    {
        "sources": [{"format": "jsonl", "questions": "0"}],
        "answers": "given",
        "splits": {"train": 1, "held_out": 1, "evaluation": 1},
        "seed": 7,
    }
)


def test_a_line_of_a_source_with_the_text_that_tells_of_its_tools(tmp_path: Path) -> None:
    line = (
        '{"prompt":"Rain?","tools":[{"name":"rain","description":"Whether it rains.","parameters":'
        '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}],'
        '"answer":"{\\"name\\":\\"rain\\",\\"arguments\\":{\\"city\\":\\"Oslo\\"}}"}'
    )
    file = tmp_path / "lines.jsonl"
    file.write_text(line, encoding="utf-8")
    (found,) = read_source(Source(format="jsonl", questions="0"), [file], SECTION)
    assert isinstance(found, Example)
    assert found.key == "c0fb6d8fb5dd414cdb3b2459a909da16decf4473d2fc57bac2e5c8dd88d0abfe"


def test_an_examples_own_seed() -> None:
    example = Example(key=A, messages=CHAT, tools=(), answer=None, acceptable=None)
    assert example_seed(SECTION, example) == 592388590789027954
    assert example_seed(SECTION, replace(example, key=B)) == 691919370817641489


def test_which_examples_each_step_sees() -> None:
    lengths = [7, 3, 9, 1, 5, 8, 2]
    assert order(lengths, steps=4, per_step=3, seed=5) == [
        [3, 6, 6],
        [1, 4, 4],
        [5, 2, 2],
        [0, 0, 5],
    ]


def test_where_a_bootstrap_draws() -> None:
    values, weights = [float(i) for i in range(12)], [float(i) for i in range(1, 13)]
    found = bootstrap_interval(values, weights, resamples=200, seed=11)
    assert found == pytest.approx((5.3649523809523805, 8.749159663865546), rel=1e-12)


def test_a_students_first_weights() -> None:
    shape = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    config = StudentConfig.from_json(shape | {"vocab_size": 4, "tie_word_embeddings": True})
    student = from_shape(config, shape, seed=3)
    drawn_second = student.state_dict()["model.layers.0.self_attn.q_proj.weight"]
    expected = [-0.009520618245005608, -0.005858250893652439, -0.006961786188185215]
    assert drawn_second.flatten()[:3].tolist() == pytest.approx(expected, rel=1e-6)
