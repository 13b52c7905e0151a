"""Tiny models over a byte-level vocabulary, and a dataset of calls to evaluate them on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from stillhouse.phases.contract import Context, Input, Put
from stillhouse.phases.data.calls import Call, call_text
from stillhouse.phases.data.records import (
    DatasetHeader,
    Message,
    Record,
    content_id,
    write_header,
    write_split,
)
from stillhouse.phases.models import Student, StudentConfig, from_shape, save_checkpoint
from stillhouse.phases.teachers import ChatTokenizer
from stillhouse.schemas.artifact import Form, Kind
from stillhouse.store.disk.hashing import hash_bytes, hash_file
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.trees.trees import put_tree

EOS = 256
CONFIG = StudentConfig(
    vocab_size=257,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    tie_word_embeddings=True,
    initializer_range=0.4,
    eos_token_ids=(EOS,),
)
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
SECTION = {"slots": 6, "free_form": 2, "max_new_tokens": 6, "resamples": 100, "threads": 1}


def a_student(seed: int, config: StudentConfig = CONFIG) -> Student:
    return from_shape(config, SIZES, seed=seed)


def write_tokenizer(folder: Path, *, extra: str = "<|end|>") -> None:
    """One token a byte, and one that ends an answer."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([extra])
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": extra}))


def write_model(folder: Path, student: Student) -> Path:
    save_checkpoint(student, folder)
    write_tokenizer(folder)
    return folder


def a_tokenizer(folder: Path) -> ChatTokenizer:
    write_tokenizer(folder)
    return ChatTokenizer.load(folder)


def a_record(
    tokenizer: ChatTokenizer,
    arguments: Mapping[str, Any],
    acceptable: Mapping[str, Sequence[Any]] | None = None,
    question: str = "do it",
) -> Record:
    """One call of the function `act`; without arguments, an answer that is no call."""
    tool = {"name": "act", "description": "", "parameters": {"type": "object", "properties": {}}}
    answer = call_text(Call(name="act", arguments=dict(arguments))) if arguments else "No."
    messages = (Message(role="user", content=question),)
    prompt = f"{question}\n"
    prompt_ids = tokenizer.encode(prompt)
    return Record(
        id=content_id(messages, (tool,), answer),
        messages=messages,
        tools=(tool,),
        functions=("act",),
        answer=answer,
        acceptable=None if acceptable is None else {k: tuple(v) for k, v in acceptable.items()},
        prompt=prompt,
        token_ids=(*prompt_ids, *tokenizer.encode(answer), EOS),
        answer_start=len(prompt_ids),
    )


def write_dataset(folder: Path, records: Sequence[Record], tokenizer_of: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    header = DatasetHeader(
        tokenizer=hash_file(tokenizer_of / "tokenizer.json").digest,
        counts={"train": 0, "held_out": 0, "evaluation": len(records)},
        top_k=4,
        teacher="tiny",
        answers="given",
        eos_token_id=EOS,
    )
    write_header(folder, header)
    write_split(folder, "evaluation", records)
    return folder


class Sink:
    """A store in a folder."""

    def __init__(self, folder: Path) -> None:
        self.store = BlobStore.create(folder)

    def put_file(self, path: Path, *, sha256: bool = False) -> Put:
        stored = self.store.put_file(path, sha256=sha256)
        return Put(digest=stored.digest, size=stored.size, files=())

    def put_tree(self, folder: Path, *, sha256: bool = False) -> Put:
        stored = put_tree(self.store, folder, sha256=sha256)
        return Put(digest=stored.digest, size=stored.payload, files=stored.files)


def silent(label: str, done: int, total: int, **figures: float) -> None:
    assert 0 <= done <= total, (label, figures)


def an_input(role: str, kind: Kind, path: Path) -> Input:
    form: Form = "tree" if path.is_dir() else "blob"
    digest = hash_bytes(role.encode()).digest
    return Input(role=role, digest=digest, kind=kind, form=form, path=path, facts={})


def a_context(folder: Path, paths: Mapping[str, Path], **section: int) -> Context:
    kinds = {
        "teacher": Kind.TEACHER,
        "checkpoint": Kind.CHECKPOINT,
        "untrained": Kind.BASELINE,
        "dataset": Kind.DATASET,
    }
    (folder / "work").mkdir(parents=True)
    return Context(
        slot="evaluation",
        params={"evaluation": SECTION | section},
        inputs={role: (an_input(role, kinds[role], path),) for role, path in paths.items()},
        scratch=folder / "work",
        sink=Sink(folder / "objects"),
        progress=silent,
    )


def a_bench(folder: Path, *, trained: Student | None = None) -> dict[str, Path]:
    """Inputs of an evaluation run: three random models and eight calls."""
    tokenizer = a_tokenizer(folder / "tokenizer")
    records = [
        a_record(tokenizer, {"city": name, "count": n}, question=f"ask {n}")
        for n, name in enumerate(("Oslo", "Lima", "Rome", "Bonn", "Cork", "Nice", "Kiel"))
    ]
    records.append(a_record(tokenizer, {}, question="refuse"))
    paths = {
        "teacher": write_model(folder / "teacher", a_student(1)),
        "untrained": write_model(folder / "untrained", a_student(2)),
        "checkpoint": write_model(folder / "checkpoint", trained or a_student(3)),
    }
    paths["dataset"] = write_dataset(folder / "dataset", records, paths["teacher"])
    return paths


def with_vocabulary(size: int) -> StudentConfig:
    return replace(CONFIG, vocab_size=size)
