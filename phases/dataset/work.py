"""The work of the dataset phase, step by step."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stillhouse.phases.contract import Context, Input
from stillhouse.phases.data.journal import Journal
from stillhouse.phases.data.records import (
    CACHED_SPLITS,
    SPLITS,
    CacheHeader,
    DatasetHeader,
    Record,
    Split,
    write_cache,
    write_cache_header,
    write_header,
    write_split,
)
from stillhouse.phases.dataset import privacy
from stillhouse.phases.dataset.answers import Answered, Terms, ask, generate, given
from stillhouse.phases.dataset.measure import measure
from stillhouse.phases.dataset.scoring import cache_key, score, score_key
from stillhouse.phases.dataset.sources import Example, Refused, content_key, read_source
from stillhouse.phases.dataset.splits import Assignment, Item, assign
from stillhouse.phases.numerics import threads
from stillhouse.phases.teachers import LocalTeacher, dequantise
from stillhouse.schemas.artifact import Kind, Product
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import PhaseError
from stillhouse.schemas.recipe import DatasetSection
from stillhouse.schemas.report import Metric, Report, metric
from stillhouse.store.disk.durable import writing

LEFT_OUT = (
    "schema",
    "duplicates",
    "privacy",
    "too_long",
    "empty",
    "truncated",
    "surplus",
)
"""Why an example may be left out."""
_NAMED_REFUSALS = 20
"""Malformed lines that the report names."""


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What the sources hold, cleaned."""

    examples: list[Example]
    refusals: list[str]


@dataclass(frozen=True, kw_only=True)
class Built:
    """The two trees on disk."""

    dataset: Path
    cache: Path
    header: DatasetHeader


def build(context: Context) -> tuple[Product, ...]:
    """Do the whole phase; see phases/dataset/__init__.py."""
    section = DatasetSection.model_validate(context.params["dataset"])
    with threads.fixed(section.threads, section.seed):
        folder = teacher_folder(context)
        terms = Terms(
            section=section,
            teacher=LocalTeacher(folder, digest=context.one("teacher").digest),
            left_out=Counter(dict.fromkeys(LEFT_OUT, 0)),
        )
        gathered = gather(terms, context.inputs["source"])
        answered = answer(terms, gathered, context)
        assignment = split(terms, answered, gathered)
        built = write(terms, answered, assignment, context)
    dataset = context.tree("dataset", Kind.DATASET, built.dataset, facts=built.header.to_json())
    facts = {"k": section.top_k, "teacher": built.header.teacher}
    report = Report(
        phase="dataset",
        subject=dataset.digest,
        metrics=(
            *measure(built.dataset, built.cache, terms.teacher.tokenizer, section),
            *(metric(f"left_out.{w}", terms.left_out[w], unit="count") for w in LEFT_OUT),
            *_validity(answered),
        ),
        details={
            "refused": gathered.refusals[:_NAMED_REFUSALS],
            "group_sizes": list(assignment.groups),
            "teacher": terms.teacher.identity,
        },
    )
    return (
        dataset,
        context.tree("teacher_cache", Kind.TEACHER_CACHE, built.cache, facts=facts),
        context.tree("teacher_model", Kind.TEACHER, folder, name=built.header.teacher),
        context.report(report),
    )


def teacher_folder(context: Context) -> Path:
    """The teacher as a Hugging Face folder: as it is given, or made from its GGUF file."""
    given_teacher = context.one("teacher")
    if given_teacher.form == "tree":
        return given_teacher.path
    context.progress("dequantising", 0, 1)
    folder = context.scratch / "teacher_model"
    dequantise(given_teacher.path, folder)
    context.progress("dequantising", 1, 1)
    return folder


def gather(terms: Terms, sources: Sequence[Input]) -> Gathered:
    """Every usable example of every source; the others are counted."""
    files = [source.path for source in sources]
    section = terms.section
    examples: dict[Digest, Example] = {}
    refusals = []
    for found in (f for source in section.sources for f in read_source(source, files, section)):
        if isinstance(found, Refused):
            terms.left_out["schema"] += 1
            refusals.append(f"{found.where}: {found.why}")
        elif found.key in examples:
            terms.left_out["duplicates"] += 1
        elif any(privacy.hits(_texts(found), section.allowed_hosts).values()):
            terms.left_out["privacy"] += 1
        else:
            examples[found.key] = found
    return Gathered(examples=list(examples.values()), refusals=refusals)


def _texts(example: Example) -> list[str]:
    chat = [m.to_json() for m in example.messages]
    return list(privacy.strings([chat, example.tools, example.acceptable or {}]))


def answer(terms: Terms, gathered: Gathered, context: Context) -> Answered:
    """Records of all examples, with the sources' answers or the teacher's."""
    asked = ask(terms, gathered.examples)
    if terms.section.answers == "given":
        return given(terms, asked)
    with Journal(context.scratch / "answers.journal") as journal:
        return generate(terms, asked, journal, context.progress)


def split(terms: Terms, answered: Answered, gathered: Gathered) -> Assignment:
    """Who goes where. Raises PhaseError, with the reasons, when a split cannot be filled."""
    asked_for = terms.section.splits
    wanted: dict[Split, int] = {
        "train": asked_for.train,
        "held_out": asked_for.held_out,
        "evaluation": asked_for.evaluation,
    }
    assignment = assign([_item(key, r) for key, r in answered.records.items()], wanted)
    terms.left_out["surplus"] += len(assignment.surplus)
    if assignment.sizes != wanted:
        raise _too_few(wanted, assignment, terms.left_out, gathered.refusals)
    return assignment


def _item(key: Digest, record: Record) -> Item:
    functions = {("function", name) for name in record.functions}
    return Item(key=key, tags=frozenset(functions | {("content", content_key(record.messages))}))


def _too_few(
    wanted: Mapping[Split, int],
    assignment: Assignment,
    left_out: Mapping[str, int],
    refusals: Sequence[str],
) -> PhaseError:
    found = sum(assignment.groups)
    short = ", ".join(f"{s} {assignment.sizes[s]} of {wanted[s]}" for s in SPLITS)
    why = ", ".join(f"{name} {n}" for name, n in left_out.items() if n) or "none"
    largest = max(assignment.groups, default=0)
    first = f" First malformed line: {refusals[0]}." if refusals else ""
    return PhaseError(
        f"Too few examples: {short}. {found} usable ones make {len(assignment.groups)} groups that"
        f" share no function name or content (the largest has {largest}). Left out: {why}.{first}",
        remedy="Ask for smaller splits, raise max_tokens, or add sources with other functions.",
        code="dataset.too_few",
    )


def write(terms: Terms, answered: Answered, assignment: Assignment, context: Context) -> Built:
    """Score what is to be scored, and write both trees afresh."""
    splits = {s: [answered.records[key] for key in assignment.splits[s]] for s in SPLITS}
    scored = [record for s in CACHED_SPLITS for record in splits[s]]
    with Journal(context.scratch / "scores.journal") as journal:
        rows = score(scored, terms.teacher, terms.section.top_k, journal, context.progress)
    dataset, cache = (_fresh(context.scratch / name) for name in ("dataset", "teacher_cache"))
    for name in SPLITS:
        write_split(dataset, name, splits[name])
    header = _header(terms, assignment, str(context.params["teacher"]))
    write_header(dataset, header)
    for name in CACHED_SPLITS:
        mine = {record.id: rows[record.id] for record in splits[name]}
        write_cache(cache, name, mine, vocab_size=terms.teacher.vocab_size)
    write_cache_header(cache, _cache_header(terms, scored, context.one("teacher").digest))
    return Built(dataset=dataset, cache=cache, header=header)


def _header(terms: Terms, assignment: Assignment, teacher: str) -> DatasetHeader:
    return DatasetHeader(
        tokenizer=terms.teacher.tokenizer.digest,
        counts=assignment.sizes,
        top_k=terms.section.top_k,
        teacher=teacher,
        answers=terms.section.answers,
        eos_token_id=terms.teacher.tokenizer.eos_token_id,
    )


def _cache_header(terms: Terms, scored: Sequence[Record], teacher: Digest) -> CacheHeader:
    k = terms.section.top_k
    return CacheHeader(
        key=cache_key(score_key(terms.teacher, record, k) for record in scored),
        k=k,
        vocab_size=terms.teacher.vocab_size,
        teacher=teacher,
    )


def _fresh(folder: Path) -> Path:
    """An empty folder: a killed attempt may have left half of one."""
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    return folder


def _validity(answered: Answered) -> list[Metric]:
    if not answered.calls_asked:
        return []
    share, n = answered.calls_valid / answered.calls_asked, answered.calls_asked
    return [metric("teacher.generated_json_validity", share, unit="fraction", n=n)]
