"""From examples to records: prompts rendered, answers given or generated, all of it tokens.

Rule: what the teacher wrote is kept in the journal before the next prompt is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stillhouse.phases.contract import Progress
from stillhouse.phases.data.calls import call_fault, parse_call
from stillhouse.phases.data.journal import Journal
from stillhouse.phases.data.records import Record, content_id
from stillhouse.phases.dataset import privacy
from stillhouse.phases.dataset.sources import Example
from stillhouse.phases.teachers import Generated, Prompt, Sampling, Teacher
from stillhouse.schemas import canonical
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import UntrustedFileError
from stillhouse.schemas.recipe import DatasetSection
from stillhouse.store.disk.hashing import hash_bytes

_KEY_TAG = b"stillhouse teacher-answer v1\n"
_SHORTEST_ANSWER = 2
"""Tokens: one, and the EOS."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What every step works by."""

    section: DatasetSection
    teacher: Teacher
    left_out: Counter[str]
    """Examples left out so far, by reason."""


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
    calls_asked: int = 0
    """Answers generated to examples with tools …"""
    calls_valid: int = 0
    """… and those of them that are one strict call."""


def ask(terms: Terms, examples: Sequence[Example]) -> list[Asked]:
    """Render and tokenise each chat.

    Left out: a chat that the template refuses, a prompt that leaves no room for an answer or has a
    token that the model has not. Raises UntrustedFileError when the template refuses every chat.
    """
    tokenizer = terms.teacher.tokenizer
    prompts = tokenizer.try_render([[m.to_json() for m in e.messages] for e in examples])
    refusals = [prompt for prompt in prompts if isinstance(prompt, UntrustedFileError)]
    if refusals and len(refusals) == len(prompts):
        raise refusals[0]
    asked = []
    for example, prompt in zip(examples, prompts, strict=True):
        if isinstance(prompt, UntrustedFileError):
            terms.left_out["schema"] += 1
            continue
        token_ids = tuple(tokenizer.encode(prompt))
        if not token_ids or max(token_ids) >= terms.teacher.vocab_size:
            terms.left_out["schema"] += 1  # transformers adds tokens that the model never had
        elif len(token_ids) > terms.section.max_tokens - _SHORTEST_ANSWER:
            terms.left_out["too_long"] += 1
        else:
            asked.append(Asked(example=example, prompt=prompt, token_ids=token_ids))
    return asked


def given(terms: Terms, asked: Sequence[Asked]) -> Answered:
    """Records with the answers of the sources."""
    records = {}
    for each in asked:
        answer = each.example.answer or ""
        record = _record(terms, each, answer, terms.teacher.tokenizer.encode(answer))
        if record:
            records[each.example.key] = record
    return Answered(records=records)


def generate(
    terms: Terms, asked: Sequence[Asked], journal: Journal, progress: Progress
) -> Answered:
    """Records with answers that the teacher writes, one prompt after the other."""
    records, calls_asked, calls_valid = {}, 0, 0
    written = _writings(terms, asked, journal, progress)
    for each, said in zip(asked, written, strict=True):
        answer = terms.teacher.tokenizer.decode(said.token_ids)
        if each.example.tools:
            calls_asked += 1
            calls_valid += parse_call(answer) is not None
        if not said.finished:
            terms.left_out["truncated"] += 1
        elif record := _record(terms, each, answer, said.token_ids):
            records[each.example.key] = record
    return Answered(records=records, calls_asked=calls_asked, calls_valid=calls_valid)


def _writings(
    terms: Terms, asked: Sequence[Asked], journal: Journal, progress: Progress
) -> Iterator[Generated]:
    """What the teacher writes to each prompt: from the journal where it is, else now."""
    section, teacher = terms.section, terms.teacher
    sampling = Sampling(
        max_new_tokens=section.max_new_tokens,
        temperature=section.temperature,
        top_p=section.top_p,
    )
    prompts = [Prompt(token_ids=a.token_ids, seed=example_seed(section, a.example)) for a in asked]
    keys = [answer_key(teacher, prompt, sampling) for prompt in prompts]
    # By key: two examples may differ in what they offer and still be asked in the same tokens.
    missing = {k: p for k, p in zip(keys, prompts, strict=True) if journal.get(k) is None}
    fresh = teacher.generate(missing.values(), sampling)
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


def example_seed(section: DatasetSection, example: Example) -> int:
    """An example's own random numbers: neither order nor neighbours change them."""
    text = f"stillhouse seed v1\n{section.seed}\n{example.key}"
    return int(hash_bytes(text.encode()).digest[:15], 16)


def _record(terms: Terms, asked: Asked, answer: str, answer_ids: Sequence[int]) -> Record | None:
    """The record of an answered example, or None when it is left out (and counted)."""
    if why := _fault(terms, asked, answer, answer_ids):
        terms.left_out[why] += 1
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
        token_ids=(*asked.token_ids, *answer_ids, terms.teacher.tokenizer.eos_token_id),
        answer_start=len(asked.token_ids),
    )


def _fault(terms: Terms, asked: Asked, answer: str, answer_ids: Sequence[int]) -> str | None:
    """Why this answer cannot be used: the name under which it is counted."""
    tokenizer = terms.teacher.tokenizer
    if not answer.strip():
        return "empty"
    if len(asked.token_ids) + len(answer_ids) + 1 > terms.section.max_tokens:
        return "too_long"
    if tokenizer.eos_ids.intersection(answer_ids) or tokenizer.decode(answer_ids) != answer:
        return "schema"  # it would end early, or be read as another text
    if max(answer_ids) >= terms.teacher.vocab_size or _is_false_call(asked.example, answer):
        return "schema"
    if any(privacy.hits([answer], terms.section.allowed_hosts).values()):
        return "privacy"
    return None


def _is_false_call(example: Example, answer: str) -> bool:
    """Whether `answer` calls a tool as its schema forbids. No call at all is an answer too."""
    call = parse_call(answer) if example.tools else None
    return call is not None and call_fault(call, example.tools) is not None
