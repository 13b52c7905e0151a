"""Packages from outside that are broken or forged: refused with a code, before numbers are used."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.cli.main import main
from stillhouse.phases.mil import Interpreter, Package, unknown_ops
from stillhouse.phases.mil.weights import WeightFile
from stillhouse.registry.home import Home
from stillhouse.schemas.errors import PhaseError, StillError, UntrustedFileError
from stillhouse.session import make_registry

pytestmark = pytest.mark.coreml

mb: Any = Builder
"""Its operations are registered at run time, where no type checker sees them."""

X = {"x": torch.ones(2, 4)}
WEIGHT = np.arange(32, dtype=np.float32).reshape(8, 4)


@pytest.fixture(scope="module")
def sound(save_program: Callable[..., Path]) -> Path:
    def build(x: Any) -> Any:
        return mb.linear(x=x, weight=WEIGHT, name="y")

    return save_program(build, {"x": np.zeros((2, 4), np.float32)})


@pytest.fixture
def package(sound: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model.mlpackage"
    shutil.copytree(sound, copy)
    return copy


def model_file(package: Path) -> Path:
    return package / "Data/com.apple.CoreML/model.mlmodel"


def weight_file(package: Path) -> Path:
    return package / "Data/com.apple.CoreML/weights/weight.bin"


def rewrite(package: Path, change: Callable[[Any, Any], None]) -> None:
    """Apply `change(specification, main block)` to the saved model."""
    from coremltools.proto import Model_pb2

    specification: Any = Model_pb2.Model()
    specification.ParseFromString(model_file(package).read_bytes())
    change(
        specification, specification.mlProgram.functions["main"].block_specializations["CoreML8"]
    )
    model_file(package).write_bytes(specification.SerializeToString())


def operation(block: Any, kind: str) -> Any:
    return next(op for op in block.operations if op.type == kind)


def blob_constant(block: Any) -> Any:
    return next(
        op.attributes["val"].blobFileValue
        for op in block.operations
        if op.type == "const" and op.attributes["val"].WhichOneof("value") == "blobFileValue"
    )


def failure(package: Path) -> StillError:
    with pytest.raises(StillError) as caught:
        Interpreter(Package.open(package)).run(X)
    return caught.value


def test_the_sound_package_runs(sound: Path) -> None:
    found = Interpreter(Package.open(sound)).run(X).outputs["y"]
    np.testing.assert_array_equal(found.numpy(), np.ones((2, 4), np.float32) @ WEIGHT.T)


@pytest.mark.parametrize(
    "name",
    [
        "@model_path/../../../weights/weight.bin",
        "/etc/passwd",
        "@model_path//../weights/weight.bin",
        "weights/weight.bin",
        "@elsewhere/weights/weight.bin",
        "@model_path",
        "@model_path/weights\\weight.bin",
        "@model_path/weights/\0weight.bin",
        "",
    ],
)
def test_a_blob_name_that_leaves_the_package_is_refused(package: Path, name: str) -> None:
    rewrite(package, lambda _, block: setattr(blob_constant(block), "fileName", name))
    error = failure(package)
    assert (type(error), error.code) == (UntrustedFileError, "mil.blob_path")


def test_a_package_of_links_runs_as_a_worker_gets_it(package: Path, tmp_path: Path) -> None:
    for number, file in enumerate([weight_file(package), model_file(package)]):
        stored = tmp_path / str(number)
        file.rename(stored)
        file.symlink_to(stored)
    Interpreter(Package.open(package)).run(X)


@pytest.mark.parametrize("kept", [0, 63, 64, 100, 128, 200])
def test_a_truncated_weight_file_is_refused(package: Path, kept: int) -> None:
    data = weight_file(package).read_bytes()
    assert len(data) > kept
    weight_file(package).write_bytes(data[:kept])
    error = failure(package)
    assert type(error) is UntrustedFileError
    assert error.code in {"mil.weights_out_of_range", "mil.weights_missing"}


def test_a_missing_weight_file_is_refused(package: Path) -> None:
    weight_file(package).unlink()
    assert failure(package).code == "mil.weights_missing"


@pytest.mark.parametrize("offset", [0, 1 << 40, (1 << 64) - 64])
def test_an_offset_outside_the_weight_file_is_refused(package: Path, offset: int) -> None:
    rewrite(package, lambda _, block: setattr(blob_constant(block), "offset", offset))
    assert failure(package).code == "mil.weights_out_of_range"


@pytest.mark.parametrize("offset", [65, 128])
def test_an_offset_where_no_blob_begins_is_refused(package: Path, offset: int) -> None:
    rewrite(package, lambda _, block: setattr(blob_constant(block), "offset", offset))
    assert failure(package).code == "mil.weights_malformed"


@pytest.mark.parametrize(
    ("place", "value", "code"),
    [
        (4, struct.pack("<I", 1), "mil.weights_malformed"),  # storage version
        (64, struct.pack("<I", 0xDEADBEEE), "mil.weights_malformed"),  # sentinel
        (68, struct.pack("<I", 99), "mil.weights_malformed"),  # data type
        (68, struct.pack("<I", 1), "mil.constant_mismatch"),  # fp16 where fp32 is declared
        (72, struct.pack("<Q", 64), "mil.constant_mismatch"),  # size
        (72, struct.pack("<Q", 1 << 63), "mil.weights_out_of_range"),
        (80, struct.pack("<Q", (1 << 64) - 64), "mil.weights_out_of_range"),  # data offset
        (80, struct.pack("<Q", 0), "mil.weights_out_of_range"),
    ],
)
def test_a_forged_weight_header_is_refused(
    package: Path, place: int, value: bytes, code: str
) -> None:
    data = bytearray(weight_file(package).read_bytes())
    data[place : place + len(value)] = value
    weight_file(package).write_bytes(data)
    error = failure(package)
    assert (type(error), error.code) == (UntrustedFileError, code)


@settings(max_examples=200, deadline=None)
@given(header=st.binary(min_size=0, max_size=200), offset=st.integers(0, 1 << 64))
def test_no_weight_file_makes_the_reader_leave_it(
    tmp_path_factory: pytest.TempPathFactory, header: bytes, offset: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(struct.pack("<II", 1, 2) + bytes(56) + header)
    try:
        blob = WeightFile(path).read(offset)
    except UntrustedFileError:
        return
    assert len(blob.data) <= len(header)


def test_an_unknown_operation_is_an_error_and_never_skipped(package: Path) -> None:
    rewrite(package, lambda _, block: setattr(operation(block, "linear"), "type", "mystery"))
    opened = Package.open(package)
    assert [op.type for op in unknown_ops(opened.function())] == ["mystery"]
    with pytest.raises(PhaseError, match="'mystery', which makes 'y' in function 'main'") as caught:
        Interpreter(opened).check()
    assert caught.value.code == "mil.unknown_op"
    assert failure(package).code == "mil.unknown_op"


def test_an_operand_that_the_kernel_does_not_have_is_an_error(package: Path) -> None:
    def change(_: Any, block: Any) -> None:
        linear = operation(block, "linear")
        linear.inputs["scale"].CopyFrom(linear.inputs["bias"])

    rewrite(package, change)
    assert failure(package).code == "mil.bad_operands"


def test_a_wrong_declared_shape_is_an_error(package: Path) -> None:
    def change(_: Any, block: Any) -> None:
        operation(block, "linear").outputs[0].type.tensorType.dimensions[1].constant.size = 9

    rewrite(package, change)
    error = failure(package)
    assert (type(error), error.code) == (PhaseError, "mil.shape_mismatch")
    assert "linear:y" in error.message


@pytest.mark.parametrize("dtype", [10, 23], ids=["float16", "int32"])
def test_a_wrong_declared_dtype_is_an_error(package: Path, dtype: int) -> None:
    rewrite(
        package,
        lambda _, block: setattr(
            operation(block, "linear").outputs[0].type.tensorType, "dataType", dtype
        ),
    )
    assert failure(package).code == "mil.dtype_mismatch"


def test_an_operand_that_nothing_defines_is_refused(package: Path) -> None:
    def change(_: Any, block: Any) -> None:
        operation(block, "linear").inputs["x"].arguments[0].name = "nowhere"

    rewrite(package, change)
    assert failure(package).code == "mil.bad_program"


def test_an_output_that_nothing_defines_is_refused(package: Path) -> None:
    rewrite(package, lambda _, block: block.outputs.append("nowhere"))
    assert failure(package).code == "mil.bad_program"


def test_another_opset_is_refused(package: Path) -> None:
    def change(specification: Any, block: Any) -> None:
        main = specification.mlProgram.functions["main"]
        main.opset = "CoreML99"
        main.block_specializations["CoreML99"].CopyFrom(block)

    rewrite(package, change)
    assert failure(package).code == "mil.unsupported_opset"


def test_a_package_without_manifest_is_refused(package: Path) -> None:
    (package / "Manifest.json").unlink()
    assert failure(package).code == "mil.manifest"


@pytest.mark.parametrize(
    "path", ["../../outside.mlmodel", "/etc/passwd", "com.apple.CoreML/../../../x", "", None]
)
def test_a_manifest_that_points_outside_is_refused(package: Path, path: str | None) -> None:
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = path
    (package / "Manifest.json").write_text(json.dumps(manifest))
    assert failure(package).code == "mil.manifest"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"itemInfoEntries": 3}', '{"itemInfoEntries": {"a": 1}}', "\udcff"]
)
def test_a_manifest_that_is_no_manifest_is_refused(package: Path, text: str) -> None:
    (package / "Manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert failure(package).code in {
        "mil.manifest", "canonical.undecodable", "canonical.not_object",
    }  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"not protobuf"])
def test_a_model_that_is_no_ml_program_is_refused(package: Path, data: bytes) -> None:
    model_file(package).write_bytes(data)
    assert failure(package).code in {"mil.bad_model", "mil.bad_program"}


def publish(package: Path, home: Home) -> int:
    return main(["--registry", str(home.root), "publish", str(package), "--kind", "mlpackage"])


def test_publishing_looks_into_the_program(package: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "still")
    make_registry(home)
    data = weight_file(package).read_bytes()
    weight_file(package).write_bytes(data[:100])
    assert publish(package, home) == 2
    weight_file(package).write_bytes(data)
    rewrite(package, lambda _, block: setattr(blob_constant(block), "fileName", "/etc/passwd"))
    assert publish(package, home) == 2
    assert home.log.read_bytes() == b""
    name = "@model_path/weights/weight.bin"
    rewrite(package, lambda _, block: setattr(blob_constant(block), "fileName", name))
    assert publish(package, home) == 0
