from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from stillhouse.phases.models import (
    KeyValues,
    Session,
    Student,
    StudentConfig,
    from_shape,
    generate,
)

CONFIG = StudentConfig(
    vocab_size=97,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    rope_theta=100000.0,
    rms_norm_eps=1e-5,
    tie_word_embeddings=True,
    initializer_range=0.3,
)
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def student_of(config: StudentConfig = CONFIG, seed: int = 0) -> Student:
    sizes = {name: getattr(config, name) for name in SIZES}
    return from_shape(config, sizes, seed=seed)


def tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 97, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_logits_equal_those_of_transformers(tied: bool, groups: int) -> None:
    config = replace(CONFIG, tie_word_embeddings=tied, num_key_value_heads=groups)
    student = student_of(config)
    reference = LlamaForCausalLM(LlamaConfig.from_dict(config.to_json())).eval()
    missing = reference.load_state_dict(student.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert missing.missing_keys in ([], ["lm_head.weight"])
    reference.tie_weights()
    ids = tokens(3, 17)
    with torch.no_grad():
        ours, theirs = student(ids), reference(ids).logits
    assert (ours - theirs).abs().max() <= 1e-5


def test_padding_on_the_right_changes_no_real_position() -> None:
    student = student_of()
    short, long = tokens(1, 5), tokens(1, 9, seed=2)
    padded = torch.zeros(2, 9, dtype=torch.long)
    padded[0, :5], padded[1] = short, long
    with torch.no_grad():
        batch = student(padded)
        assert torch.allclose(batch[0, :5], student(short)[0], atol=1e-5)
        assert torch.allclose(batch[1], student(long)[0], atol=1e-5)


def test_a_later_token_changes_nothing_before_it() -> None:
    student = student_of()
    ids = tokens(1, 12)
    other = ids.clone()
    other[0, 7] = (other[0, 7] + 1) % 97
    with torch.no_grad():
        before, after = student(ids), student(other)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7], after[:, 7])


def test_the_head_may_be_applied_at_chosen_positions_only() -> None:
    student = student_of()
    ids = tokens(2, 6)
    with torch.no_grad():
        chosen = student.logits(student.hidden(ids)[:, 3])
        assert torch.allclose(chosen, student(ids)[:, 3], atol=1e-6)


def test_explicit_positions_are_what_rope_turns_by() -> None:
    student = student_of()
    ids = tokens(2, 6)
    with torch.no_grad():
        counted = student(ids)
        same = student(ids, positions=torch.arange(6))
        each = student(ids, positions=torch.arange(6).expand(2, 6))
        stretched = student(ids, positions=torch.arange(6) * 3)
    assert torch.equal(counted, same)
    assert torch.equal(counted, each)
    assert not torch.allclose(counted, stretched, atol=1e-3)


def test_reading_in_pieces_with_a_cache_equals_reading_at_once() -> None:
    student = student_of()
    ids = tokens(2, 11)
    past = KeyValues(student.config, batch=2, capacity=11, dtype=torch.float32)
    with torch.no_grad():
        whole = student(ids)
        pieces = [student(ids[:, a:b], past=past) for a, b in ((0, 4), (4, 9), (9, 10), (10, 11))]
    assert past.length == 11
    assert torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-5)


def test_a_rewound_session_reads_as_if_the_suffix_never_was() -> None:
    student = student_of()
    prefix, wrong, right = [3, 1, 4], [1, 5], [9, 2]
    session = Session(student, capacity=8)
    session.feed(prefix)
    session.feed(wrong)
    session.rewind(3)
    after = session.feed(right)
    with torch.no_grad():
        fresh = student(torch.tensor([prefix + right]))[0, -1]
    assert torch.allclose(after, fresh, atol=1e-5)


def test_a_session_refuses_more_than_it_can_hold_and_to_rewind_forward() -> None:
    session = Session(student_of(), capacity=3)
    session.feed([1, 2])
    with pytest.raises(ValueError, match="capacity"):
        session.feed([3, 4])
    with pytest.raises(ValueError, match="rewind"):
        session.rewind(3)


def test_generation_is_greedy_and_equals_full_recomputation() -> None:
    student = student_of()
    prompt = [5, 6, 7]
    text = list(prompt)
    with torch.no_grad():
        for _ in range(6):
            text.append(int(student(torch.tensor([text]))[0, -1].argmax()))
    assert generate(student, prompt, 6, eos_ids=()) == text[3:]


def test_generation_ends_with_the_first_eos() -> None:
    student = student_of()
    free = generate(student, [5, 6, 7], 6, eos_ids=())
    stop = free[2]
    assert generate(student, [5, 6, 7], 6, eos_ids={stop}) == free[: free.index(stop) + 1]


def test_a_student_runs_in_bfloat16_and_in_double() -> None:
    ids = tokens(1, 6)
    with torch.no_grad():
        exact = student_of().double()(ids)
        rough = student_of().bfloat16()(ids)
        single = student_of()(ids)
    assert exact.dtype == torch.float64
    assert rough.dtype == torch.bfloat16
    assert torch.allclose(single.double(), exact, atol=1e-4)
    assert torch.allclose(rough.double(), exact, atol=0.5)
