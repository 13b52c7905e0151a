"""From examples to records: prompts rendered, answers given or generated, all of it tokens.

Rule: what the teacher wrote is kept in the journal before the next prompt is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from phases.contract import Progress
from phases.dataset import privacy
from phases.dataset.journal import Journal
from phases.dataset.sources import Example
from phases.records import Record, content_id
from phases.teacher import Generated, Prompt, Sampling, Teacher
from phases.toolcalls import parse_call
from schemas import canonical
from schemas.digest import Digest
from schemas.recipe import DatasetSection
from store.hashing import hash_bytes

_KEY_TAG = b"stillhouse teacher-answer v1\n"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An example as the model reads it."""

    example: Example
    prompt: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The records, and what generating them told."""

    records: dict[Digest, Record]
    """By their example's key."""
    generated: int = 0
    valid_json: int = 0
    """Of those with tools: answers that are one strict call."""


def ask(
    examples: Sequence[Example], teacher: Teacher, section: DatasetSection, left_out: Counter[str]
) -> list[Asked]:
    """Render and tokenise each chat; a prompt that leaves no room for an answer is left out."""
    prompts = teacher.tokenizer.render([[m.to_json() for m in e.messages] for e in examples])
    asked = []
    for example, prompt in zip(examples, prompts, strict=True):
        token_ids = tuple(teacher.tokenizer.encode(prompt))
        if not 0 < len(token_ids) <= section.max_tokens - 2:
            left_out["too_long"] += 1
            continue
        asked.append(Asked(example=example, prompt=prompt, token_ids=token_ids))
    return asked


def given(
    asked: Sequence[Asked], teacher: Teacher, section: DatasetSection, left_out: Counter[str]
) -> Answered:
    """Records with the answers of the sources."""
    records = {}
    for each in asked:
        answer = each.example.answer or ""
        record = _record(each, answer, teacher.tokenizer.encode(answer), teacher, section, left_out)
        if record:
            records[each.example.key] = record
    return Answered(records=records)


def generate(
    asked: Sequence[Asked],
    teacher: Teacher,
    section: DatasetSection,
    journal: Journal,
    progress: Progress,
    left_out: Counter[str],
) -> Answered:
    """Records with answers that the teacher writes, one prompt after the other."""
    records, calls, valid = {}, 0, 0
    for each, said in zip(
        asked, _writings(asked, teacher, section, journal, progress), strict=True
    ):
        answer = teacher.tokenizer.decode(said.token_ids)
        if each.example.tools:
            calls += 1
            valid += parse_call(answer) is not None
        if not said.finished:
            left_out["truncated"] += 1
            continue
        record = _record(each, answer, said.token_ids, teacher, section, left_out)
        if record:
            records[each.example.key] = record
    return Answered(records=records, generated=calls, valid_json=valid)


def _writings(
    asked: Sequence[Asked],
    teacher: Teacher,
    section: DatasetSection,
    journal: Journal,
    progress: Progress,
) -> Iterator[Generated]:
    """What the teacher writes to each prompt: from the journal where it is, else now."""
    sampling = Sampling(
        max_new_tokens=section.max_new_tokens,
        temperature=section.temperature,
        top_p=section.top_p,
    )
    prompts = [Prompt(token_ids=a.token_ids, seed=_seed(section, a.example)) for a in asked]
    keys = [answer_key(teacher, prompt, sampling) for prompt in prompts]
    missing = [p for p, k in zip(prompts, keys, strict=True) if journal.get(k) is None]
    fresh = teacher.generate(missing, sampling)
    for done, key in enumerate(keys, start=1):
        kept = journal.get(key)
        if kept is None:
            said = next(fresh)
            kept = canonical.encode({"token_ids": list(said.token_ids), "finished": said.finished})
            journal.keep(key, kept)
        progress("generating", done, len(keys))
        value = canonical.decode(kept)
        yield Generated(token_ids=tuple(value["token_ids"]), finished=value["finished"])


def answer_key(teacher: Teacher, prompt: Prompt, sampling: Sampling) -> Digest:
    """The digest of everything that a generated answer depends on."""
    content = {
        "teacher": teacher.identity,
        "prompt": list(prompt.token_ids),
        "max_new_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # Greedy decoding draws nothing.
        "seed": str(prompt.seed) if sampling.temperature else "",
    }
    return hash_bytes(_KEY_TAG + canonical.encode(content)).digest


def _seed(section: DatasetSection, example: Example) -> int:
    """An example's own random numbers: neither order nor neighbours change them."""
    return int(
        hash_bytes(f"stillhouse seed v1\n{section.seed}\n{example.key}".encode()).digest[:15], 16
    )


def _record(
    asked: Asked,
    answer: str,
    answer_ids: Sequence[int],
    teacher: Teacher,
    section: DatasetSection,
    left_out: Counter[str],
) -> Record | None:
    """The record of an answered example, or None when it is left out (and counted)."""
    why = _fault(asked, answer, answer_ids, teacher, section)
    if why:
        left_out[why] += 1
        return None
    example = asked.example
    return Record(
        id=content_id(example.messages, example.tools, answer),
        messages=example.messages,
        tools=example.tools,
        functions=example.functions,
        answer=answer,
        acceptable=example.acceptable,
        prompt=asked.prompt,
        token_ids=(*asked.token_ids, *answer_ids, teacher.tokenizer.eos_token_id),
        answer_start=len(asked.token_ids),
    )


def _fault(
    asked: Asked,
    answer: str,
    answer_ids: Sequence[int],
    teacher: Teacher,
    section: DatasetSection,
) -> str | None:
    """Why this answer cannot be used: the name under which it is counted."""
    if not answer.strip():
        return "empty"
    if len(asked.token_ids) + len(answer_ids) + 1 > section.max_tokens:
        return "too_long"
    if teacher.tokenizer.eos_ids.intersection(answer_ids):
        return "schema"  # an EOS inside would end the answer early
    if any(privacy.hits([answer], section.allowed_hosts).values()):
        return "privacy"
    return None
