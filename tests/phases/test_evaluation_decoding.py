from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillhouse.phases.data.calls import accepts, read_slot
from stillhouse.phases.evaluation.decoding import (
    SlotTask,
    Written,
    broken_json,
    decode_freely,
    decode_slot,
    slot_tasks,
)
from stillhouse.phases.evaluation.reading import Reading
from stillhouse.phases.numerics import threads
from stillhouse.phases.teachers import ChatTokenizer

from .evaluation_parts import EOS, a_record, a_student, a_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return a_tokenizer(tmp_path_factory.mktemp("tokenizer"))


class Parrot:
    """A model that says one text, whatever it read, and then ends or repeats itself."""

    def __init__(self, tokenizer: ChatTokenizer, text: str, *, ends: bool = True) -> None:
        self.says = [*tokenizer.encode(text), *([EOS] if ends else [])]
        self.asked = 0

    def after(self, prefix_ids: Sequence[int]) -> Parrot:
        self.start = len(prefix_ids)
        return self

    def predicted_after(self, token_ids: Sequence[int], /) -> int:
        self.asked += 1
        return self.says[(len(token_ids) - self.start) % len(self.says)]


def the_task(
    tokenizer: ChatTokenizer,
    value: Any,
    acceptable: Sequence[Any] | None = None,
) -> SlotTask:
    known = None if acceptable is None else {"x": acceptable}
    (task,) = slot_tasks(a_record(tokenizer, {"x": value}, known), tokenizer)
    return task


def said(tokenizer: ChatTokenizer, task: SlotTask, text: str, *, ends: bool = True) -> Written:
    return decode_slot(Parrot(tokenizer, text, ends=ends).after(task.prefix_ids), task, tokenizer)


# --- slots ------------------------------------------------------------------------------------


def test_each_argument_is_a_slot_behind_the_right_values_of_those_before(
    tokenizer: ChatTokenizer,
) -> None:
    tasks = slot_tasks(a_record(tokenizer, {"a": "one", "b": 2}), tokenizer)
    assert [tokenizer.decode(t.prefix_ids) for t in tasks] == [
        'do it\n{"name":"act","arguments":{"a":"',
        'do it\n{"name":"act","arguments":{"a":"one","b":',
    ]
    assert [t.right for t in tasks] == [("one",), (2,)]


def test_an_answer_that_is_no_call_has_no_slots(tokenizer: ChatTokenizer) -> None:
    assert slot_tasks(a_record(tokenizer, {}), tokenizer) == ()


@pytest.mark.parametrize(
    ("value", "acceptable", "text", "good"),
    [
        ("Oslo", None, 'Oslo"}}', True),
        ("Oslo", None, 'oslo"', True),
        ("Oslo", ["Oslo", "Oslo, Norway"], 'Oslo, Norway"}', True),
        ("Oslo", None, 'Osl"', False),
        ("Oslo", None, 'Oslo, Norway"', False),
        ("Oslo", None, "Oslo", False),  # never closed
        ("a\nb", None, 'a\\nb"', True),
        (5, None, "5}", True),
        (5, None, "5", True),  # the end completes it
        (5, None, "5.0,", True),
        (5, None, "50}", False),
        (5, None, '"5"', False),
        (5, [5, "5"], '"5"', True),
        (True, None, "true}", True),
        (True, None, "1}", False),
        (None, [None], "null}", True),
        ([1, 2], None, "[1, 2]", True),
        ([1, 2], None, "[1]", False),
        ({"k": "v"}, None, '{"k":"v"}', True),
        (-1.5, None, "-1.5}", True),
        (1500, None, "1.5e3}", True),
        (1500, None, "1.5E+3}", True),
        (1, None, "1.5}", False),
    ],
)
def test_a_slot_is_right_when_its_value_is_an_acceptable_one(
    tokenizer: ChatTokenizer, value: Any, acceptable: list[Any] | None, text: str, good: bool
) -> None:
    assert said(tokenizer, the_task(tokenizer, value, acceptable), text).good is good


def test_decoding_stops_at_the_first_token_that_cannot_be_right(tokenizer: ChatTokenizer) -> None:
    for value, text in (("Oslo", "I think that"), (5, "a number"), ([1], '"no list"')):
        task = the_task(tokenizer, value)
        parrot = Parrot(tokenizer, text).after(task.prefix_ids)
        assert not decode_slot(parrot, task, tokenizer).good
        assert parrot.asked == 1


def test_decoding_ends_when_the_budget_is_spent(tokenizer: ChatTokenizer) -> None:
    task = the_task(tokenizer, [1])
    written = said(tokenizer, task, "[1,1,", ends=False)
    assert not written.good
    assert len(written.text) == task.budget


VALUES = st.recursive(
    st.one_of(
        st.text(max_size=6),
        st.integers(-99, 99),
        st.floats(-9, 9, allow_nan=False),
        st.booleans(),
        st.none(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=200)
@given(
    value=VALUES, other=VALUES, tail=st.sampled_from(["", "}", ',"', "x", '"}}']), data=st.data()
)
def test_stopping_early_changes_no_outcome(
    tokenizer: ChatTokenizer, value: Any, other: Any, tail: str, data: st.DataObject
) -> None:
    right = data.draw(st.sampled_from([[value], [value, other]]))
    shown = data.draw(st.sampled_from([value, other]))
    text = json.dumps(shown, ensure_ascii=data.draw(st.booleans())) + tail
    task = the_task(tokenizer, value, right)
    if task.slot.is_text and text.startswith('"'):
        text = text[1:]
    # The reference reads everything that fits the budget, and looks only then.
    ids = tokenizer.encode(text)
    readable = [tokenizer.decode(ids[:n]) for n in range(1, min(len(ids), task.budget) + 1)]
    if len(ids) < task.budget:
        readable.append(text + "\n")
    filled = next((f for t in readable if (f := read_slot(task.slot, t))), None)
    expected = filled is not None and accepts(right, filled.value)
    assert said(tokenizer, task, text).good is expected


# --- free answers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ('{"name":"act","arguments":{}}', True),
        (' {"any": ["object"]}\n', True),
        ('{"a":1} and more', False),
        ("[1]", False),
        ("5", False),
        ("Sure! {}", False),
        ('{"a":NaN}', False),
        ('{"a":1', False),
        ("", False),
    ],
)
def test_a_free_answer_is_valid_when_it_is_one_json_object(
    tokenizer: ChatTokenizer, text: str, good: bool
) -> None:
    prompt = tokenizer.encode("do it")
    parrot = Parrot(tokenizer, text).after(prompt)
    assert decode_freely(parrot, prompt, 60, tokenizer).good is good


def test_a_free_answer_that_does_not_end_in_time_is_not_valid(tokenizer: ChatTokenizer) -> None:
    prompt = tokenizer.encode("do it")
    parrot = Parrot(tokenizer, '{"a":1}', ends=True).after(prompt)
    assert not decode_freely(parrot, prompt, 7, tokenizer).good
    assert decode_freely(parrot, prompt, 8, tokenizer).good


def test_prose_costs_one_token(tokenizer: ChatTokenizer) -> None:
    prompt = tokenizer.encode("do it")
    parrot = Parrot(tokenizer, "Well, let me see.").after(prompt)
    decode_freely(parrot, prompt, 60, tokenizer)
    assert parrot.asked == 1


@given(VALUES, st.booleans(), st.data())
def test_no_beginning_of_json_is_called_broken(
    value: Any, ascii_only: bool, data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    end = data.draw(st.integers(0, len(text)))
    assert not broken_json(text[:end])


@pytest.mark.parametrize("text", ['{"a" 1, "bcdef', "[1 2 3 4 5 6 7 8", '{"a": "b" "cdefgh"'])
def test_what_cannot_become_json_is_called_broken(text: str) -> None:
    assert broken_json(text)


# --- reading ----------------------------------------------------------------------------------


@pytest.fixture
def one_thread() -> Iterator[None]:
    with threads.fixed(1, 0):
        yield


@pytest.mark.usefixtures("one_thread")
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_reading_predicts_what_a_fresh_forward_pass_predicts(data: st.DataObject) -> None:
    model = a_student(5)
    tokens = st.integers(0, 256)
    text = data.draw(st.lists(tokens, min_size=3, max_size=12))
    start = data.draw(st.integers(1, len(text) - 1))
    reading = Reading(model, text, start, spare=8)
    with torch.no_grad():
        whole = model(torch.tensor([text[:-1]]))[0, start - 1 :]
    assert torch.allclose(reading.logits, whole, atol=1e-5)
    for _ in range(4):
        kept = data.draw(st.integers(1, len(text)))
        ids = text[:kept] + data.draw(st.lists(tokens, max_size=4))
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[0, -1]
        chosen = reading.predicted_after(ids)
        assert logits[chosen] >= logits.max() - 1e-4


class Counting(torch.nn.Module):
    """Counts the tokens that reach a model."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = 0

    def hook(self, _module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        self.tokens += given[0].numel()


@pytest.mark.usefixtures("one_thread")
def test_a_continuation_that_agrees_with_the_text_is_not_read_again() -> None:
    model, counting = a_student(5), Counting()
    model.model.embed_tokens.register_forward_pre_hook(counting.hook)
    text = [5, 6, 7, 8, 9, EOS]
    reading = Reading(model, text, 2, spare=4)
    assert counting.tokens == 5
    for end in (2, 3, 4, 5):
        reading.predicted_after(text[:end])
    assert counting.tokens == 5
    reading.predicted_after([*text[:4], 99])
    assert counting.tokens == 6
    reading.predicted_after([*text[:4], 99, 98])
    assert counting.tokens == 7


def test_the_fixture_speaks_bytes(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    facts: Mapping[str, Any] = {"é": [1]}
    text = json.dumps(facts, ensure_ascii=False)
    assert len(tokenizer.encode(text)) == len(text.encode())
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert a_tokenizer(tmp_path).digest == tokenizer.digest
