"""Sources become examples line by line; a line that is none is named and left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from stillhouse.phases.data.calls import INSTRUCTION
from stillhouse.phases.data.records import Message
from stillhouse.phases.dataset.sources import Example, Refused, content_key, read_source
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.recipe import DatasetSection, Source, Splits

TOOL = {
    "name": "f",
    "parameters": {"type": "dict", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
}


def a_section(**changes: Any) -> DatasetSection:
    return DatasetSection.model_validate(
        {
            "sources": [{"format": "jsonl", "questions": "0"}],
            "answers": "given",
            "splits": Splits(train=1, held_out=1, evaluation=1),
        }
        | changes
    )


def read(folder: Path, *lines: object, **section: Any) -> list[Example | Refused]:
    path = folder / "lines"
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return list(read_source(Source(format="jsonl", questions="0"), [path], a_section(**section)))


def one(folder: Path, line: object, **section: Any) -> Example:
    (found,) = read(folder, line, **section)
    assert isinstance(found, Example), found
    return found


def bfcl(
    folder: Path, questions: Sequence[object], truths: Sequence[object] | None, **section: Any
) -> list[Example | Refused]:
    paths = [folder / "questions", folder / "answers"]
    for path, lines in zip(paths, (questions, truths or []), strict=True):
        path.write_text("\n".join(map(json.dumps, lines)))
    source = Source(format="bfcl", questions="0", answers=None if truths is None else "1")
    return list(read_source(source, paths, a_section(**section)))


def question(name: str = "q", text: str = "Go.") -> dict[str, Any]:
    return {"id": name, "question": [[{"role": "user", "content": text}]], "function": [TOOL]}


def answer(name: str = "q", *values: int) -> dict[str, Any]:
    return {"id": name, "ground_truth": [{"f": {"a": list(values)}}]}


def test_a_prompt_is_a_chat_of_one_turn(tmp_path: Path) -> None:
    found = one(tmp_path, {"prompt": "Hi", "answer": "Hello"})
    assert found.messages == (Message(role="user", content="Hi"),)
    assert found.answer == "Hello"
    assert found.functions == ()


def test_the_system_message_is_the_recipes_then_the_tools_then_the_sources(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "own"}, {"role": "user", "content": "Hi"}]
    found = one(tmp_path, {"messages": messages, "tools": [TOOL]}, system="recipe")
    assert [m.role for m in found.messages] == ["system", "user"]
    assert found.messages[0].content == f"recipe\n{INSTRUCTION}\nf(a: integer)\nown"
    assert found.functions == ("f",)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "JSON"),
        ("[1]", "object"),
        ('{"prompt":"a","prompt":"b"}', "duplicate"),
        ('{"prompt":"\\ud800"}', "unicode"),
        ({}, "either"),
        ({"prompt": "", "answer": "x"}, "prompt"),
        ({"prompt": "Hi", "messages": [{"role": "user", "content": "Hi"}]}, "either"),
        ({"prompt": "Hi", "answr": "x"}, "answr"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "last message"),
        ({"prompt": "Hi", "tools": [{}]}, "name"),
        ({"prompt": "Hi", "tools": [TOOL], "answer": '{"name":"g","arguments":{}}'}, "g is not"),
        ({"prompt": "Hi", "tools": [TOOL], "answer": '{"name":"f","arguments":{}}'}, "needs a"),
        ('{"prompt":"Hi","tools":[{"name":"f","x":' + "[" * 5000 + "]" * 5000 + "}]}", "."),
        ('{"prompt":"Hi","tools":[{"name":"f","parameters":{"x":1e999}}]}', "."),
    ],
)
def test_a_line_that_is_no_example_is_named_and_the_next_is_read(
    tmp_path: Path, line: object, why: str
) -> None:
    bad, good = read(tmp_path, line, {"prompt": "Hi"})
    assert isinstance(bad, Refused)
    assert bad.where == "source 0, line 1"
    assert why in bad.why
    assert isinstance(good, Example)


def test_bytes_that_are_not_utf8_are_a_refused_line(tmp_path: Path) -> None:
    (found,) = read(tmp_path, '{"prompt":"\udcff"}')
    assert isinstance(found, Refused)


def test_empty_lines_are_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "", "  ", "") == []


def test_a_missing_file_stops_everything(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        list(read_source(Source(format="jsonl", questions="0"), [tmp_path / "none"], a_section()))


def test_bfcl_questions_meet_their_answers_by_id(tmp_path: Path) -> None:
    found = bfcl(
        tmp_path,
        [question("q1"), question("q2", "Go on.")],
        [answer("q2", 2), answer("q1", 1, 7)],
    )
    assert [e.answer for e in found if isinstance(e, Example)] == [
        '{"name":"f","arguments":{"a":1}}',
        '{"name":"f","arguments":{"a":2}}',
    ]
    assert isinstance(found[0], Example)
    assert found[0].acceptable == {"a": (1, 7)}


def test_a_bfcl_question_without_an_answer_has_none(tmp_path: Path) -> None:
    for answers in (None, [], [answer("other", 1)]):
        (found,) = bfcl(tmp_path, [question()], answers)
        assert isinstance(found, Example)
        assert found.answer is None


@pytest.mark.parametrize("role", ["wizard", "assistant"])
def test_a_bfcl_chat_that_does_not_end_with_a_question_is_refused(
    tmp_path: Path, role: str
) -> None:
    strange = question()
    strange["question"][0][0]["role"] = role
    (found,) = bfcl(tmp_path, [strange], [answer("q", 1)])
    assert isinstance(found, Refused)


def test_answers_of_the_sources_are_not_read_when_the_teacher_writes_them(tmp_path: Path) -> None:
    (found,) = bfcl(tmp_path, [question()], [answer("q", 1)], answers="generated")
    assert isinstance(found, Example)
    assert found.answer is None
    assert found.acceptable is None


def test_questions_that_differ_in_case_and_spacing_have_the_same_content() -> None:
    def content(text: str, system: Literal["a", "b"]) -> str:
        chat = (Message(role="system", content=system), Message(role="user", content=text))
        return content_key(chat)

    assert content("Hello  there\n", "a") == content("hello THERE", "b")
    assert content("Hello there", "a") != content("Hello here", "a")


def test_the_same_words_from_another_speaker_are_other_content() -> None:
    def said(role: Literal["user", "tool"]) -> str:
        return content_key([Message(role=role, content="x")])

    assert said("user") != said("tool")
