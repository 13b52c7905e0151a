"""Model folders: Hugging Face's layout, safetensors only.

Owns reading and writing checkpoints, and where a student's first weights come from. Rules: a folder
is checked (phases/untrusted) before it is opened: every tensor must be there, with its shape, and
nothing else may be, so that no weight is silently left random or silently dropped; equal weights
give equal bytes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stillhouse.phases.models.config import StudentConfig
from stillhouse.phases.models.llama import Student
from stillhouse.phases.untrusted import check_model_folder, check_student_shapes
from stillhouse.phases.untrusted.reading import read_json
from stillhouse.schemas.errors import InputError
from stillhouse.store.disk.durable import reading, writing

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)
"""What travels with a model's weights, when it is there."""

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_HEAD = "lm_head.weight"
_EMBEDDING = "model.embed_tokens.weight"
_LAYERS = "model.layers."
_MAX_CONFIG = 16 << 20
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def read_config(folder: Path) -> StudentConfig:
    """Read `config.json`. Raises InputError when it is missing, malformed or unsupported."""
    path = folder / "config.json"
    return StudentConfig.from_json(read_json(path, limit=_MAX_CONFIG, code="model.bad_config"))


def load_checkpoint(folder: Path) -> tuple[Student, StudentConfig]:
    """Read a model and its config from a Hugging Face folder; weights become fp32.

    Raises UntrustedFileError when the folder is not safe to open, or naming the tensor that is
    missing, surplus or misshapen; InputError when this model cannot express its config.
    """
    config = _checked(folder)
    with _tensors(folder) as read:
        return _filled(config, read), config


def save_checkpoint(
    student: Student,
    folder: Path,
    *,
    tokenizer_folder: Path | None = None,
) -> None:
    """Write `config.json`, `model.safetensors` (fp32) and the tokenizer's files.

    Equal weights give equal bytes: safetensors orders tensors itself, and the header holds nothing
    else that varies. Raises StorageError.
    """
    config = json.dumps(student.config.to_json(), indent=2, sort_keys=True)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(config + "\n", encoding="utf-8")
        for name in TOKENIZER_FILES if tokenizer_folder else ():
            if tokenizer_folder and (tokenizer_folder / name).is_file():
                shutil.copyfile(tokenizer_folder / name, folder / name)
    tensors = {name: t.detach().to(torch.float32) for name, t in student.state_dict().items()}
    write_tensors(tensors, folder / _WEIGHTS, metadata={"format": "pt"})


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, *, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file. Raises StorageError.

    The library tells what the disk said only in the text of an error of its own.
    """
    with writing(path.parent):
        try:
            save_file({name: t.contiguous() for name, t in tensors.items()}, path, metadata)
        except SafetensorError as error:
            number = _OS_ERROR.search(str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def from_teacher_layers(teacher_folder: Path, layers: Sequence[int]) -> Student:
    """Make a student of some of the teacher's layers, in the given order; the rest is shared.

    Raises InputError when a layer does not exist or is listed twice, and what load_checkpoint does.
    """
    config = _checked(teacher_folder)
    _check_layers(layers, config.num_hidden_layers)

    def source(name: str) -> str:
        if not name.startswith(_LAYERS):
            return name
        number, _, rest = name.removeprefix(_LAYERS).partition(".")
        return f"{_LAYERS}{layers[int(number)]}.{rest}"

    with _tensors(teacher_folder) as read:
        return _filled(
            replace(config, num_hidden_layers=len(layers)), lambda name: read(source(name))
        )


def from_shape(teacher: StudentConfig, sizes: Mapping[str, int], *, seed: int) -> Student:
    """Make a student of other sizes: weights normal(0, initializer_range), norms one.

    `sizes` are the five of a recipe's student section (`hidden_size` … `num_key_value_heads`); the
    vocabulary, positions and tokens are the teacher's. Same seed, same weights.
    """
    width, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    if width % heads:
        raise InputError(
            f"hidden_size {width} cannot be split over {heads} attention heads.",
            remedy="Choose a hidden_size that is a multiple of num_attention_heads.",
            code="student.shape",
        )
    config = replace(
        teacher,
        hidden_size=width,
        intermediate_size=sizes["intermediate_size"],
        num_hidden_layers=sizes["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=sizes["num_key_value_heads"],
        head_dim=width // heads,
    )
    student = Student(config)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, config.initializer_range, generator=random)
    return student


def _checked(folder: Path) -> StudentConfig:
    """Refuse what must not be opened, before any memory is asked for."""
    summary = check_model_folder(folder)
    config = StudentConfig.from_json(summary.config)
    check_student_shapes(summary.config, summary.tensors)
    if config.tie_word_embeddings and _HEAD in summary.tensors:
        _expect_tied(folder)
    return config


def _expect_tied(folder: Path) -> None:
    """Some writers save the tied head a second time; then it must be the embedding table."""
    with _tensors(folder) as read:
        if not torch.equal(read(_HEAD), read(_EMBEDDING)):
            raise InputError(
                f"config.json ties the embeddings, but {_HEAD} differs from {_EMBEDDING}.",
                remedy="Set tie_word_embeddings to false, or save the model again.",
                code="student.untied",
            )


@contextmanager
def _tensors(folder: Path) -> Iterator[Callable[[str], Tensor]]:
    """Open the weights of a checked folder; what is given reads one tensor as a copy in fp32."""
    with ExitStack() as stack:
        opened: dict[str, safe_open] = {}
        for path in _weight_files(folder):
            with reading(path):
                file = stack.enter_context(safe_open(path, framework="pt"))
            opened.update(dict.fromkeys(file.keys(), file))

        def read(name: str) -> Tensor:
            tensor: Tensor = opened[name].get_tensor(name)  # type: ignore[no-untyped-call]  # Rust
            return tensor.to(torch.float32, copy=True)

        yield read


def _weight_files(folder: Path) -> list[Path]:
    """One file, or the shards of an index; the one file wins, as in transformers."""
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    index = json.loads((folder / _INDEX).read_bytes())
    return [folder / name for name in sorted(set(index["weight_map"].values()))]


def _filled(config: StudentConfig, read: Callable[[str], Tensor]) -> Student:
    """Make a student of this config with the tensor `read(name)` for each parameter."""
    with torch.device("meta"):
        student = Student(config)
    state = {name: read(name) for name in student.state_dict()}
    student.load_state_dict(state, assign=True)
    return student


def _check_layers(layers: Sequence[int], available: int) -> None:
    for number in layers:
        if not 0 <= number < available:
            raise InputError(
                f"The teacher has no layer {number}.",
                remedy=f"List layers from 0 to {available - 1} in [student].",
                code="student.layer_range",
            )
    if len(set(layers)) != len(layers):
        twice = next(number for number in layers if list(layers).count(number) > 1)
        raise InputError(
            f"Layer {twice} is listed twice.",
            remedy="List each teacher layer at most once in [student].",
            code="student.layer_twice",
        )
