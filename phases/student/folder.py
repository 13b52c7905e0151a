"""Model folders: Hugging Face's layout, safetensors only.

Owns reading and writing checkpoints, and where a student's first weights come from. Rules: a folder
is checked before it is opened; every tensor must be there, with its shape, and nothing else may be,
so that no weight is silently left random or silently dropped; equal weights give equal bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from phases.student.config import StudentConfig
from phases.student.model import Student
from schemas.errors import InputError

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


def read_config(folder: Path) -> StudentConfig:
    """Read `config.json`. Raises InputError when it is missing, malformed or unsupported."""
    return StudentConfig.from_json(_json(folder / "config.json"))


def load_checkpoint(folder: Path) -> tuple[Student, StudentConfig]:
    """Read a model and its config from a Hugging Face folder; weights become fp32.

    Raises UntrustedFileError when the folder is not safe to open, and InputError that names the
    tensor which is missing, unexpected or misshapen.
    """
    config = read_config(folder)
    with _Weights(folder) as weights:
        weights.expect_only(config)
        return _filled(config, weights, source=lambda name: name), config


def save_checkpoint(
    student: Student,
    folder: Path,
    *,
    tokenizer_folder: Path | None = None,
) -> None:
    """Write `config.json`, `model.safetensors` (fp32) and the tokenizer's files.

    Equal weights give equal bytes: safetensors orders tensors itself, and the header holds nothing
    else that varies. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(student.config.to_json(), indent=2, sort_keys=True)
    (folder / "config.json").write_text(config + "\n", encoding="utf-8")
    tensors = {
        name: tensor.detach().to(torch.float32).contiguous()
        for name, tensor in student.state_dict().items()
    }
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
    for name in TOKENIZER_FILES if tokenizer_folder else ():
        if tokenizer_folder and (tokenizer_folder / name).is_file():
            shutil.copyfile(tokenizer_folder / name, folder / name)


def from_teacher_layers(teacher_folder: Path, layers: Sequence[int]) -> Student:
    """Make a student of some of the teacher's layers, in the given order; the rest is shared.

    Raises InputError when a layer does not exist or is listed twice, and what load_checkpoint does.
    """
    config = read_config(teacher_folder)
    _check_layers(layers, config.num_hidden_layers)
    student_config = replace(config, num_hidden_layers=len(layers))

    def source(name: str) -> str:
        if not name.startswith(_LAYERS):
            return name
        number, _, rest = name.removeprefix(_LAYERS).partition(".")
        return f"{_LAYERS}{layers[int(number)]}.{rest}"

    with _Weights(teacher_folder) as weights:
        weights.expect_only(config)
        return _filled(student_config, weights, source=source)


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


class _Weights:
    """The tensors of one folder, opened lazily: one file, or an index with shards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = ExitStack()
        self._tensors: dict[str, safe_open] = {}
        """By tensor name, the open file that holds it."""

    def __enter__(self) -> Self:
        for file in self._files():
            try:
                opened = self._open.enter_context(safe_open(file, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise _unreadable(file, str(error)) from error
            for name in opened.keys():  # noqa: SIM118  # safe_open is not iterable
                self._tensors[name] = opened
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def read(self, name: str) -> Tensor:
        """Copy one tensor as fp32. Raises InputError that names it when it is missing."""
        if name not in self._tensors:
            raise InputError(
                f"The model in {self._folder.name} lacks the tensor {name}.",
                remedy="Use a complete checkpoint that matches its config.json.",
                code="student.tensor_missing",
            )
        tensor: Tensor = self._tensors[name].get_tensor(name)  # type: ignore[no-untyped-call]  # Rust
        return tensor.to(torch.float32, copy=True)

    def expect_only(self, config: StudentConfig) -> None:
        """Refuse tensors that a model of this config has no place for."""
        known = {*_shapes(config), _HEAD}
        surplus = sorted(n for n in self._tensors if n not in known and "rotary_emb" not in n)
        if surplus:
            raise InputError(
                f"The model in {self._folder.name} has the tensor {surplus[0]}"
                f" ({len(surplus)} such), which its config.json has no place for.",
                remedy="Use a checkpoint whose config.json matches its weights.",
                code="student.tensor_unexpected",
            )
        if config.tie_word_embeddings and _HEAD in self._tensors:
            self._expect_tied()

    def _expect_tied(self) -> None:
        if not torch.equal(self.read(_HEAD), self.read(_EMBEDDING)):
            raise InputError(
                f"config.json ties the embeddings, but {_HEAD} differs from {_EMBEDDING}.",
                remedy="Set tie_word_embeddings to false, or save the model again.",
                code="student.tensor_untied",
            )

    def _files(self) -> list[Path]:
        if not (self._folder / _INDEX).is_file():
            return [self._folder / _WEIGHTS]
        shards = _json(self._folder / _INDEX).get("weight_map")
        if not isinstance(shards, dict):
            raise _unreadable(self._folder / _INDEX, "it has no weight_map")
        return [self._folder / name for name in sorted({str(s) for s in shards.values()})]


def _shapes(config: StudentConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in Student(config).state_dict().items()}


def _filled(config: StudentConfig, weights: _Weights, *, source: Callable[[str], str]) -> Student:
    """Make a student of this config with the tensor `source(name)` for each parameter."""
    with torch.device("meta"):
        student = Student(config)
    state = {}
    for name, empty in student.state_dict().items():
        state[name] = weights.read(source(name))
        if state[name].shape != empty.shape:
            raise InputError(
                f"The tensor {source(name)} is {list(state[name].shape)},"
                f" but config.json makes it {list(empty.shape)}.",
                remedy="Use a checkpoint whose config.json matches its weights.",
                code="student.tensor_shape",
            )
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


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(value, dict):
        raise _unreadable(path, "it is not a JSON object")
    return value


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(
        f"{path.name} cannot be read: {why}.",
        remedy="Use a complete Hugging Face folder with safetensors weights.",
        code="student.unreadable",
    )
