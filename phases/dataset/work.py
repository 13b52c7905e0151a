"""The work of the dataset phase, step by step."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from phases import threads
from phases.contract import Context, Input
from phases.dataset import privacy
from phases.dataset.answers import Answered, ask, generate, given
from phases.dataset.journal import Journal
from phases.dataset.measure import measure
from phases.dataset.scoring import cache_key, score, score_key
from phases.dataset.sources import Example, Refused, content_key, read_source
from phases.dataset.splits import Assignment, Item, assign
from phases.records import (
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
from phases.teacher import LocalTeacher, Teacher, dequantise
from schemas.artifact import Kind, Product
from schemas.digest import Digest
from schemas.errors import PhaseError
from schemas.recipe import DatasetSection
from schemas.report import Metric, Report, metric

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
    left_out: Counter[str]
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
        gathered = gather(section, context.inputs["source"])
        teacher = LocalTeacher(folder, digest=context.one("teacher").digest)
        with Journal(context.scratch / "answers.journal") as journal:
            answered = answer(context, section, teacher, gathered, journal)
        assignment = split(section, answered, gathered)
        with Journal(context.scratch / "scores.journal") as journal:
            built = publish(context, section, teacher, answered, assignment, journal)
    return _products(context, section, teacher, folder, gathered, answered, assignment, built)


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


def gather(section: DatasetSection, sources: Sequence[Input]) -> Gathered:
    """Every usable example of every source; the others are counted."""
    files = [source.path for source in sources]
    examples: dict[Digest, Example] = {}
    left_out: Counter[str] = Counter(dict.fromkeys(LEFT_OUT, 0))
    refusals = []
    for found in (f for source in section.sources for f in read_source(source, files, section)):
        if isinstance(found, Refused):
            left_out["schema"] += 1
            refusals.append(f"{found.where}: {found.why}")
        elif found.key in examples:
            left_out["duplicates"] += 1
        elif any(privacy.hits(_texts(found), section.allowed_hosts).values()):
            left_out["privacy"] += 1
        else:
            examples[found.key] = found
    return Gathered(examples=list(examples.values()), left_out=left_out, refusals=refusals)


def _texts(example: Example) -> list[str]:
    chat = [m.to_json() for m in example.messages]
    return list(privacy.strings([chat, example.tools, example.acceptable or {}]))


def answer(
    context: Context,
    section: DatasetSection,
    teacher: Teacher,
    gathered: Gathered,
    journal: Journal,
) -> Answered:
    """Records of all examples, with the sources' answers or the teacher's."""
    asked = ask(gathered.examples, teacher, section, gathered.left_out)
    if section.answers == "given":
        return given(asked, teacher, section, gathered.left_out)
    return generate(asked, teacher, section, journal, context.progress, gathered.left_out)


def split(section: DatasetSection, answered: Answered, gathered: Gathered) -> Assignment:
    """Who goes where. Raises PhaseError, with the reasons, when a split cannot be filled."""
    wanted: dict[Split, int] = {
        "train": section.splits.train,
        "held_out": section.splits.held_out,
        "evaluation": section.splits.evaluation,
    }
    assignment = assign([_item(key, r) for key, r in answered.records.items()], wanted)
    gathered.left_out["surplus"] += len(assignment.surplus)
    if assignment.sizes != wanted:
        raise _too_few(wanted, assignment, gathered)
    return assignment


def _item(key: Digest, record: Record) -> Item:
    functions = {("function", name) for name in record.functions}
    return Item(key=key, tags=frozenset(functions | {("content", content_key(record.messages))}))


def _too_few(wanted: Mapping[Split, int], assignment: Assignment, gathered: Gathered) -> PhaseError:
    found = sum(assignment.groups)
    short = ", ".join(f"{s} {assignment.sizes[s]} of {wanted[s]}" for s in SPLITS)
    why = ", ".join(f"{name} {n}" for name, n in gathered.left_out.items() if n) or "none"
    largest = assignment.groups[0] if assignment.groups else 0
    first = f" First malformed line: {gathered.refusals[0]}." if gathered.refusals else ""
    return PhaseError(
        f"Too few examples: {short}. {found} usable ones make {len(assignment.groups)} groups that"
        f" share no function name or content (the largest has {largest}). Left out: {why}.{first}",
        remedy="Ask for smaller splits, raise max_tokens, or add sources with other functions.",
        code="dataset.too_few",
    )


def publish(
    context: Context,
    section: DatasetSection,
    teacher: Teacher,
    answered: Answered,
    assignment: Assignment,
    journal: Journal,
) -> Built:
    """Score what is to be scored, and write both trees afresh."""
    splits = {s: [answered.records[key] for key in assignment.splits[s]] for s in SPLITS}
    scored = [record for s in CACHED_SPLITS for record in splits[s]]
    rows = score(scored, teacher, section.top_k, journal, context.progress)
    dataset, cache = (_fresh(context.scratch / name) for name in ("dataset", "teacher_cache"))
    for name in SPLITS:
        write_split(dataset, name, splits[name])
    for name in CACHED_SPLITS:
        mine = {record.id: rows[record.id] for record in splits[name]}
        write_cache(cache, name, mine, vocab_size=teacher.vocab_size)
    header = DatasetHeader(
        tokenizer=teacher.tokenizer.digest,
        counts=assignment.sizes,
        top_k=section.top_k,
        teacher=str(context.params["teacher"]),
        answers=section.answers,
        eos_token_id=teacher.tokenizer.eos_token_id,
    )
    write_header(dataset, header)
    key = cache_key(score_key(teacher, record, section.top_k) for record in scored)
    digest = context.one("teacher").digest
    write_cache_header(
        cache,
        CacheHeader(key=key, k=section.top_k, vocab_size=teacher.vocab_size, teacher=digest),
    )
    return Built(dataset=dataset, cache=cache, header=header)


def _fresh(folder: Path) -> Path:
    """An empty folder: a killed attempt may have left half of one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _products(
    context: Context,
    section: DatasetSection,
    teacher: Teacher,
    folder: Path,
    gathered: Gathered,
    answered: Answered,
    assignment: Assignment,
    built: Built,
) -> tuple[Product, ...]:
    name = built.header.teacher
    dataset = context.tree("dataset", Kind.DATASET, built.dataset, facts=built.header.to_json())
    cache = context.tree(
        "teacher_cache", Kind.TEACHER_CACHE, built.cache, facts={"k": section.top_k}
    )
    model = context.tree("teacher_model", Kind.TEACHER, folder, name=name)
    report = Report(
        phase="dataset",
        subject=dataset.digest,
        metrics=(
            *measure(built.dataset, built.cache, teacher.tokenizer, section),
            *_left_out(gathered),
            *_validity(answered),
        ),
        details={
            "refused": gathered.refusals[:_NAMED_REFUSALS],
            "group_sizes": list(assignment.groups),
            "teacher": teacher.identity,
        },
    )
    return dataset, cache, model, context.report(report)


def _left_out(gathered: Gathered) -> list[Metric]:
    return [metric(f"left_out.{w}", gathered.left_out[w], unit="count") for w in LEFT_OUT]


def _validity(answered: Answered) -> list[Metric]:
    if not answered.generated:
        return []
    share = answered.valid_json / answered.generated
    return [metric("teacher.generated_json_validity", share, unit="fraction", n=answered.generated)]
