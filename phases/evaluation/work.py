"""The evaluation, step by step.

1. read the evaluation split, and check that all models share its tokenizer and vocabulary;
2. choose the argument slots and the free-form prompts, the same for every model;
3. for the teacher, then the untrained, then the trained student: load it, read each example once,
   measure it, and let go of the model;
4. report every number with its count and interval.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stillhouse.phases.contract import Context, Input, Progress
from stillhouse.phases.data.records import Record, read_header, read_split
from stillhouse.phases.evaluation.decoding import SlotTask, decode_freely, decode_slot, slot_tasks
from stillhouse.phases.evaluation.fidelity import TeacherLogits, distance
from stillhouse.phases.evaluation.figures import Bootstrap, Measured, metrics_of, rows_of
from stillhouse.phases.evaluation.reading import Reading
from stillhouse.phases.models import load_checkpoint, read_config
from stillhouse.phases.numerics import threads
from stillhouse.phases.teachers import ChatTokenizer, dequantise
from stillhouse.phases.untrusted import check_model_folder
from stillhouse.schemas.errors import PhaseError
from stillhouse.schemas.recipe import EvaluationSection
from stillhouse.schemas.report import Report
from stillhouse.store.disk.durable import reading
from stillhouse.store.disk.hashing import hash_file


@dataclass(frozen=True, kw_only=True)
class Task:
    """One example, and what is asked about it."""

    record: Record
    slots: tuple[SlotTask, ...]
    free: bool
    """Whether it is also answered freely."""

    def spare(self, free_budget: int) -> int:
        """Tokens that may be read beyond the example's own."""
        ends = [len(task.prefix_ids) + task.budget for task in self.slots]
        ends.append(self.record.answer_start + free_budget if self.free else 0)
        return max(0, max(ends) - len(self.record.token_ids))


def evaluate(context: Context) -> Report:
    """Measure every model on the evaluation split. Raises PhaseError, InputError."""
    section = EvaluationSection.model_validate(context.params["evaluation"])
    folders = dict(_model_folders(context))
    dataset = context.one("dataset").path
    tokenizer = _shared_tokenizer(dataset, folders)
    tasks = choose(_records(dataset), tokenizer, section)
    bench = _Bench(
        tasks=tasks,
        tokenizer=tokenizer,
        kept=TeacherLogits(context.scratch / "teacher_logits"),
        free_budget=section.max_new_tokens,
        progress=context.progress,
    )
    bootstrap = Bootstrap(resamples=section.resamples, seed=section.seed)
    measured = {}
    with threads.fixed(section.threads, section.seed):
        for name, folder in folders.items():
            measured[name] = bench.measure(name, folder)
    shutil.rmtree(context.scratch / "teacher_logits")
    return Report(
        phase="evaluation",
        subject=context.one("checkpoint").digest,
        metrics=tuple(m for n in measured for m in metrics_of(n, measured[n], bootstrap)),
        details={
            "split": "evaluation",
            "examples": len(tasks),
            "interval": "95 %: bootstrap over examples for means, Wilson for shares",
            **{name: rows_of(found) for name, found in measured.items()},
        },
    )


# --- what is compared -----------------------------------------------------------------------------


def _model_folders(context: Context) -> Iterator[tuple[str, Path]]:
    """Name -> Hugging Face folder of every model, the teacher first."""
    yield "teacher", _teacher_folder(context.one("teacher"), context.scratch)
    untrained = context.maybe("untrained")
    if untrained is not None:
        yield "untrained", untrained.path
    yield "trained", context.one("checkpoint").path


def _teacher_folder(teacher: Input, scratch: Path) -> Path:
    if teacher.form == "tree":
        return teacher.path
    folder = scratch / "teacher"
    dequantise(teacher.path, folder)
    return folder


def _shared_tokenizer(dataset: Path, folders: dict[str, Path]) -> ChatTokenizer:
    """The teacher's tokenizer, when every model and the dataset have the very same.

    Distributions over different vocabularies have no distance. Raises PhaseError,
    UntrustedFileError.
    """
    expected = read_header(dataset).tokenizer
    sizes = {}
    for name, folder in folders.items():
        check_model_folder(folder)
        sizes[name] = read_config(folder).vocab_size
        with reading(folder / "tokenizer.json"):
            found = hash_file(folder / "tokenizer.json").digest
        if found != expected:
            raise _incomparable(f"The {name} model has another tokenizer than the dataset")
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise _incomparable(f"The models differ in vocabulary size ({told})")
    return ChatTokenizer.load(folders["teacher"])


def _records(dataset: Path) -> list[Record]:
    records = read_split(dataset, "evaluation")
    if not records:
        raise PhaseError(
            "The dataset's evaluation split is empty, so there is nothing to measure on.",
            remedy="Use a dataset whose evaluation.jsonl holds examples.",
            code="evaluation.empty",
        )
    return records


def choose(
    records: Sequence[Record], tokenizer: ChatTokenizer, section: EvaluationSection
) -> tuple[Task, ...]:
    """What every model is asked: slots and free-form prompts in the split's own order.

    A slot is an argument of the right call; a free-form prompt is one that offers tools.
    """
    tasks, slots_left, free_left = [], section.slots, section.free_form
    for record in records:
        slots = slot_tasks(record, tokenizer)[:slots_left]
        free = bool(record.tools) and free_left > 0
        slots_left -= len(slots)
        free_left -= free
        tasks.append(Task(record=record, slots=slots, free=free))
    return tuple(tasks)


# --- measuring one model --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What every model is put on, one after the other."""

    tasks: Sequence[Task]
    tokenizer: ChatTokenizer
    kept: TeacherLogits
    free_budget: int
    progress: Progress

    def measure(self, name: str, folder: Path) -> Measured:
        """Load a model and measure it on every task; it is let go of on return."""
        model, _ = load_checkpoint(folder)
        found = Measured()
        for place, task in enumerate(self.tasks):
            self.progress(name, place, len(self.tasks))
            record = task.record
            spare = task.spare(self.free_budget)
            text = Reading(model, record.token_ids, record.answer_start, spare=spare)
            teacher = self._teacher(name, place, text)
            gold = torch.tensor(record.token_ids[record.answer_start :])
            found.distances.append((record.id, distance(text.logits, gold, teacher)))
            self._decode(found, text, task)
        self.progress(name, len(self.tasks), len(self.tasks))
        return found

    def _teacher(self, name: str, place: int, text: Reading) -> Tensor | None:
        """The teacher's logits on this example; None, and kept for later, when this is its own."""
        if name != "teacher":
            return self.kept.of(place)
        self.kept.keep(place, text.logits)
        return None

    def _decode(self, found: Measured, text: Reading, task: Task) -> None:
        record = task.record
        for slot in task.slots:
            written = decode_slot(text, slot, self.tokenizer)
            found.slots.append((record.id, slot.slot.argument, written))
        if task.free:
            prompt = record.token_ids[: record.answer_start]
            written = decode_freely(text, prompt, self.free_budget, self.tokenizer)
            found.free.append((record.id, written))


def _incomparable(what: str) -> PhaseError:
    return PhaseError(
        f"{what}, so they cannot be compared.",
        remedy="Evaluate models that were distilled from this teacher on this dataset.",
        code="evaluation.incomparable",
    )
