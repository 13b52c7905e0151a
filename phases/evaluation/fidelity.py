"""Teacher-forced distances: how near a model's distributions are to the teacher's on right answers.

Full vocabulary, answer positions only, EOS included. The teacher's logits wait in scratch, one file
an example, so that one model at a time is in memory; they are kept in fp32, because a rounding of
1/2048 of a logit of 30 would show in a KL of a few thousandths.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stillhouse.phases.numerics.distances import kl_full, negative_log_likelihood, top1_agreement


@dataclass(frozen=True, kw_only=True)
class Distance:
    """Means over the answer positions of one example."""

    positions: int
    nll: float
    """Of the right answer's tokens, nats per position."""
    kl: float | None = None
    """KL(teacher || model), nats per position; None for the teacher itself."""
    top1_agreement: float | None = None


class TeacherLogits:
    """The teacher's logits on every example, on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, place: int, logits: Tensor) -> None:
        """Remember [n, V] of the example at `place`."""
        np.save(self._file(place), logits.numpy(), allow_pickle=False)

    def of(self, place: int) -> Tensor:
        """[n, V] as it was kept."""
        return torch.from_numpy(np.load(self._file(place), allow_pickle=False))

    def _file(self, place: int) -> Path:
        return self._folder / f"{place}.npy"


def distance(logits: Tensor, gold_ids: Tensor, teacher: Tensor | None) -> Distance:
    """How far [n, V] logits are from the right tokens [n] and the teacher's [n, V], if given."""
    nll = negative_log_likelihood(logits, gold_ids)
    if teacher is None:
        return Distance(positions=len(gold_ids), nll=_mean(nll))
    return Distance(
        positions=len(gold_ids),
        nll=_mean(nll),
        kl=_mean(kl_full(teacher, logits)),
        top1_agreement=_mean(top1_agreement(teacher, logits)),
    )


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
