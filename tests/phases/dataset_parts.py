"""A tiny real teacher, sources, and a context to build data sets in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillhouse.phases import dataset
from stillhouse.phases.contract import Context, Input, Progress, Put
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.recipe import DatasetSection, Recipe, TeacherSection
from stillhouse.store.disk.hashing import hash_file
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.trees.trees import put_tree

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKS = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
LINES = (
    'Answer with one JSON call: {"name":...,"arguments":{...}}',
    'What is the weather in Oslo? {"name":"get_weather","arguments":{"city":"Oslo","days":3}}',
    "find the invoice of the user in Berlin and send it to the city office",
)


def write_tokenizer(folder: Path, *, template: str | None = TEMPLATE) -> int:
    """A byte-level BPE tokenizer trained on a few lines; its vocabulary's size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {"eos_token": "<|end|>"}
    if template is not None:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    size: int = tokenizer.get_vocab_size()
    return size


def write_teacher(folder: Path, *, seed: int = 0, template: str | None = TEMPLATE) -> Path:
    """A random two-layer Llama as a Hugging Face folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True)
    size = write_tokenizer(folder, template=template)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.8,  # logits far apart, so that bf16 makes no ties
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=None,
    )
    from transformers.utils import logging

    logging.disable_progress_bar()
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def weather_line(number: int, *, function: str | None = None, **changes: Any) -> dict[str, Any]:
    """One question about a function of its own (or of `function`), with its right call."""
    name = function or f"weather_{number}"
    tool = {
        "name": name,
        "description": "",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    }
    answer = json.dumps({"name": name, "arguments": {"city": "Oslo"}}, separators=(",", ":"))
    line = {"prompt": f"weather in city {number}?", "tools": [tool], "answer": answer}
    return line | changes


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


class Sink:
    """The store, as the worker offers it."""

    def __init__(self, root: Path) -> None:
        self.store = BlobStore.create(root)

    def put_file(self, path: Path, *, sha256: bool = False) -> Put:
        del sha256
        stored = self.store.put_file(path)
        return Put(digest=stored.digest, size=stored.size, files=())

    def put_tree(self, folder: Path, *, sha256: bool = False) -> Put:
        del sha256
        stored = put_tree(self.store, folder)
        return Put(digest=stored.digest, size=0, files=())


def quietly(label: str, done: int, total: int, **figures: float) -> None:
    """Say nothing."""


def a_context(
    folder: Path,
    teacher: Path,
    sources: Sequence[dict[str, Any]],
    *,
    progress: Progress = quietly,
    **section: Any,
) -> Context:
    """A context for the slot that a recipe over `sources` asks for; their refs are paths."""
    sink = Sink(folder / "store")
    files: dict[str, Path] = {}

    def digest(ref: str) -> str:
        files[hash_file(Path(ref)).digest] = Path(ref)
        return hash_file(Path(ref)).digest

    named = [
        {k: digest(v) if k in ("questions", "answers") else v for k, v in source.items()}
        for source in sources
    ]
    given = {"answers": "given", "top_k": 8, "max_tokens": 200, "threads": 1} | section
    whole = DatasetSection.model_validate({"sources": named, **given})
    model = sink.put_tree(teacher).digest if teacher.is_dir() else digest(str(teacher))
    recipe = Recipe(
        name="test",
        policy="p",
        teacher=TeacherSection(model=model, name="tiny"),
        dataset=whole,
    )
    (slot,) = dataset.SPEC.slots(recipe)
    inputs: dict[str, list[Input]] = {}
    for need in slot.needs:
        assert need.digest is not None
        made = Input(
            role=need.role,
            digest=need.digest,
            kind=Kind.TEACHER if need.role == "teacher" else Kind.SOURCE,
            form="tree" if need.role == "teacher" and teacher.is_dir() else "blob",
            path=teacher if need.role == "teacher" else files[need.digest],
            facts={},
        )
        inputs.setdefault(need.role, []).append(made)
    scratch = folder / "work"
    scratch.mkdir(parents=True, exist_ok=True)
    return Context(
        slot=slot.id,
        params=slot.params,
        inputs=inputs,
        scratch=scratch,
        sink=sink,
        progress=progress,
    )
