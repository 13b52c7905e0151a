"""A tiny checkpoint exported and converted for real, then verified; and packages that are wrong."""

from __future__ import annotations

import gc
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.phases import verification
from stillhouse.phases.contract import Context, Input
from stillhouse.phases.data.records import (
    DatasetHeader,
    Message,
    Record,
    content_id,
    write_header,
    write_split,
)
from stillhouse.schemas.artifact import Form, Kind
from stillhouse.schemas.errors import PhaseError
from stillhouse.schemas.recipe import Recipe
from stillhouse.schemas.report import Report
from stillhouse.store.disk.hashing import hash_file
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.trees.trees import put_tree

from .graph_parts import LENGTH, HashingSink, convert_tiny, export_tiny, ids, tiny_checkpoint

pytestmark = pytest.mark.coreml

CHECKPOINT = "c" * 64
COUNTS = (
    "files.mismatches",
    "schema.errors",
    "io.mismatches",
    "state.mismatches",
    "ops.unknown",
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint, and per mode the scratch folders of its export and conversion."""
    root = tmp_path_factory.mktemp("world")
    checkpoint = tiny_checkpoint(root / "checkpoint")
    with warnings.catch_warnings():
        # coremltools leaves a temporary folder to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        for mode in ("prefill", "decode"):
            export_tiny(checkpoint, mode, root / f"export-{mode}")
            convert_tiny(root / f"export-{mode}", root / f"conversion-{mode}")
        gc.collect()
    return root


def package_of(world: Path, mode: str) -> Path:
    return world / f"conversion-{mode}" / f"{mode}-{LENGTH}.mlpackage"


def record(tokens: list[int], answer_start: int) -> Record:
    messages = (Message(role="user", content=f"{len(tokens)} {answer_start}"),)
    return Record(
        id=content_id(messages, [], "yes"),
        messages=messages,
        answer="yes",
        prompt="?",
        token_ids=tuple(tokens),
        answer_start=answer_start,
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Texts of 5, 30 and 9 tokens; the graphs take 12."""
    folder = tmp_path / "dataset"
    texts = [(ids(5), 2), (ids(30), 4), (ids(9), 3)]
    write_split(folder, "held_out", [record(tokens, start) for tokens, start in texts])
    header = DatasetHeader(
        tokenizer="d" * 64,
        counts={"held_out": 3},
        top_k=4,
        teacher="t",
        answers="given",
        eos_token_id=0,
    )
    write_header(folder, header)
    return folder


def verify(
    world: Path,
    mode: str,
    scratch: Path,
    *,
    package: Path | None = None,
    dataset: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    checkpoint: str = CHECKPOINT,
) -> Report:
    """Run the phase; its package is recorded as it is, unless `package` replaced it later."""
    recorded = package_of(world, mode)
    (scratch / "objects").mkdir(exist_ok=True)
    store = BlobStore(scratch / "objects")
    exported = world / f"export-{mode}"
    graph, contract = exported / "graph.pt2", exported / "contract.json"
    recorded_facts = {"export": hash_file(graph).digest, "contract": hash_file(contract).digest}

    def given(role: str, path: Path, digest: str) -> list[Input]:
        form: Form = "tree" if path.is_dir() else "blob"
        return [
            Input(
                role=role,
                digest=digest,
                kind=Kind(role),
                form=form,
                path=path,
                facts=(recorded_facts if facts is None else facts) if role == "mlpackage" else {},
            )
        ]

    inputs = {
        "mlpackage": given("mlpackage", package or recorded, put_tree(store, recorded).digest),
        "contract": given("contract", contract, hash_file(contract).digest),
        "export": given("export", graph, hash_file(graph).digest),
        "checkpoint": given("checkpoint", world / "checkpoint", checkpoint),
    }
    if dataset is not None:
        inputs["dataset"] = given("dataset", dataset, "d" * 64)
    context = Context(
        slot=f"verification/{mode}-{LENGTH}",
        params={"sequences": 2, "decode_steps": 4, "threads": 1},
        inputs=inputs,
        scratch=scratch,
        sink=HashingSink(),
        progress=lambda *_, **__: None,
    )
    (product,) = verification.run(context)
    assert product.kind == Kind.REPORT
    return Report.model_validate_json((scratch / "report.json").read_bytes())


def values(report: Report) -> dict[str, float | None]:
    return {m.name: m.value for m in report.metrics}


def positions(report: Report) -> dict[str, int | None]:
    return {m.name: m.n for m in report.metrics}


@pytest.mark.parametrize("mode", ["prefill", "decode"])
def test_a_sound_package_has_nothing_against_it(world: Path, mode: str, tmp_path: Path) -> None:
    report = verify(world, mode, tmp_path)
    found = values(report)
    assert report.details["findings"] == []
    assert {found[name] for name in COUNTS} == {0.0}
    assert found["declared.nonfinite"] == 0
    assert 0 < (found["declared.attention_peak"] or 0) < 65504
    kinds = ["fp32", "declared"] + (["decode"] if mode == "decode" else [])
    for kind in kinds:
        assert (found[f"{kind}.top1_agreement"] or 0) > 0.9  # random weights, near ties
        assert (found[f"{kind}.kl"] or 0) < 1e-3
        assert (found[f"{kind}.max_abs"] or 0) < 0.1
    if mode == "prefill":
        assert (found["fp32.cache.relative"] or 1) < 5e-3
        assert (found["declared.cache.relative"] or 1) < 1e-2
    assert report.details["text"] == "golden"
    assert found["text.held_out"] == 0


def test_rounding_to_the_declared_dtype_is_what_the_declared_figures_see(
    world: Path, tmp_path: Path
) -> None:
    found = values(verify(world, "prefill", tmp_path))
    assert (found["declared.kl"] or 0) > (found["fp32.kl"] or 0)


def test_prefill_reads_the_longest_held_out_texts_and_only_their_real_positions(
    world: Path, dataset: Path, tmp_path: Path
) -> None:
    report = verify(world, "prefill", tmp_path, dataset=dataset)
    assert report.details["text"] == "held_out"
    assert values(report)["text.held_out"] == 1
    assert positions(report)["declared.cache.relative"] == 2 * (12 + 9)
    assert positions(report)["fp32.kl"] == 12 + 9
    assert values(report)["fp32.top1_agreement"] == 1


def test_decode_begins_empty_and_goes_on_where_an_answer_begins(
    world: Path, dataset: Path, tmp_path: Path
) -> None:
    report = verify(world, "decode", tmp_path, dataset=dataset)
    assert positions(report)["fp32.kl"] == positions(report)["decode.kl"] == 4
    assert report.details["declared"]["predictions"] == 8
    assert values(report)["decode.top1_agreement"] == 1


def test_device_predict_is_not_run_where_core_ml_is_not(world: Path, tmp_path: Path) -> None:
    report = verify(world, "prefill", tmp_path)
    measured = any(name.startswith("device.") for name in values(report))
    assert ("device_predict" in report.not_run) == (not measured)


@pytest.mark.macos
@pytest.mark.skipif(sys.platform != "darwin", reason="needs the Core ML runtime")
def test_core_ml_predicts_what_the_interpreter_does(world: Path, tmp_path: Path) -> None:
    found = values(verify(world, "decode", tmp_path))
    assert found["device.top1_agreement"] == 1


# --- packages that are wrong ----------------------------------------------------------------------


def rewrite(package: Path, change: Callable[[Any, Any], None]) -> None:
    from coremltools.proto import Model_pb2

    file = package / "Data/com.apple.CoreML/model.mlmodel"
    model: Any = Model_pb2.Model()
    model.ParseFromString(file.read_bytes())
    main = model.mlProgram.functions["main"]
    change(model, main.block_specializations[main.opset])
    file.write_bytes(model.SerializeToString(deterministic=True))


def altered(
    world: Path, mode: str, tmp_path: Path, change: Callable[[Any, Any], None] | None = None
) -> Path:
    copy = tmp_path / "altered.mlpackage"
    shutil.copytree(package_of(world, mode), copy)
    if change:
        rewrite(copy, change)
    return copy


def first(block: Any, kind: str) -> Any:
    return next(op for op in block.operations if op.type == kind)


def swap_caches(_: Any, block: Any) -> None:
    """Keys where the values belong, and values where the keys do."""
    names = {"k_cache": "v_cache", "v_cache": "k_cache"}
    for op in block.operations:
        for result in op.outputs:
            result.name = names.get(result.name, result.name)


def test_keys_and_values_in_each_others_place_are_seen_in_the_caches(
    world: Path, tmp_path: Path
) -> None:
    package = altered(world, "prefill", tmp_path, swap_caches)
    found = values(verify(world, "prefill", tmp_path, package=package))
    assert (found["fp32.kl"] or 0) < 1e-3  # the logits are right
    for mode in ("fp32", "declared"):
        assert (found[f"{mode}.cache.relative"] or 0) > 0.5


def test_one_fault_in_a_head_of_small_numbers_is_not_lost_beside_a_large_one() -> None:
    from stillhouse.phases.verification.numbers import CacheComparison

    wanted = torch.cat([torch.full((1, 1, 3, 4), 100.0), torch.full((1, 1, 3, 4), 0.1)])
    found = wanted.clone()
    found[1] = 0.2
    comparison = CacheComparison()
    comparison.add(wanted, found)
    figures = {m.name: m.value for m in comparison.metrics("x")}
    assert figures["x.relative"] == pytest.approx(1)
    assert figures["x.max_abs"] == pytest.approx(0.1)


def test_an_output_described_by_another_name_is_counted_and_ends_the_run(
    world: Path, tmp_path: Path
) -> None:
    def rename(model: Any, _: Any) -> None:
        model.description.output[0].name = "scores"

    package = altered(world, "prefill", tmp_path, rename)
    report = verify(world, "prefill", tmp_path, package=package)
    found = values(report)
    assert found["io.mismatches"] == 2
    assert found["files.mismatches"] == 1
    assert "numbers" in report.not_run
    assert not any(name.startswith(("fp32", "declared")) for name in found)


def test_a_state_that_is_never_written_is_counted(world: Path, tmp_path: Path) -> None:
    def forget(_: Any, block: Any) -> None:
        kept = [op for op in block.operations if op.type != "write_state"]
        del block.operations[:]
        block.operations.extend(kept)

    package = altered(world, "decode", tmp_path, forget)
    found = values(verify(world, "decode", tmp_path, package=package))
    assert found["state.mismatches"] == 2
    assert found["decode.kl"] is not None


def test_an_unknown_operation_is_counted_and_never_skipped(world: Path, tmp_path: Path) -> None:
    package = altered(
        world, "prefill", tmp_path, lambda _, block: setattr(first(block, "silu"), "type", "swish")
    )
    report = verify(world, "prefill", tmp_path, package=package)
    assert values(report)["ops.unknown"] == 1
    assert "numbers" in report.not_run
    assert any("swish" in finding for finding in report.details["findings"])


def test_a_wrong_declared_shape_is_a_schema_error(world: Path, tmp_path: Path) -> None:
    def stretch(_: Any, block: Any) -> None:
        dimension = first(block, "silu").outputs[0].type.tensorType.dimensions[-1]
        dimension.constant.size += 1

    package = altered(world, "prefill", tmp_path, stretch)
    report = verify(world, "prefill", tmp_path, package=package)
    assert values(report)["schema.errors"] == 1


def test_a_truncated_weight_file_is_a_schema_error(world: Path, tmp_path: Path) -> None:
    package = altered(world, "prefill", tmp_path)
    weights = package / "Data/com.apple.CoreML/weights/weight.bin"
    weights.write_bytes(weights.read_bytes()[:-4096])
    report = verify(world, "prefill", tmp_path, package=package)
    assert values(report)["schema.errors"] == 1
    assert "numbers" in report.not_run


def test_one_changed_bit_in_the_weights_is_a_file_mismatch(world: Path, tmp_path: Path) -> None:
    package = altered(world, "prefill", tmp_path)
    weights = package / "Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    found = values(verify(world, "prefill", tmp_path, package=package))
    assert (found["files.mismatches"], found["schema.errors"]) == (1, 0)


def test_a_package_that_cannot_be_opened_has_no_further_figures(
    world: Path, tmp_path: Path
) -> None:
    package = altered(world, "prefill", tmp_path)
    (package / "Manifest.json").unlink()
    report = verify(world, "prefill", tmp_path, package=package)
    assert set(values(report)) == {"files.mismatches", "schema.errors"}
    assert values(report)["schema.errors"] == 1


def test_files_that_the_manifest_does_not_account_for_are_mismatches(
    world: Path, tmp_path: Path
) -> None:
    package = altered(world, "prefill", tmp_path)
    (package / "Data/extra.bin").write_bytes(b"?")
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"]["x"] = {"path": "com.apple.CoreML/gone"}
    (package / "Manifest.json").write_text(json.dumps(manifest))
    report = verify(world, "prefill", tmp_path, package=package)
    assert values(report)["files.mismatches"] == 3
    assert "Data/extra.bin is not listed" in report.details["findings"]


def test_a_contract_of_another_checkpoint_or_export_is_a_mismatch(
    world: Path, tmp_path: Path
) -> None:
    report = verify(world, "prefill", tmp_path, checkpoint="e" * 64, facts={"export": "f" * 64})
    assert values(report)["files.mismatches"] == 3  # and no contract is recorded


def test_a_record_that_names_neither_export_nor_contract_agrees_with_none(
    world: Path, tmp_path: Path
) -> None:
    report = verify(world, "prefill", tmp_path, facts={})
    assert values(report)["files.mismatches"] == 2


def test_weights_of_another_checkpoint_are_seen_in_the_numbers(world: Path, tmp_path: Path) -> None:
    from stillhouse.phases.models import save_checkpoint

    from .graph_parts import tiny_student

    other = tmp_path / "other"
    for mode in ("export-prefill", "conversion-prefill"):
        shutil.copytree(world / mode, other / mode)
    save_checkpoint(tiny_student(seed=6), other / "checkpoint")
    assert (values(verify(other, "prefill", tmp_path))["fp32.kl"] or 0) > 0.01


def test_a_data_set_of_another_tokenizer_is_refused(
    world: Path, dataset: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(world, other)
    contract = json.loads((other / "export-prefill/contract.json").read_text())
    (other / "export-prefill/contract.json").write_text(
        json.dumps({**contract, "tokenizer": "a" * 64})
    )
    with pytest.raises(PhaseError) as caught:
        verify(other, "prefill", tmp_path, dataset=dataset)
    assert caught.value.code == "verification.tokenizer"


# --- slots ----------------------------------------------------------------------------------------

RECIPE: dict[str, Any] = {
    "name": "r",
    "policy": "a" * 64,
    "given": {"checkpoint": "b" * 64},
    "export": {"prefill": [8, 16], "primary": 16, "decode_capacity": 32},
    "conversion": {},
    "verification": {"sequences": 3},
}


def test_slots_follow_the_shapes_and_only_secondary_lengths_are_optional() -> None:
    slots = verification.slots(Recipe.model_validate(RECIPE))
    assert [(s.id, s.optional) for s in slots] == [
        ("verification/prefill-8", True),
        ("verification/prefill-16", False),
        ("verification/decode-32", False),
    ]
    assert {n.role for n in slots[0].needs} == {"mlpackage", "contract", "export", "checkpoint"}
    with_data = {**RECIPE, "given": {"checkpoint": "b" * 64, "dataset": "d" * 64}}
    needs = verification.slots(Recipe.model_validate(with_data))[0].needs
    assert {n.role: n.digest for n in needs}["dataset"] == "d" * 64
