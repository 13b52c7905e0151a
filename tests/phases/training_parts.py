"""A tiny teacher, a tiny dataset that it scored, and a context to train in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillhouse.phases.contract import Context, Input, Put
from stillhouse.phases.data.records import (
    CacheHeader,
    CacheRow,
    DatasetHeader,
    Message,
    Record,
    Split,
    content_id,
    write_cache,
    write_cache_header,
    write_header,
    write_split,
)
from stillhouse.phases.models import (
    Student,
    StudentConfig,
    from_shape,
    load_checkpoint,
    save_checkpoint,
)
from stillhouse.phases.training.examples import Example
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.trees.trees import put_tree

V, K, EOS = 64, 6, 2
TAUGHT_EOS = 5
"""What the data set says ends an answer; the teacher's config knows only EOS."""
CONFIG = StudentConfig(
    vocab_size=V,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    tie_word_embeddings=True,
    initializer_range=0.2,
    eos_token_ids=(EOS,),
)
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TRAINING: dict[str, Any] = {
    "steps": 7,
    "batch_size": 2,
    "grad_accumulation": 2,
    "learning_rate": 5e-3,
    "warmup_steps": 2,
    "checkpoint_every": 2,
    "evaluate_every": 3,
    "threads": 1,
}


def a_student(seed: int = 0) -> Student:
    return from_shape(CONFIG, SIZES, seed=seed)


def a_record(seed: int) -> Record:
    random = np.random.default_rng(seed)
    prompt, answer = random.integers(3, V, random.integers(3, 9)), random.integers(3, V, 4)
    answer = answer[: random.integers(1, 5)]
    messages = (Message(role="user", content=f"question {seed}"),)
    return Record(
        id=content_id(messages, (), str(seed)),
        messages=messages,
        answer=str(seed),
        prompt=f"question {seed}",
        token_ids=(*prompt.tolist(), *answer.tolist(), EOS),
        answer_start=len(prompt),
    )


def scored(teacher: Student, record: Record, k: int = K) -> CacheRow:
    """What the dataset phase would cache of this record."""
    with torch.no_grad():
        logits = teacher(torch.tensor([record.token_ids]))[0, record.answer_start - 1 : -1]
    logprobs = logits.log_softmax(-1)
    top = logprobs.topk(k)
    rest = logprobs.scatter(-1, top.indices, -torch.inf).logsumexp(-1)
    return CacheRow(
        n=record.answer_length,
        top_ids=top.indices.numpy(),
        top_logprobs=top.values.half().float().numpy(),
        tail=rest.numpy(),
    )


def an_example(teacher: Student, seed: int) -> Example:
    record = a_record(seed)
    return Example(
        token_ids=record.token_ids,
        answer_start=record.answer_start,
        cached=scored(teacher, record),
    )


def write_inputs(root: Path) -> dict[str, Path]:
    """The three inputs of a training run, as folders by role."""
    folders = {role: root / role for role in ("dataset", "teacher_cache", "teacher_model")}
    save_checkpoint(a_student(seed=11), folders["teacher_model"])
    (folders["teacher_model"] / "tokenizer.json").write_bytes(b"{}")
    teacher, _ = load_checkpoint(folders["teacher_model"])
    header = CacheHeader(key="0" * 64, k=K, vocab_size=V, teacher="1" * 64)
    splits: dict[Split, range] = {"train": range(48), "held_out": range(100, 104)}
    for split, seeds in splits.items():
        records = [a_record(seed) for seed in seeds]
        write_split(folders["dataset"], split, records)
        rows = {str(r.id): scored(teacher, r) for r in records}
        write_cache(folders["teacher_cache"], split, rows, vocab_size=V)
    write_cache_header(folders["teacher_cache"], header)
    described = DatasetHeader(
        tokenizer="2" * 64,
        counts={split: len(seeds) for split, seeds in splits.items()},
        top_k=K,
        teacher="tiny",
        answers="given",
        eos_token_id=TAUGHT_EOS,
    )
    write_header(folders["dataset"], described)
    return folders


class StoreSink:
    """The store as a phase sees it."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def put_file(self, path: Path, *, sha256: bool = False) -> Put:
        found = self._store.put_file(path, sha256=sha256)
        return Put(digest=found.digest, size=found.size, files=())

    def put_tree(self, folder: Path, *, sha256: bool = False) -> Put:
        found = put_tree(self._store, folder, sha256=sha256)
        return Put(digest=found.digest, size=found.payload, files=found.files)


def silent(_label: str, _done: int, _total: int, **_figures: float) -> None:
    """Tell nobody."""


def a_context(
    inputs: dict[str, Path],
    home: Path,
    *,
    progress: Callable[..., None] = silent,
    layers: tuple[int, ...] = (0, 2),
    **changes: Any,
) -> Context:
    """A context with scratch and store in `home`; `changes` go into the training section."""
    scratch = home / "work"
    scratch.mkdir(parents=True, exist_ok=True)
    digest: Digest = "0" * 64
    return Context(
        slot="training",
        params={"student": {"layers": list(layers)}, "training": TRAINING | changes},
        inputs={
            role: (
                Input(
                    role=role, digest=digest, kind=Kind.DATASET, form="tree", path=path, facts={}
                ),
            )
            for role, path in inputs.items()
        },
        scratch=scratch,
        sink=StoreSink(BlobStore.create(home / "objects")),
        progress=progress,
    )
