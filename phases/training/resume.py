"""What survives a kill: checkpoint folders in scratch, each complete or not there.

A resume point is a checkpoint tree (docs/phases.md): the last one is the product itself. Rules:
written beside, synced, renamed, so a folder named `step-N` is whole; tensors are safetensors and
the rest canonical JSON, never pickle; nothing in it depends on the clock.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch.optim import AdamW

from stillhouse.phases.models import Student, save_checkpoint, write_tensors
from stillhouse.phases.training.held_out import HeldOut
from stillhouse.schemas import canonical
from stillhouse.schemas.value import Value
from stillhouse.store.disk.durable import sync, sync_folder, writing

_STATE = "training_state.json"
_TENSORS = "training_state.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_RANDOM = "rng.torch"
_PREFIX = "step-"
_PARTIAL = ".partial"


class TrainPoint(Value):
    """One point of the learning curve: means over the answer positions of one step."""

    step: int
    """Counted from 1."""
    loss: float
    kl: float
    ce: float
    gradient_norm: float
    learning_rate: float


class Progress(Value):
    """`training_state.json`: how far a run is and what it has seen."""

    schema_version: Literal[1] = 1
    step: int = Field(ge=0)
    """Optimizer steps taken."""
    optimizer: Literal["AdamW"] = "AdamW"
    curve: tuple[TrainPoint, ...] = ()
    held_out: tuple[HeldOut, ...] = ()


def step_folder(scratch: Path, step: int) -> Path:
    """Where the resume point after `step` steps lies."""
    return scratch / f"{_PREFIX}{step:08d}"


def newest(scratch: Path) -> Path | None:
    """The latest whole resume point, if any; leftovers of a kill are removed."""
    for leftover in scratch.glob(f"*{_PARTIAL}"):
        shutil.rmtree(leftover)
    found = sorted(scratch.glob(f"{_PREFIX}*"))
    for outdated in found[:-1]:
        shutil.rmtree(outdated)
    return found[-1] if found else None


def save(
    scratch: Path, student: Student, optimizer: AdamW, progress: Progress, *, tokenizer: Path
) -> Path:
    """Write a resume point durably, then drop the one before. Raises StorageError."""

    def fill(folder: Path) -> None:
        save_checkpoint(student, folder, tokenizer_folder=tokenizer)
        write_tensors(_tensors(student, optimizer), folder / _TENSORS)
        (folder / _STATE).write_bytes(canonical.encode(progress.to_json()))

    folder = write_folder(step_folder(scratch, progress.step), fill)
    newest(scratch)
    return folder


def restore(folder: Path, student: Student, optimizer: AdamW) -> Progress:
    """Put moments and random state back; the weights were loaded with the folder itself."""
    tensors = load_file(folder / _TENSORS)
    progress = Progress.model_validate(canonical.decode((folder / _STATE).read_bytes()))
    for name, parameter in student.named_parameters():
        moments = {moment: tensors[f"{moment}.{name}"].clone() for moment in _MOMENTS}
        steps = torch.tensor(float(progress.step))
        optimizer.state[parameter] = {"step": steps, **moments}
    torch.set_rng_state(tensors[_RANDOM])
    return progress


def write_folder(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Make `folder` appear at once with what `fill` writes, durably. Raises StorageError."""
    partial = folder.with_name(folder.name + _PARTIAL)
    with writing(folder.parent):
        shutil.rmtree(partial, ignore_errors=True)
        fill(partial)
        for file in partial.iterdir():
            with file.open("rb") as opened:
                sync(opened.fileno())
        sync_folder(partial)
        partial.rename(folder)
        sync_folder(folder.parent)
    return folder


def _tensors(student: Student, optimizer: AdamW) -> dict[str, torch.Tensor]:
    moments = {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in student.named_parameters()
        for moment in _MOMENTS
    }
    return {**moments, _RANDOM: torch.get_rng_state()}
