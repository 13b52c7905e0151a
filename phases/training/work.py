"""The distillation run: read, start or resume, step, measure, write.

Steps: 1 read sections and inputs; 2 make the untrained student and keep it as the baseline; 3 take
up the newest resume point, if a killed attempt left one; 4 train, measuring and saving on the way;
5 describe the checkpoint in a report.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch.optim import AdamW

from stillhouse.phases.contract import Context
from stillhouse.phases.data.records import read_header
from stillhouse.phases.models import (
    Student,
    from_shape,
    from_teacher_layers,
    load_checkpoint,
    read_config,
    save_checkpoint,
)
from stillhouse.phases.numerics.distances import perplexity
from stillhouse.phases.numerics.threads import fixed
from stillhouse.phases.training import resume
from stillhouse.phases.training.examples import Example, batches, order, read_examples
from stillhouse.phases.training.held_out import HeldOut, measure
from stillhouse.phases.training.resume import Progress, TrainPoint
from stillhouse.phases.training.step import learning_rate, optimizer_of, take_step
from stillhouse.schemas.artifact import Kind, Product
from stillhouse.schemas.recipe import StudentSection, TrainingSection
from stillhouse.schemas.report import Metric, Report, metric

_UNTRAINED = "untrained"


@dataclass(kw_only=True)
class Run:
    """One training run under way."""

    context: Context
    section: TrainingSection
    student: Student
    optimizer: AdamW
    train: list[Example]
    held_out: list[Example]
    step: int = 0
    """Optimizer steps taken."""
    curve: list[TrainPoint] = field(default_factory=list)
    points: list[HeldOut] = field(default_factory=list)


def distil(context: Context, *, clock: Callable[[], float] = time.monotonic) -> tuple[Product, ...]:
    """Train the student that the slot asks for. Raises PhaseError, InputError, StorageError."""
    section = TrainingSection.model_validate(context.params["training"])
    shape = StudentSection.model_validate(context.params["student"])
    with fixed(section.threads, section.seed):
        _keep_untrained(context, shape, seed=section.seed)
        torch.manual_seed(section.seed)  # as if this attempt had found the weights there
        run = _begin(context, section)
        _train(run, clock)
        return _products(run)


def _keep_untrained(context: Context, shape: StudentSection, *, seed: int) -> None:
    """Write the student's first weights once; a later attempt finds them."""
    folder = context.scratch / _UNTRAINED
    if folder.is_dir():
        return
    teacher = context.one("teacher_model").path
    student = _first_student(teacher, shape, seed=seed)
    # What ends an answer here must end one on the device, whatever the teacher's config says.
    taught = read_header(context.one("dataset").path).eos_token_id
    ends = tuple(sorted({*student.config.eos_token_ids, taught}))
    student.config = replace(student.config, eos_token_ids=ends)
    resume.write_folder(
        folder, lambda partial: save_checkpoint(student, partial, tokenizer_folder=teacher)
    )


def _first_student(teacher: Path, shape: StudentSection, *, seed: int) -> Student:
    if shape.layers:
        return from_teacher_layers(teacher, shape.layers)
    sizes = shape.model_dump(exclude={"layers"})
    return from_shape(read_config(teacher), sizes, seed=seed)


def _begin(context: Context, section: TrainingSection) -> Run:
    """Start at step 0, or where a killed attempt left off."""
    found = resume.newest(context.scratch)
    student, config = load_checkpoint(found or context.scratch / _UNTRAINED)
    optimizer = optimizer_of(student, section)
    data = [
        read_examples(
            context.one("dataset").path,
            context.one("teacher_cache").path,
            split,
            vocab_size=config.vocab_size,
        )
        for split in ("train", "held_out")
    ]
    run = Run(
        context=context,
        section=section,
        student=student,
        optimizer=optimizer,
        train=data[0],
        held_out=data[1],
    )
    if found is not None:
        progress = resume.restore(found, student, optimizer)
        run.step, run.curve = progress.step, list(progress.curve)
        run.points = list(progress.held_out)
    return run


def _train(run: Run, clock: Callable[[], float]) -> None:
    section = run.section
    per_step = section.batch_size * section.grad_accumulation
    planned = order(
        [e.fed for e in run.train], steps=section.steps, per_step=per_step, seed=section.seed
    )
    if not run.points:
        _measure(run)
    for chosen in planned[run.step :]:
        started = clock()
        examples = [run.train[i] for i in chosen]
        _step(run, examples)
        speed = sum(e.fed for e in examples) / max(clock() - started, 1e-9)
        run.context.progress(
            "training step",
            run.step,
            section.steps,
            loss=run.curve[-1].loss,
            tokens_per_second=speed,
        )
        last = run.step == section.steps
        if last or run.step % section.evaluate_every == 0:
            _measure(run)
        if last or run.step % section.checkpoint_every == 0:
            _save(run)


def _step(run: Run, examples: list[Example]) -> None:
    figures = take_step(
        run.student,
        run.optimizer,
        batches(examples, run.section.batch_size),
        run.section,
        step=run.step,
    )
    run.curve.append(
        TrainPoint(
            step=run.step + 1,
            loss=figures.loss,
            kl=figures.kl,
            ce=figures.ce,
            gradient_norm=figures.gradient_norm,
            learning_rate=learning_rate(run.step, run.section),
        )
    )
    run.step += 1


def _measure(run: Run) -> None:
    run.points.append(
        measure(
            run.student,
            run.held_out,
            step=run.step,
            batch_size=run.section.batch_size,
            bf16=run.section.bf16,
        )
    )


def _save(run: Run) -> None:
    resume.save(
        run.context.scratch,
        run.student,
        run.optimizer,
        Progress(step=run.step, curve=tuple(run.curve), held_out=tuple(run.points)),
        tokenizer=run.context.one("teacher_model").path,
    )


def _products(run: Run) -> tuple[Product, ...]:
    scratch, config = run.context.scratch, run.student.config
    facts = {
        "parameters": sum(p.numel() for p in run.student.parameters()),
        "architecture": config.architecture().to_json(),
    }
    checkpoint = run.context.tree(
        "checkpoint",
        Kind.CHECKPOINT,
        resume.step_folder(scratch, run.step),
        facts={"step": run.step, **facts},
    )
    untrained = run.context.tree(
        "untrained", Kind.BASELINE, scratch / _UNTRAINED, facts={"step": 0, **facts}
    )
    report = Report(
        phase="training",
        subject=checkpoint.digest,
        metrics=_metrics(run),
        details={
            "curve": [point.to_json() for point in run.curve],
            "held_out": [point.to_json() for point in run.points],
            "precision": "bfloat16 autocast" if run.section.bf16 else "float32",
            "examples": {"train": len(run.train), "held_out": len(run.held_out)},
            **facts,
        },
    )
    return checkpoint, untrained, run.context.report(report)


def _metrics(run: Run) -> tuple[Metric, ...]:
    first, last = run.points[0], run.points[-1]
    nonfinite = sum(int((~torch.isfinite(p)).sum()) for p in run.student.parameters())

    def held_out(name: str, point: HeldOut, what: str, unit: str) -> Metric:
        share = getattr(point, what)
        interval = (share.low, share.high)
        return metric(
            f"held_out.{name}", share.mean, unit=unit, n=point.positions, interval=interval
        )

    nll = last.nll
    return (
        metric("steps", run.step, unit="count"),
        # A step that is not finite ends the run, so whoever reads this knows that none was.
        metric("nonfinite_steps", 0, unit="count"),
        metric("checkpoint.nonfinite", nonfinite, unit="count"),
        metric("train.loss_first", run.curve[0].loss, unit="nats"),
        metric("train.loss_last", run.curve[-1].loss, unit="nats"),
        held_out("kl", last, "kl", "nats/token"),
        held_out("untrained_kl", first, "kl", "nats/token"),
        held_out("top1_agreement", last, "top1_agreement", "fraction"),
        metric(
            "held_out.perplexity",
            perplexity(nll.mean, 1),
            n=last.positions,
            interval=(perplexity(nll.low, 1), perplexity(nll.high, 1)),
        ),
    )
