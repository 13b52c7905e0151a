"""Model folders in Hugging Face's layout: what may be opened, and what the weights are.

Refused: code (`*.py`, `auto_map` and its like), pickles under any name, archives that may hold
code, index files that point out of the folder, weights whose headers lie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.phases.untrusted.chat import MAX_TEMPLATE, check_chat_template
from stillhouse.phases.untrusted.pickles import find_pickle
from stillhouse.phases.untrusted.reading import read_bounded, read_json, refused, regular_files
from stillhouse.phases.untrusted.tensors import TensorFact, check_safetensors
from stillhouse.schemas.canonical import Json
from stillhouse.store.disk.durable import reading

_MAX_CONFIG = 1 << 20
_MAX_SETTINGS = 16 << 20
_MAX_JSON = 64 << 20
"""Bytes; the largest tokenizer.json in use have some 35 MB."""
_MAX_TEMPLATE_BYTES = 4 * MAX_TEMPLATE
_TOO_LARGE = "model.too_large"
_COMPLETE = "Download the folder again, complete, or save the model again."
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"

_CODE = (".py", ".pyc", ".pyd", ".so", ".dylib", ".dll")
# What torch.load, joblib and torch.export.load take, and unpickle.
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill")
_REMOTE_CODE = frozenset({"auto_map", "custom_pipelines", "custom_generate"})
"""Keys by which transformers finds code beside a model."""


@dataclass(frozen=True, kw_only=True)
class ModelFolderSummary:
    """A folder that may be opened."""

    model_type: str
    """`model_type` of config.json: `llama`, …"""
    config: Json
    """All of config.json."""
    tensors: Mapping[str, TensorFact]
    """By name, of the files that transformers would load."""
    parameters: int
    """Elements of these tensors together."""
    files: tuple[str, ...]
    """Every file, as a relative POSIX path, sorted."""


def check_model_folder(folder: Path) -> ModelFolderSummary:
    """Check a Hugging Face model folder before any library opens it.

    Raises UntrustedFileError with the first reason not to; InputError when it cannot be read.
    """
    files = regular_files(folder)
    config = _config(folder, files)
    for path in files.values():
        _refuse_code(path)
    _check_settings(files)
    tensors = _tensors(folder, files)
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise refused(
            files["config.json"],
            "has no model_type",
            code="model.bad_config",
            remedy="Save the model again with save_pretrained.",
        )
    return ModelFolderSummary(
        model_type=model_type,
        config=config,
        tensors=tensors,
        parameters=sum(math.prod(shape) for _, shape in tensors.values()),
        files=tuple(files),
    )


def _config(folder: Path, files: Mapping[str, Path]) -> Json:
    if "config.json" not in files:
        raise refused(
            folder,
            "has no config.json",
            code="model.no_config",
            remedy="Give a folder written by save_pretrained (config.json, *.safetensors).",
        )
    return read_json(files["config.json"], limit=_MAX_CONFIG, code="model.bad_config")


def _refuse_code(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in _CODE:
        raise refused(
            path,
            "is code, and code from outside is never run",
            code="model.code",
            remedy="Remove it; only models that transformers itself implements are supported.",
        )
    if suffix == ".pt2":
        raise refused(
            path,
            "is an export, and loading one that no recorded run made can run code",
            code="model.export",
            remedy="Remove it; the export phase makes its own from the weights.",
        )
    if suffix in _PICKLES:
        _refuse_pickle(path, "has a name that loaders unpickle")
    if suffix != ".safetensors":  # checked byte for byte, and its length field may look like one
        found = find_pickle(path)
        if found is not None:
            _refuse_pickle(path, found)


def _refuse_pickle(path: Path, what: str) -> None:
    raise refused(
        path,
        f"{what}, and loading a pickle runs whatever its author wished",
        code="model.pickle",
        remedy="Remove it, or convert the weights to safetensors (save_pretrained does).",
    )


def _check_settings(files: Mapping[str, Path]) -> None:
    for name, path in files.items():
        if name.endswith(".json"):
            _refuse_larger(path, _MAX_JSON)
        if name.endswith(".jinja"):
            _check_template(path)
        if not name.endswith("config.json"):
            continue
        settings = read_json(path, limit=_MAX_SETTINGS, code="model.bad_config")
        key = _remote_code(settings)
        if key is not None:
            raise refused(
                path,
                f"asks for code beside the model ({key})",
                code="model.remote_code",
                remedy=f"Use a model that transformers itself implements, or remove {key}"
                " if the model works without it.",
            )
        template = settings.get("chat_template")
        if isinstance(template, str):
            check_chat_template(template)


def _refuse_larger(path: Path, limit: int) -> None:
    with reading(path):
        size = path.stat().st_size
    if size > limit:
        raise refused(path, f"is larger than {limit} bytes", code=_TOO_LARGE, remedy=_COMPLETE)


def _check_template(path: Path) -> None:
    data = read_bounded(path, limit=_MAX_TEMPLATE_BYTES, code=_TOO_LARGE, remedy=_COMPLETE)
    check_chat_template(data.decode("utf-8", errors="replace"))


def _remote_code(settings: Json) -> str | None:
    waiting: list[Any] = [settings]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key in value:
                if key in _REMOTE_CODE:
                    return str(key)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return None


def _tensors(folder: Path, files: Mapping[str, Path]) -> dict[str, TensorFact]:
    """Check every safetensors file; return the tensors of those that transformers loads."""
    found = {
        name: dict(check_safetensors(path).tensors)
        for name, path in files.items()
        if name.endswith(".safetensors")
    }
    maps = {
        name: _weight_map(path, found)
        for name, path in files.items()
        if name.endswith(".safetensors.index.json")
    }
    if _WEIGHTS in found:
        return found[_WEIGHTS]
    if _INDEX in maps:
        return {name: found[file][name] for name, file in maps[_INDEX].items()}
    raise refused(
        folder,
        f"has neither {_WEIGHTS} nor {_INDEX}",
        code="model.no_weights",
        remedy="Save the weights as safetensors (save_pretrained does).",
    )


def _weight_map(path: Path, found: Mapping[str, Mapping[str, TensorFact]]) -> dict[str, str]:
    table = read_json(path, limit=_MAX_JSON, code="model.bad_index").get("weight_map")
    if not isinstance(table, dict) or not table:
        raise _bad_index(path, "has no weight_map")
    for tensor, file in table.items():
        if not isinstance(file, str) or not _is_plain(file):
            raise _bad_index(
                path, f"sends tensor {tensor!r} to {file!r}, which is no plain file name"
            )
        if file not in found:
            raise _bad_index(path, f"sends tensor {tensor!r} to {file!r}, which is not there")
        if tensor not in found[file]:
            raise _bad_index(path, f"sends tensor {tensor!r} to {file!r}, which does not hold it")
    return {str(tensor): str(file) for tensor, file in table.items()}


def _is_plain(file: str) -> bool:
    return file.endswith(".safetensors") and not set(file) & {"/", "\\", ":", "\0"}


def _bad_index(path: Path, what: str) -> Exception:
    return refused(
        path,
        what,
        code="model.bad_index",
        remedy=_COMPLETE,
    )
