"""A `.pt2` from elsewhere is data: whatever it holds, reading it runs nothing."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.phases.models.static import archive
from stillhouse.schemas.errors import PhaseError

Members = dict[str, bytes]
MODEL, EXAMPLES = "graph/models/model.json", "graph/data/sample_inputs/model.pt"
WEIGHTS = "graph/data/weights/model_weights_config.json"
CONSTANTS = "graph/data/constants/model_constants_config.json"


class _Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + 1


class _Payload:
    """A pickle of it leaves a mark where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._mark),)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    program = archive.export(_Small().eval(), (torch.zeros(1, 2),))
    path = archive.save(program, tmp_path_factory.mktemp("archive"))
    with zipfile.ZipFile(path) as found:
        return {name: found.read(name) for name in found.namelist()}


def _pickled(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(_Payload(mark), buffer)
    return buffer.getvalue()


def _written(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for name, data in members.items():
            out.writestr(name, data)
    return path


def _json(members: Members, name: str, change: Callable[[Any], object]) -> Members:
    document = json.loads(members[name])
    change(document)
    return members | {name: json.dumps(document).encode()}


def _nodes(model: Any) -> Any:
    return model["graph_module"]["graph"]["nodes"]


def _calls(target: str) -> Callable[[Members, Path], Members]:
    def change(members: Members, mark: Path) -> Members:
        argument = {"name": "path", "arg": {"as_string": str(mark)}, "kind": 1}
        call = {"target": target, "inputs": [argument]}
        return _json(members, MODEL, lambda model: _nodes(model)[0].update(call))

    return change


def _argument(**value: Any) -> Callable[[Members, Path], Members]:
    def change(members: Members, _mark: Path) -> Members:
        return _json(
            members, MODEL, lambda model: _nodes(model)[0]["inputs"][0].update({"arg": value})
        )

    return change


def _pickled_weight(members: Members, mark: Path) -> Members:
    changed = _json(members, WEIGHTS, lambda c: c["config"]["weight"].update(use_pickle=True))
    return changed | {"graph/data/weights/weight_0": _pickled(mark)}


def _constant(path_name: str) -> Callable[[Members, Path], Members]:
    def change(members: Members, mark: Path) -> Members:
        entry = {"path_name": path_name, "is_param": False, "use_pickle": True, "tensor_meta": None}
        changed = _json(members, CONSTANTS, lambda c: c["config"].update(c=entry))
        return changed | {f"graph/data/constants/{path_name}": _pickled(mark)}

    return change


def _member(name: str) -> Callable[[Members, Path], Members]:
    return lambda members, mark: members | {f"graph/{name}": _pickled(mark)}


def _tree(kind: str) -> Callable[[Members, Path], Members]:
    spec = json.dumps([1, {"type": kind, "context": "null", "children_spec": []}])

    def change(members: Members, _mark: Path) -> Members:
        return _json(
            members,
            MODEL,
            lambda m: m["graph_module"]["module_call_graph"][0]["signature"].update(in_spec=spec),
        )

    return change


CHANGES: dict[str, Callable[[Members, Path], Members]] = {
    "a pickled weight": _pickled_weight,
    "a pickled constant": _constant("tensor_0"),
    "a pickled object": _constant("opaque_obj_0"),
    "a torchbind object": _constant("custom_obj_0"),
    "legacy weights": _member("data/weights/model.pt"),
    "legacy constants": _member("data/constants/model.pt"),
    "a compiled library": _member("data/aotinductor/model/model.wrapper.so"),
    "an extra file": _member("extra/note"),
    "a second model": _member("models/other.json"),
    "examples of a second model": _member("data/sample_inputs/other.pt"),
    "the form of torch 2.7": _member("serialized_state_dict.pt"),
    "os.system": _calls("torch.os.system"),
    "os.mkdir": _calls("torch.os.mkdir"),
    "an operator that calls": _calls("_operator.call"),
    "a function of math": _calls("math.sqrt"),
    "a registered extension": _calls("#higher.order"),
    "a higher order operator": _calls("torch.ops.higher_order.cond"),
    "an operator of others": _calls("torch.ops.mine.run"),
    "an expression": _argument(as_expr={"expr_str": "__import__('os').mkdir('mark')"}),
    "a symbolic size": _argument(as_sym_int={"as_name": "s0"}),
    "a graph as an argument": _argument(as_graph={"name": "g", "graph": {}}),
    "an object as an argument": _argument(as_custom_obj={"name": "c", "class_fqn": "x"}),
    "an operator as an argument": _argument(as_operator="torch.os.mkdir"),
    "guards": lambda m, _: _json(m, MODEL, lambda d: d.update(guards_code=["import os"])),
    "constraints": lambda m, _: _json(m, MODEL, lambda d: d.update(range_constraints={"s0": {}})),
    "a named tuple": _tree("collections.namedtuple"),
    "a class": _tree("os.PathLike"),
    "a payload elsewhere": lambda m, _: _json(
        m, WEIGHTS, lambda c: c["config"]["weight"].update(path_name="../../weight_0")
    ),
    "no model": lambda m, _: {name: data for name, data in m.items() if name != MODEL},
}


def test_what_an_export_wrote_is_read(members: Members, tmp_path: Path) -> None:
    program = archive.load(_written(tmp_path / "a.pt2", members))
    assert program.example_inputs is None
    x = torch.tensor([[1.0, 2.0]])
    assert torch.equal(program.module()(x), _Small()(x))


def test_example_inputs_are_never_loaded(members: Members, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = archive.load(_written(tmp_path / "a.pt2", members | {EXAMPLES: _pickled(mark)}))
    assert program.example_inputs is None
    assert not mark.exists()


@pytest.mark.parametrize("what", CHANGES)
def test_what_may_be_code_is_refused_and_not_run(
    members: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    mark = tmp_path / "mark"
    path = _written(tmp_path / "a.pt2", CHANGES[what](members, mark))
    with pytest.raises(PhaseError) as refused:
        archive.load(path)
    assert refused.value.code == "export.foreign_archive"
    assert not mark.exists()


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04" + bytes(64)])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.pt2"
    path.write_bytes(data)
    with pytest.raises(PhaseError):
        archive.load(path)
