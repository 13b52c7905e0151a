"""Whose answer is whose, and which answers cannot be used."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stillhouse.phases.data.journal import Journal
from stillhouse.phases.data.records import CacheRow
from stillhouse.phases.dataset.answers import Answered, Terms, ask, generate
from stillhouse.phases.dataset.sources import Example, read_source
from stillhouse.phases.teachers import ChatTokenizer, Generated, Passage, Prompt, Sampling
from stillhouse.schemas.errors import UntrustedFileError
from stillhouse.schemas.recipe import DatasetSection

from . import dataset_parts as parts


class Reciting:
    """A teacher that answers what stands in its book, and marks what the book has not."""

    identity = "reciting"

    def __init__(self, folder: Path, book: dict[str, str] | None = None) -> None:
        self.tokenizer = ChatTokenizer.load(folder)
        self.vocab_size = 320
        self._book = book or {}

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Generated]:
        del sampling
        for prompt in prompts:
            asked = self.tokenizer.decode(prompt.token_ids)
            said = next((a for q, a in self._book.items() if q in asked), f"To {asked[-40:-15]}")
            yield Generated(token_ids=tuple(self.tokenizer.encode(said)), finished=True)

    def score(self, passages: Iterable[Passage], k: int) -> Iterator[CacheRow]:
        raise NotImplementedError


def answered(
    folder: Path,
    lines: Sequence[dict[str, Any]],
    *,
    template: str = parts.TEMPLATE,
    book: dict[str, str] | None = None,
) -> tuple[Answered, Counter[str]]:
    """What `lines` become with a reciting teacher, and what was left out."""
    parts.write_tokenizer(folder, template=template)
    path = parts.write_lines(folder / "questions.jsonl", lines)
    source = {"format": "jsonl", "questions": "0"}
    section = DatasetSection.model_validate(
        {
            "sources": [source],
            "answers": "generated",
            "splits": {"train": 1, "held_out": 1, "evaluation": 1},
        }
    )
    teacher = Reciting(folder, book)
    terms = Terms(section=section, teacher=teacher, left_out=Counter())
    examples = list(read_source(section.sources[0], [path], section))
    assert all(isinstance(e, Example) for e in examples)
    asked = ask(terms, [e for e in examples if isinstance(e, Example)])
    with Journal(folder / "answers.journal") as journal:
        found = generate(terms, asked, journal, parts.quietly)
    return found, terms.left_out


def test_two_examples_in_the_same_tokens_do_not_shift_the_answers_after_them(
    tmp_path: Path,
) -> None:
    """A template may drop what tells two chats apart: here, white space at the ends."""
    trimming = parts.TEMPLATE.replace("message.content", "message.content | trim")
    lines = [{"prompt": text} for text in ("one?", "one? ", "two?", "three?", "four?")]
    found, _ = answered(tmp_path, lines, template=trimming)
    said = {r.messages[0].content: r.answer for r in found.records.values()}
    assert len(said) == 5
    assert all(question.strip() in answer for question, answer in said.items())


@pytest.mark.parametrize(
    ("said", "left_out"),
    [
        ({"name": "weather_1", "arguments": {"city": "Oslo"}}, {}),
        ({"name": "weather_1", "arguments": {"city": 3}}, {"schema": 1}),
        ({"name": "weather_1", "arguments": {}}, {"schema": 1}),
        ({"name": "weather_7", "arguments": {"city": "Oslo"}}, {"schema": 1}),
    ],
)
def test_a_generated_call_that_its_tool_forbids_is_left_out(
    tmp_path: Path, said: dict[str, Any], left_out: dict[str, int]
) -> None:
    text = json.dumps(said, separators=(",", ":"))
    found, counts = answered(tmp_path, [parts.weather_line(1)], book={"city 1?": text})
    assert counts == left_out
    assert [r.answer for r in found.records.values()] == ([] if left_out else [text])
    assert found.calls_valid == 1


def test_a_chat_that_the_template_refuses_is_left_out_and_the_next_is_not(tmp_path: Path) -> None:
    picky = "{% if 'rude' in messages[0].content %}{{ raise_exception('no') }}{% endif %}"
    lines = [{"prompt": text} for text in ("one?", "a rude one?", "two?")]
    found, left_out = answered(tmp_path, lines, template=picky + parts.TEMPLATE)
    assert [r.messages[0].content for r in found.records.values()] == ["one?", "two?"]
    assert left_out == {"schema": 1}


def test_a_template_that_refuses_every_chat_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UntrustedFileError, match="never") as error:
        answered(tmp_path, [{"prompt": "one?"}], template="{{ raise_exception('never') }}")
    assert error.value.code == "chat_template.failed"
