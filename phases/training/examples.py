"""What is learnt and in which order: examples, batches, and the order of a whole run.

The offset rule, in one place: the model's output at position `answer_start - 1 + i` predicts token
`answer_start + i`, and row i of the cache is the teacher's opinion of that same token. The last
token (EOS) is predicted but never read, so it is not fed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stillhouse.phases.data import records
from stillhouse.schemas.errors import PhaseError

_WINDOW = 8
"""Optimizer steps whose examples are sorted by length together. More would pad less, but would also
make batches of one length follow each other over a larger part of the run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One text with the teacher's opinion of its answer."""

    token_ids: Sequence[int]
    """Prompt, answer, EOS."""
    answer_start: int
    cached: records.CacheRow

    @property
    def fed(self) -> int:
        """Tokens that the model reads."""
        return len(self.token_ids) - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Examples side by side, padded on the right. N counts the answer positions of all of them."""

    input_ids: Tensor
    """[B, T] int64."""
    rows: Tensor
    """[N]: which example a position belongs to …"""
    columns: Tensor
    """[N]: … and where in it the prediction is made."""
    gold_ids: Tensor
    """[N]: the token that comes next."""
    top_ids: Tensor
    """[N, k] int64."""
    top_logprobs: Tensor
    """[N, k] fp32."""
    tail: Tensor
    """[N] fp32."""

    @property
    def positions(self) -> int:
        """N."""
        return len(self.rows)


def read_examples(
    dataset: Path, cache: Path, split: records.Split, *, vocab_size: int
) -> list[Example]:
    """The examples of a split, in file order.

    Raises PhaseError when dataset, cache and student do not belong together.
    """
    known = records.read_cache_header(cache).vocab_size
    if known != vocab_size:
        raise _mismatch(f"the cache is over {known} tokens, the student over {vocab_size}")
    rows = records.read_cache(cache, split)
    found = [_example(record, rows.get(record.id)) for record in records.read_split(dataset, split)]
    if not found:
        raise _mismatch(f"the split {split} is empty")
    highest = max(max(example.token_ids) for example in found)
    if highest >= vocab_size:
        raise _mismatch(f"{split} has the token {highest}, the student knows {vocab_size}")
    return found


def _example(record: records.Record, row: records.CacheRow | None) -> Example:
    if row is None:
        raise _mismatch(f"the cache lacks the record {record.id}")
    if row.n != record.answer_length:
        raise _mismatch(
            f"the cache has {row.n} positions for the record {record.id},"
            f" its answer has {record.answer_length}"
        )
    return Example(token_ids=record.token_ids, answer_start=record.answer_start, cached=row)


def _mismatch(what: str) -> PhaseError:
    return PhaseError(
        f"Dataset, teacher cache and student do not fit together: {what}.",
        remedy="Build dataset and cache in one run of the dataset phase, with this teacher.",
        code="training.mismatch",
    )


def order(lengths: Sequence[int], *, steps: int, per_step: int, seed: int) -> list[list[int]]:
    """Which examples each optimizer step sees: `steps` lists of `per_step` indices.

    Epochs are seeded permutations, one after the other, so counts differ by at most one. Within a
    window of steps the examples are sorted by length, so that neighbours in a batch pad little, and
    the resulting batches are shuffled. Pure: a resumed run computes the same order.
    """
    wanted = steps * per_step
    epochs = -(-wanted // len(lengths))
    stream = np.concatenate(
        [np.random.default_rng([seed, epoch]).permutation(len(lengths)) for epoch in range(epochs)]
    )[:wanted]
    planned: list[list[int]] = []
    for start in range(0, steps, _WINDOW):
        window = stream[start * per_step : (start + _WINDOW) * per_step].tolist()
        window.sort(key=lambda index: lengths[index])  # stable: ties keep their shuffled order
        groups = [window[i : i + per_step] for i in range(0, len(window), per_step)]
        shuffled = np.random.default_rng([seed, epochs, start]).permutation(len(groups))
        planned += [groups[i] for i in shuffled]
    return planned


def batches(examples: Sequence[Example], size: int) -> list[Batch]:
    """Cut examples, in the given order, into batches of `size` (the last may be smaller)."""
    return [collate(examples[i : i + size]) for i in range(0, len(examples), size)]


def collate(examples: Sequence[Example]) -> Batch:
    """Pad with 0 on the right; a causal mask keeps padding from every real position."""
    input_ids = torch.zeros(len(examples), max(e.fed for e in examples), dtype=torch.long)
    for row, example in enumerate(examples):
        input_ids[row, : example.fed] = torch.tensor(example.token_ids[:-1])
    cached = [example.cached for example in examples]
    return Batch(
        input_ids=input_ids,
        rows=torch.cat([torch.full((e.cached.n,), row) for row, e in enumerate(examples)]),
        columns=torch.cat([torch.arange(e.answer_start - 1, e.fed) for e in examples]),
        gold_ids=torch.cat([torch.tensor(e.token_ids[e.answer_start :]) for e in examples]),
        top_ids=torch.from_numpy(np.concatenate([c.top_ids for c in cached])),
        top_logprobs=torch.from_numpy(np.concatenate([c.top_logprobs for c in cached])),
        tail=torch.from_numpy(np.concatenate([c.tail for c in cached])),
    )
