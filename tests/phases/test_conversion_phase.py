from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stillhouse.phases import conversion
from stillhouse.phases.conversion.coreml import convert
from stillhouse.phases.conversion.package import canonicalise
from stillhouse.phases.conversion.saved import missing_writes, package_differences
from stillhouse.phases.mil import Arithmetic, Interpreter, Package
from stillhouse.phases.models.static import archive
from stillhouse.phases.models.static.graphs import StaticDecode, StaticPrefill
from stillhouse.phases.models.static.interface import promised
from stillhouse.schemas.artifact import Product
from stillhouse.schemas.contract import Tensor as Described
from stillhouse.schemas.errors import PhaseError
from stillhouse.schemas.recipe import ConversionSection, ExportSection, Given, Recipe

from .graph_parts import (
    LENGTH,
    HashingSink,
    conversion_context,
    convert_tiny,
    export_tiny,
    ids,
    metrics,
    read_contract,
    tiny_architecture,
    tiny_checkpoint,
    tiny_student,
)

pytestmark = pytest.mark.coreml


@contextmanager
def leftovers_ignored() -> Iterator[None]:
    """Let coremltools leave a temporary folder to the garbage collector, which it does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A mode's export: its folder, with graph and contract."""
    torch.set_num_threads(1)
    checkpoint = tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    done: dict[str, Path] = {}

    def of(mode: str) -> Path:
        if mode not in done:
            done[mode] = tmp_path_factory.mktemp(mode)
            export_tiny(checkpoint, mode, done[mode])
        return done[mode]

    return of


@pytest.fixture(scope="module")
def converted(
    exported: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, dict[str, Product]]]:
    """A mode's package and what was published about it."""
    done: dict[str, tuple[Path, dict[str, Product]]] = {}

    def of(mode: str) -> tuple[Path, dict[str, Product]]:
        if mode not in done:
            work = tmp_path_factory.mktemp(f"{mode}-work")
            products = convert_tiny(exported(mode), work)
            done[mode] = work / f"{mode}-{LENGTH}.mlpackage", products
        return done[mode]

    return of


Converted = Callable[[str], tuple[Path, dict[str, Product]]]


def small(token: int) -> Tensor:
    return torch.tensor([[token]], dtype=torch.int32)


@pytest.mark.parametrize("mode", ["prefill", "decode"])
def test_a_package_is_published_with_its_files_and_no_difference_from_the_contract(
    mode: str, converted: Converted
) -> None:
    path, made = converted(mode)
    assert made["mlpackage"].name == path.name
    assert [f.path for f in made["mlpackage"].files] == [
        "Data/com.apple.CoreML/model.mlmodel",
        "Data/com.apple.CoreML/weights/weight.bin",
        "Manifest.json",
    ]
    found = metrics(made["report"])
    assert (found["io.mismatches"], found["state.missing_writes"]) == (0, 0)
    assert found["package.bytes"] == made["mlpackage"].size
    assert made["report"].facts["subject"] == made["mlpackage"].digest


def test_decode_reads_and_writes_each_state_once(converted: Converted) -> None:
    use = Package.open(converted("decode")[0]).state_use()
    assert {name: (u.reads, u.writes) for name, u in use.items()} == {
        "k_cache": (1, 1),
        "v_cache": (1, 1),
    }


@pytest.mark.parametrize("mode", ["prefill", "decode"])
def test_coremltools_accepts_the_canonical_package(mode: str, converted: Converted) -> None:
    from coremltools.models import MLModel

    model = MLModel(str(converted(mode)[0]), skip_model_load=True)
    assert model.get_spec().specificationVersion == 9


def test_the_prefill_package_computes_what_the_checkpoint_computes(converted: Converted) -> None:
    package = Package.open(converted("prefill")[0])
    inputs = {"input_ids": torch.tensor([ids()], dtype=torch.int32)}
    with torch.inference_mode():
        wanted = tiny_student()(torch.tensor([ids()]))
    limits: dict[Arithmetic, float] = {"fp32": 2e-2, "declared": 1e-1}
    for arithmetic, limit in limits.items():
        result = Interpreter(package, arithmetic=arithmetic).run(inputs)
        assert result.stats.nonfinite == 0
        assert (result.outputs["logits"] - wanted).abs().max() < limit


def test_the_decode_package_computes_what_the_checkpoint_computes(converted: Converted) -> None:
    interpreter = Interpreter(Package.open(converted("decode")[0]), arithmetic="declared")
    with torch.inference_mode():
        wanted = tiny_student()(torch.tensor([ids()]))[0]
    states = interpreter.new_states()
    for place, token in enumerate(ids()):
        position = torch.tensor([place], dtype=torch.int32)
        result = interpreter.run({"input_ids": small(token), "position": position}, states)
        states = result.states
        assert (result.outputs["logits"][0, 0] - wanted[place]).abs().max() < 1e-1


def test_large_activations_do_not_overflow_in_the_package(tmp_path: Path) -> None:
    student = tiny_student(tied=False)
    with torch.no_grad():
        student.model.embed_tokens.weight.mul_(20_000 / student.model.embed_tokens.weight.max())
    graph = StaticPrefill(tiny_architecture(tied=False), student.state_dict(), LENGTH)
    program = archive.export(graph, (torch.zeros(1, LENGTH, dtype=torch.int32),))
    outputs = promised("prefill", tiny_architecture(tied=False), LENGTH).outputs
    raw = convert(
        archive.functional(program), outputs, target="iOS18", folder=tmp_path / "raw.mlpackage"
    )
    run = Interpreter(Package.open(raw), arithmetic="declared").run(
        {"input_ids": torch.tensor([ids()], dtype=torch.int32)}
    )
    assert run.stats.max_abs > 10_000  # so a square would overflow
    assert run.stats.nonfinite == 0
    with torch.inference_mode():
        wanted = student(torch.tensor([ids()]))[0]
    assert (run.outputs["logits"][0].argmax(-1) == wanted.argmax(-1)).all()


class _Forgetful(StaticDecode):
    """A decoder whose states are never written back."""

    def forward(self, input_ids: Tensor, position: Tensor) -> Tensor:
        return self.compute(input_ids, position, (self.k_cache, self.v_cache))[0].half()


def forgetful() -> torch.export.ExportedProgram:
    graph = _Forgetful(tiny_architecture(), tiny_student().state_dict(), LENGTH)
    return archive.export(graph, (small(0), torch.zeros(1, dtype=torch.int32)))


def test_a_decoder_that_writes_no_state_is_refused_before_it_is_converted(
    exported: Callable[[str], Path], tmp_path: Path
) -> None:
    path = archive.save(forgetful(), tmp_path)
    contract = exported("decode") / "contract.json"
    context = conversion_context(path, contract, tmp_path / "work", HashingSink())
    edited = json.loads(contract.read_bytes()) | {"export_digest": context.one("export").digest}
    own = tmp_path / "contract.json"
    own.write_text(json.dumps(edited))
    with pytest.raises(PhaseError) as refused:
        conversion.run(conversion_context(path, own, tmp_path / "work", HashingSink()))
    assert refused.value.code == "conversion.graph_differs"
    assert "state k_cache (float16 [2, 2, 12, 8]) is missing" in refused.value.message


def test_a_package_without_states_is_told_from_its_contract(
    exported: Callable[[str], Path], tmp_path: Path
) -> None:
    contract = read_contract(exported("decode"))
    raw = convert(
        archive.functional(forgetful()),
        contract.outputs,
        target="iOS18",
        folder=tmp_path / "raw.mlpackage",
    )
    package = Package.open(canonicalise(raw, tmp_path / "p.mlpackage"))
    found = package_differences(package, contract)
    assert "in its description, state k_cache (float16 [2, 2, 12, 8]) is missing" in found
    assert "in its program, state v_cache (float16 [2, 2, 12, 8]) is missing" in found
    assert missing_writes(package, contract) == ("k_cache", "v_cache")


def test_a_description_that_names_an_output_otherwise_is_noticed(
    converted: Converted, exported: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    from coremltools.proto import Model_pb2

    path = tmp_path / "renamed.mlpackage"
    shutil.copytree(converted("prefill")[0], path)
    file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model: Any = Model_pb2.Model()
    model.ParseFromString(file.read_bytes())
    model.description.output[0].name = "scores"
    file.write_bytes(model.SerializeToString())
    found = package_differences(Package.open(path), read_contract(exported("prefill")))
    assert found == (
        "in its description, output logits (float16 [1, 12, 64]) is missing",
        "in its description, output scores (float16 [1, 12, 64]) is not promised",
    )


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        ({"export_digest": "a" * 64}, "conversion.foreign_contract"),
        ({"target": "iOS17"}, "conversion.target"),
        ({"precision": "float32"}, "conversion.target"),
        (
            {"inputs": [{"name": "tokens", "dtype": "int32", "shape": [1, 12], "semantics": ""}]},
            "conversion.graph_differs",
        ),
    ],
)
def test_a_contract_of_something_else_is_refused(
    edit: dict[str, object], code: str, exported: Callable[[str], Path], tmp_path: Path
) -> None:
    graph = exported("prefill") / "graph.pt2"
    contract = tmp_path / "contract.json"
    contract.write_text(
        json.dumps(json.loads((exported("prefill") / "contract.json").read_bytes()) | edit)
    )
    sink = HashingSink()
    with pytest.raises(PhaseError) as refused:
        conversion.run(conversion_context(graph, contract, tmp_path / "work", sink))
    assert refused.value.code == code
    assert sink.puts == 0


def test_an_operation_that_coremltools_lacks_is_named(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = torch.special.bessel_j0(x.float())
            return y.half()

    program = archive.functional(archive.export(Odd(), (torch.zeros(1, 3, dtype=torch.int32),)))
    output = Described(name="y", dtype="float16", shape=(1, 3), semantics="")
    with leftovers_ignored():
        with pytest.raises(PhaseError, match="bessel") as refused:
            convert(program, (output,), target="iOS18", folder=tmp_path / "raw.mlpackage")
        assert refused.value.code == "conversion.failed"
        del refused  # its traceback keeps coremltools' folder alive


def test_a_package_with_a_file_we_do_not_know_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "raw.mlpackage" / "Data" / "com.apple.CoreML"
    (data / "weights").mkdir(parents=True)
    for name in ("model.mlmodel", "weights/weight.bin", "weights/more.bin"):
        (data / name).write_bytes(b"")
    with pytest.raises(PhaseError, match=r"more\.bin"):
        canonicalise(tmp_path / "raw.mlpackage", tmp_path / "p.mlpackage")


def test_slots_mirror_those_of_export() -> None:
    recipe = Recipe(
        name="r",
        policy="p" * 64,
        export=ExportSection(prefill=(64, 128), primary=128, decode_capacity=32),
        conversion=ConversionSection(),
        given=Given(checkpoint="c" * 64),
    )
    slots = conversion.slots(recipe)
    assert {s.id: s.optional for s in slots} == {
        "conversion/prefill-64": True,
        "conversion/prefill-128": False,
        "conversion/decode-32": False,
    }
    assert [(n.role, n.slot, n.output) for n in slots[2].needs] == [
        ("export", "export/decode-32", "export"),
        ("contract", "export/decode-32", "contract"),
    ]
    assert conversion.slots(recipe.model_copy(update={"conversion": None})) == ()
