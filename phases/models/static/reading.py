"""Reading a `.pt2` archive as data: nothing in it may name code.

`torch.export.load` runs code in at least five places: pickled weights, constants and example
inputs (it asks for `weights_only` and falls back without it by itself), compiled libraries, guards,
symbolic expressions (evaluated by sympy), and operators (`torch.os.system` is a path that it
resolves). So a reader of our own takes the archive's members from torch's own zip reader, holds
each against what our exports consist of, and gives torch the rest.

Rules: an allow-list, for names of members, fields of payloads and operators. Example inputs are
never read. What is checked is what is deserialised: both come from one reader.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram
from torch.export.pt2_archive._package import PT2ArchiveReader, _load_exported_programs

from stillhouse.schemas.errors import PhaseError

_MODEL = "models/model.json"
_WEIGHTS = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"
_EXAMPLES = "data/sample_inputs/model.pt"
_MEMBER = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
    rf"|{re.escape(_MODEL)}|{re.escape(_WEIGHTS)}|{re.escape(_CONSTANTS)}|{re.escape(_EXAMPLES)}"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+"
)
_OPERATOR = re.compile(r"torch\.ops\.aten\.\w+\.\w+")
_ENTRY = frozenset({"path_name", "is_param", "use_pickle", "tensor_meta"})
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")
_CODE = frozenset(
    {"expr_str", "as_expr", "as_graph", "as_custom_obj", "as_operator", "as_sym_int", "as_sym_bool"}
    | {"as_sym_ints", "as_sym_bools", "as_sym_float", "as_sym_floats"}
)
"""Fields of arguments that hold an expression, a graph, an object or a name that is resolved."""
_TREES = frozenset({"builtins.tuple", "builtins.list", "builtins.dict"})


_NO_ARCHIVE = (
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
)
"""What torch raises for bytes that have not the form that it expects."""


class _Reader(PT2ArchiveReader):
    """torch's reader, for which an archive has no example inputs."""

    def read_bytes(self, file_name: str) -> bytes:
        if file_name == _EXAMPLES:
            return b""
        found: bytes = super().read_bytes(file_name)
        return found


def read_program(path: Path) -> ExportedProgram:
    """The program of an archive. Raises PhaseError `export.foreign_archive`."""
    try:
        with path.open("rb") as opened, _Reader(opened) as reader:
            names = reader.get_file_names()
            _check(reader, names)
            program: ExportedProgram = _load_exported_programs(reader, names, None)["model"]
            return program
    except _NO_ARCHIVE as error:
        raise _refused(f"it is not one that torch can read ({error})") from error


def _check(reader: PT2ArchiveReader, names: list[str]) -> None:
    for name in names:
        if not _MEMBER.fullmatch(name):
            raise _refused(f"it holds {name!r}")
    if len(set(names)) < len(names):
        raise _refused("it holds one name twice")
    for config in (_WEIGHTS, _CONSTANTS):
        _check_payloads(json.loads(reader.read_bytes(config)), config)
    _check_model(json.loads(reader.read_bytes(_MODEL)))


def _check_payloads(config: dict[str, Any], where: str) -> None:
    for name, entry in config["config"].items():
        if entry["use_pickle"] is not False or not entry.keys() <= _ENTRY:
            raise _refused(f"{name!r} in {where} is no plain tensor")
        if not _PAYLOAD.fullmatch(entry["path_name"]):
            raise _refused(f"{name!r} in {where} lies at {entry['path_name']!r}")


def _check_model(model: dict[str, Any]) -> None:
    if model["guards_code"] or model["range_constraints"]:
        raise _refused("its program has guards or symbolic sizes")
    for node in model["graph_module"]["graph"]["nodes"]:
        if not _OPERATOR.fullmatch(node["target"]):
            raise _refused(f"its program calls {node['target']!r}")
    for field, value in _fields(model):
        if field in _CODE and value not in (None, [], {}):
            raise _refused(f"its program holds {field}")
        if field in ("in_spec", "out_spec") and value:
            _check_tree(json.loads(value))


def _check_tree(spec: object) -> None:
    """The form of inputs or outputs, as torch's pytree spells it: containers and leaves."""
    for field, value in _fields(spec):
        if field == "type" and value is not None and value not in _TREES:
            raise _refused(f"its inputs or outputs are of the type {value!r}")


def _fields(value: object) -> Iterator[tuple[str, Any]]:
    """Every field of a JSON value, at any depth."""
    waiting: list[object] = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield from each.items()
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _refused(why: str) -> PhaseError:
    return PhaseError(
        f"This .pt2 archive is not read: {why}.",
        remedy="It was not made by an export of this program, or was changed since. Export again, "
        "and do not trust where it came from.",
        code="export.foreign_archive",
    )
