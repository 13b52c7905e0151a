"""A local teacher scores and answers as its model says, each example alone."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stillhouse.phases.numerics import threads
from stillhouse.phases.teachers import ChatTokenizer, LocalTeacher, Passage, Prompt, Sampling
from stillhouse.schemas.errors import PhaseError, StillError, UntrustedFileError

from . import dataset_parts as parts

DIGEST = "a" * 64
PASSAGE = Passage(token_ids=(7, 30, 41, 55, 99, 0), answer_start=3)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threads.fixed(1, 0):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parts.write_teacher(tmp_path_factory.mktemp("teacher") / "model")


@pytest.fixture(scope="module")
def teacher(folder: Path) -> LocalTeacher:
    return LocalTeacher(folder, digest=DIGEST)


def in_fp32(folder: Path, token_ids: tuple[int, ...]) -> torch.Tensor:
    """[T, V] log-probabilities, straight from transformers."""
    from transformers import LlamaForCausalLM

    with torch.inference_mode():
        logits = LlamaForCausalLM.from_pretrained(folder)(torch.tensor([token_ids])).logits
    return torch.as_tensor(logits[0]).log_softmax(-1)


# --- scoring --------------------------------------------------------------------------------------


def test_each_row_predicts_the_token_after_it(folder: Path, teacher: LocalTeacher) -> None:
    (row,) = teacher.score([PASSAGE], 5)
    expected = in_fp32(folder, PASSAGE.token_ids)[2:5].topk(5)
    assert row.n == 3
    assert row.top_ids.shape == row.top_logprobs.shape == (3, 5)
    np.testing.assert_allclose(row.top_logprobs, expected.values, atol=0.2)
    np.testing.assert_array_equal(row.top_ids[:, 0], expected.indices[:, 0])


def test_top_and_tail_are_the_whole_distribution(teacher: LocalTeacher) -> None:
    (row,) = teacher.score([PASSAGE], 5)
    mass = np.exp(row.top_logprobs).sum(-1) + np.exp(row.tail)
    np.testing.assert_allclose(mass, 1, atol=1e-5)
    assert (np.diff(row.top_logprobs, axis=-1) <= 0).all()


def test_a_row_depends_on_its_passage_alone(teacher: LocalTeacher) -> None:
    other = Passage(token_ids=tuple(range(10, 60)), answer_start=20)
    together = list(teacher.score([other, PASSAGE, other, PASSAGE], 5))
    (alone,) = teacher.score([PASSAGE], 5)
    for row in (together[1], together[3]):
        np.testing.assert_array_equal(row.top_ids, alone.top_ids)
        np.testing.assert_array_equal(row.top_logprobs, alone.top_logprobs)
        np.testing.assert_array_equal(row.tail, alone.tail)


def test_passages_are_scored_only_when_asked_for(teacher: LocalTeacher) -> None:
    def passages() -> Iterator[Passage]:
        yield PASSAGE
        raise AssertionError("asked too early")

    assert next(teacher.score(passages(), 5)).n == 3


def test_k_must_leave_a_tail(teacher: LocalTeacher) -> None:
    with pytest.raises(PhaseError, match="top_k"):
        list(teacher.score([PASSAGE], teacher.vocab_size))


def test_a_teacher_that_gives_nan_is_refused(tmp_path: Path) -> None:
    broken = parts.write_teacher(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PhaseError, match="not finite"):
        list(LocalTeacher(broken, digest=DIGEST).score([PASSAGE], 5))


def test_identity_names_the_model_and_the_precision(teacher: LocalTeacher) -> None:
    digest, precision = teacher.identity.split()
    assert digest == DIGEST
    assert precision in ("bfloat16", "float32")


# --- answering ------------------------------------------------------------------------------------


def greedy(teacher: LocalTeacher, prompt: tuple[int, ...], n: int) -> tuple[int, ...]:
    """The most likely continuation, each token from a fresh pass over everything before it."""
    written: tuple[int, ...] = ()
    for _ in range(n):
        whole = (*prompt, *written, 0)
        (row,) = teacher.score([Passage(token_ids=whole, answer_start=len(whole) - 1)], 1)
        written += (int(row.top_ids[0, 0]),)
    return written


def test_greedy_takes_the_most_likely_token_each_time(teacher: LocalTeacher) -> None:
    prompt = (7, 30, 41)
    expected = greedy(teacher, prompt, 6)
    assert not teacher.tokenizer.eos_ids & set(expected), "choose another prompt"
    (said,) = teacher.generate([Prompt(token_ids=prompt, seed=1)], Sampling(max_new_tokens=6))
    assert said.token_ids == expected
    assert not said.finished


def test_an_answer_ends_at_eos_and_does_not_hold_it(teacher: LocalTeacher) -> None:
    prompt = (7, 30, 41)
    expected = greedy(teacher, prompt, 3)
    tokenizer = teacher.tokenizer
    before = tokenizer.eos_ids
    try:
        tokenizer.eos_ids = frozenset({expected[2]})
        (said,) = teacher.generate([Prompt(token_ids=prompt, seed=1)], Sampling(max_new_tokens=9))
    finally:
        tokenizer.eos_ids = before
    cut = expected.index(expected[2])
    assert said.token_ids == expected[:cut]
    assert said.finished


def test_sampling_repeats_with_its_seed_and_differs_with_another(teacher: LocalTeacher) -> None:
    hot = Sampling(max_new_tokens=8, temperature=2.0)
    prompts = [Prompt(token_ids=(7, 30), seed=seed) for seed in (1, 2, 1)]
    one, other, again = teacher.generate(prompts, hot)
    assert one == again
    assert one != other


def test_a_small_top_p_leaves_only_the_most_likely_token(teacher: LocalTeacher) -> None:
    narrow = Sampling(max_new_tokens=4, temperature=1.0, top_p=1e-6)
    (said,) = teacher.generate([Prompt(token_ids=(7, 30, 41), seed=3)], narrow)
    assert said.token_ids == greedy(teacher, (7, 30, 41), 4)


# --- tokens and chats -----------------------------------------------------------------------------


def test_a_chat_becomes_the_text_before_the_answer(teacher: LocalTeacher) -> None:
    (text,) = teacher.tokenizer.render([[{"role": "user", "content": "Hi"}]])
    assert text == "<|user|>Hi<|end|><|assistant|>"
    ids = teacher.tokenizer.encode(text)
    assert teacher.tokenizer.decode(ids) == text
    assert ids[-1] == parts.MARKS.index("<|assistant|>")


def test_the_tokenizers_own_eos_comes_first(tmp_path: Path) -> None:
    parts.write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [9, 0]}))
    tokenizer = ChatTokenizer.load(tmp_path)
    assert tokenizer.eos_token_id == 0
    assert tokenizer.eos_ids == {0, 9}


def test_a_tokenizer_without_eos_is_refused(tmp_path: Path) -> None:
    parts.write_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(PhaseError, match="EOS"):
        ChatTokenizer.load(tmp_path)


def test_a_teacher_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    parts.write_tokenizer(tmp_path, template=None)
    with pytest.raises(PhaseError, match="no chat template"):
        ChatTokenizer.load(tmp_path).render([[{"role": "user", "content": "Hi"}]])


def test_a_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    parts.write_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(UntrustedFileError, match=r"tokenizer\.json"):
        ChatTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("tokenizer.json", 65 << 20),
        ("tokenizer_config.json", 17 << 20),
        ("chat_template.jinja", 2 << 20),
        ("generation_config.json", 17 << 20),
    ],
)
def test_a_file_larger_than_any_honest_one_is_refused(tmp_path: Path, name: str, size: int) -> None:
    parts.write_tokenizer(tmp_path)
    with (tmp_path / name).open("wb") as file:
        file.truncate(size)
    with pytest.raises(UntrustedFileError, match="larger than"):
        ChatTokenizer.load(tmp_path)


def test_an_endless_chat_template_is_stopped(tmp_path: Path) -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"
    parts.write_tokenizer(tmp_path, template=endless)
    with pytest.raises(UntrustedFileError):
        ChatTokenizer.load(tmp_path).render([[{"role": "user", "content": "Hi"}]])


# --- what is never opened -------------------------------------------------------------------------


def test_a_folder_with_a_pickle_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    bad = parts.write_teacher(tmp_path / "bad")
    (bad / "model.safetensors").unlink()
    (bad / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(UntrustedFileError):
        LocalTeacher(bad, digest=DIGEST)


def test_a_folder_that_asks_to_run_its_code_is_refused(tmp_path: Path) -> None:
    bad = parts.write_teacher(tmp_path / "bad")
    config = json.loads((bad / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (bad / "config.json").write_text(json.dumps(config))
    with pytest.raises(UntrustedFileError):
        LocalTeacher(bad, digest=DIGEST)


def test_a_model_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    odd = parts.write_teacher(tmp_path / "odd")
    config = json.loads((odd / "config.json").read_text()) | {"vocab_size": None}
    (odd / "config.json").write_text(json.dumps(config))
    with pytest.raises(StillError, match="vocab_size"):
        LocalTeacher(odd, digest=DIGEST)


def test_an_architecture_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    odd = parts.write_teacher(tmp_path / "odd")
    config = json.loads((odd / "config.json").read_text())
    config["model_type"] = "no-such-model"
    (odd / "config.json").write_text(json.dumps(config))
    with pytest.raises(StillError):
        list(LocalTeacher(odd, digest=DIGEST).score([PASSAGE], 5))
