from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.phases.data.records import CacheHeader, write_cache, write_cache_header, write_split
from stillhouse.phases.training.examples import collate, order, read_examples
from stillhouse.schemas.errors import PhaseError

from .training_parts import EOS, K, V, a_record, a_student, an_example, scored, write_inputs

torch.set_num_threads(1)


def test_every_answer_token_is_predicted_from_the_position_before_it() -> None:
    teacher = a_student(seed=11)
    examples = [an_example(teacher, seed) for seed in range(4)]
    batch = collate(examples)
    assert batch.positions == sum(e.cached.n for e in examples)
    place = 0
    for row, example in enumerate(examples):
        for i in range(example.cached.n):
            assert batch.rows[place] == row
            assert batch.columns[place] == example.answer_start - 1 + i
            assert batch.gold_ids[place] == example.token_ids[example.answer_start + i]
            assert batch.top_ids[place].tolist() == example.cached.top_ids[i].tolist()
            place += 1
        assert batch.gold_ids[place - 1] == EOS


def test_the_teacher_itself_reaches_zero_kl_at_these_offsets() -> None:
    from stillhouse.phases.numerics.distances import distillation_sums
    from stillhouse.phases.training.step import answer_logits

    teacher = a_student(seed=11)
    batch = collate([an_example(teacher, seed) for seed in range(6)])
    with torch.no_grad():
        sums = distillation_sums(
            answer_logits(teacher, batch, bf16=False),
            batch.gold_ids,
            batch.top_ids,
            batch.top_logprobs,
            batch.tail,
        )
    assert sums.kl.item() / batch.positions < 1e-5  # what fp16 leaves


def test_padding_changes_no_prediction() -> None:
    from stillhouse.phases.training.step import answer_logits

    student, teacher = a_student(), a_student(seed=11)
    examples = [an_example(teacher, seed) for seed in range(5)]
    with torch.no_grad():
        together = answer_logits(student, collate(examples), bf16=False)
        alone = [answer_logits(student, collate([e]), bf16=False) for e in examples]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


@given(
    lengths=st.lists(st.integers(1, 200), min_size=1, max_size=60),
    steps=st.integers(1, 40),
    per_step=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_the_order_is_seeded_complete_and_even(
    lengths: list[int], steps: int, per_step: int, seed: int
) -> None:
    planned = order(lengths, steps=steps, per_step=per_step, seed=seed)
    assert planned == order(lengths, steps=steps, per_step=per_step, seed=seed)
    assert [len(chosen) for chosen in planned] == [per_step] * steps
    seen = Counter(index for chosen in planned for index in chosen)
    counts = [seen[index] for index in range(len(lengths))]
    assert max(counts) - min(counts) <= 1


def test_another_seed_is_another_order() -> None:
    lengths = list(range(40))
    assert order(lengths, steps=5, per_step=8, seed=0) != order(
        lengths, steps=5, per_step=8, seed=1
    )


def test_bucketing_pads_less_than_half_of_what_chance_pads() -> None:
    random = torch.Generator().manual_seed(0)
    lengths = torch.randint(60, 160, (352,), generator=random).tolist()

    def padding(groups: list[list[int]]) -> int:
        return sum(max(lengths[i] for i in g) - lengths[j] for g in groups for j in g)

    by_chance = [list(range(i, i + 8)) for i in range(0, 352, 8)]
    assert padding(order(lengths, steps=44, per_step=8, seed=0)) < padding(by_chance) / 2


def test_examples_are_read_in_file_order_with_their_rows(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    found = read_examples(inputs["dataset"], inputs["teacher_cache"], "held_out", vocab_size=V)
    assert [e.token_ids for e in found] == [a_record(seed).token_ids for seed in range(100, 104)]
    assert all(e.cached.n == len(e.token_ids) - e.answer_start for e in found)


def test_a_cache_over_another_vocabulary_is_refused(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    with pytest.raises(PhaseError, match="64 tokens, the student over 65"):
        read_examples(inputs["dataset"], inputs["teacher_cache"], "train", vocab_size=65)


def test_a_record_without_cached_row_is_refused(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    write_split(inputs["dataset"], "train", [a_record(77)])
    with pytest.raises(PhaseError, match="lacks the record"):
        read_examples(inputs["dataset"], inputs["teacher_cache"], "train", vocab_size=V)


def test_a_row_of_another_length_than_the_answer_is_refused(tmp_path: Path) -> None:
    record, longer = a_record(1), a_record(2)
    assert record.answer_length != longer.answer_length
    rows = {str(record.id): scored(a_student(), longer)}
    write_split(tmp_path, "train", [record])
    write_cache(tmp_path, "train", rows, vocab_size=V)
    header = CacheHeader(key="0" * 64, k=K, vocab_size=V, teacher="1" * 64)
    write_cache_header(tmp_path, header)
    with pytest.raises(PhaseError, match="positions for the record"):
        read_examples(tmp_path, tmp_path, "train", vocab_size=V)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    write_split(inputs["dataset"], "held_out", [])
    with pytest.raises(PhaseError, match="held_out is empty"):
        read_examples(inputs["dataset"], inputs["teacher_cache"], "held_out", vocab_size=V)
