"""Sources as examples: JSON lines of chats or prompts, and BFCL question files with their answers.

Rule: a line that is not what its format says is left out, counted and named in the report; it never
stops the run, and it is never repaired.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from stillhouse.phases.data.calls import (
    MalformedExampleError,
    call_fault,
    instructions,
    normalise_tool,
    parse_call,
    read_bfcl,
)
from stillhouse.phases.data.records import Message, content_id, json_lines
from stillhouse.schemas import canonical
from stillhouse.schemas.canonical import Json
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.recipe import DatasetSection, Source
from stillhouse.schemas.value import Value
from stillhouse.store.disk.hashing import hash_bytes


@dataclass(frozen=True, kw_only=True)
class Example:
    """A question, and its answer when the source gives one."""

    key: Digest
    """Of the question (messages and tools): what makes it a duplicate, and what orders examples."""
    messages: tuple[Message, ...]
    """As they will be rendered: one system message holds the recipe's text and the tools."""
    tools: tuple[Json, ...]
    answer: str | None
    acceptable: dict[str, tuple[Any, ...]] | None

    @property
    def functions(self) -> tuple[str, ...]:
        """Sorted names of the functions that may be called."""
        return tuple(sorted({tool["name"] for tool in self.tools}))


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A line that is not an example."""

    where: str
    why: str


class _Line(Value):
    """One line of a `jsonl` source: `messages` or `prompt`."""

    id: Any = None
    """For the author's own use."""
    messages: tuple[Message, ...] = ()
    prompt: str | None = Field(default=None, min_length=1)
    tools: tuple[dict[str, Any], ...] = ()
    answer: str | None = None


def read_source(
    source: Source, files: Sequence[Path], section: DatasetSection
) -> Iterator[Example | Refused]:
    """Every line of a source. `source` names its files by their places in `files`.

    Raises UntrustedFileError and InputError when a file cannot be read at all.
    """
    questions = files[int(source.questions)]
    truths = {} if source.answers is None else _truths(files[int(source.answers)])
    for number, line in json_lines(questions):
        where = f"source {source.questions}, line {number}"
        if not line.strip():
            continue
        try:
            value = canonical.decode(line)
            if source.format == "bfcl":
                yield _from_bfcl(value, truths, section)
            else:
                yield _from_line(_Line.model_validate(value), section)
        except ValidationError as error:
            first = error.errors()[0]
            yield Refused(where=where, why=f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        except InputError as error:
            yield Refused(where=where, why=error.message)
        except MalformedExampleError as error:
            yield Refused(where=where, why=str(error))
        except RecursionError:
            yield Refused(where=where, why="it is nested too deeply")


def content_key(messages: Sequence[Message]) -> Digest:
    """What two examples share when they ask the same: the chat's words, system text apart.

    Case, spacing and Unicode form do not count.
    """
    words = [
        [m.role, " ".join(unicodedata.normalize("NFKC", m.content).casefold().split())]
        for m in messages
        if m.role != "system"
    ]
    return hash_bytes(b"stillhouse content v1\n" + canonical.encode(words)).digest


def _truths(path: Path) -> dict[str, Json]:
    """The lines of a BFCL answer file by id. A malformed one leaves its question unanswered."""
    found: dict[str, Json] = {}
    for _, line in json_lines(path):
        try:
            value = canonical.decode(line)
        except InputError:
            continue
        found[str(value.get("id"))] = value
    return found


def _from_bfcl(
    value: Mapping[str, Any], truths: Mapping[str, Json], section: DatasetSection
) -> Example:
    question = read_bfcl(value, truths.get(str(value.get("id"))))
    return _example(
        tuple(Message.model_validate(m) for m in question.messages),
        question.tools,
        question.answer,
        question.acceptable,
        section,
    )


def _from_line(line: _Line, section: DatasetSection) -> Example:
    if bool(line.messages) == (line.prompt is not None):
        raise MalformedExampleError("an example has either `messages` or `prompt`")
    messages = line.messages or (Message(role="user", content=line.prompt or ""),)
    tools = tuple(map(normalise_tool, line.tools))
    call = parse_call(line.answer or "")
    if tools and call and (fault := call_fault(call, tools)):
        raise MalformedExampleError(fault)
    return _example(messages, tools, line.answer, None, section)


def _example(
    messages: Sequence[Message],
    tools: tuple[Json, ...],
    answer: str | None,
    acceptable: dict[str, tuple[Any, ...]] | None,
    section: DatasetSection,
) -> Example:
    if not messages or messages[-1].role not in ("user", "tool"):
        raise MalformedExampleError("the last message is not the user's; answers go into `answer`")
    given = section.answers == "given"
    chat = _with_system(messages, section.system, instructions(tools))
    return Example(
        key=content_id(chat, tools, ""),
        messages=chat,
        tools=tools,
        answer=answer if given else None,
        acceptable=acceptable if given else None,
    )


def _with_system(messages: Sequence[Message], *texts: str) -> tuple[Message, ...]:
    """The chat with one system message: the recipe's text, the tools, then the source's own."""
    own = [m.content for m in messages if m.role == "system"]
    said = "\n".join(text for text in (*texts, *own) if text)
    rest = tuple(m for m in messages if m.role != "system")
    return (Message(role="system", content=said), *rest) if said else rest
