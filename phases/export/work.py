"""One export, step by step."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from stillhouse.phases.contract import Context
from stillhouse.phases.export.checks import (
    DECODE_TOKENS,
    TOLERANCES,
    Measured,
    demand,
    measure_archive,
    measure_decode,
    measure_prefill,
)
from stillhouse.phases.export.golden import Golden, golden_tokens
from stillhouse.phases.models import Student, StudentConfig, load_checkpoint
from stillhouse.phases.models.static import archive
from stillhouse.phases.models.static.graphs import StaticDecode, StaticPrefill
from stillhouse.phases.models.static.interface import CONVENTIONS, Interface, promised
from stillhouse.phases.numerics.threads import fixed
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import Kind, Product
from stillhouse.schemas.contract import Architecture, Contract, ShapeStatus, Tensor
from stillhouse.schemas.contract import Golden as Answers
from stillhouse.schemas.errors import PhaseError
from stillhouse.schemas.facts import ContractFacts, ExportFacts, TensorFacts
from stillhouse.schemas.report import Report, metric
from stillhouse.schemas.slot import Mode, shape_id
from stillhouse.store.disk.hashing import hash_file

ROUTE = "torch.export strict=False"
RMS_NORM = "max_abs_rescale_exact_eps"
TARGET = "iOS18"
PRECISION = "float16"

_UNITS = {"parity.top1_agreement": "fraction"}
_STEPS = 5


@dataclass(frozen=True, kw_only=True)
class _GraphSpec:
    """What one slot is about."""

    mode: Mode
    length: int
    architecture: Architecture
    config: StudentConfig

    @property
    def interface(self) -> Interface:
        return promised(self.mode, self.architecture, self.length)

    @property
    def golden_length(self) -> int:
        """Tokens to check it with: all that a prefill takes, a few steps of decode."""
        return self.length if self.mode == "prefill" else min(self.length, DECODE_TOKENS)


@dataclass(frozen=True, kw_only=True)
class _Done:
    """What an export came to, ready to be published."""

    spec: _GraphSpec
    path: Path
    golden: Golden
    measured: Measured
    archive_max_abs: float
    seconds: Mapping[str, float]


def export_shape(context: Context) -> tuple[Product, ...]:
    """Make the products of one export slot: graph, contract, report."""
    with fixed(int(context.params["threads"]), seed=0):
        return _publish(context, _export(context))


def _export(context: Context) -> _Done:
    began, seconds = time.monotonic(), dict[str, float]()

    def done(step: str) -> None:
        seconds[step] = round(time.monotonic() - began - sum(seconds.values()), 3)
        context.progress(step, len(seconds), _STEPS)

    folder = context.one("checkpoint").path
    student, config = load_checkpoint(folder)
    spec = _spec(context.params, config)
    graph = _graph(spec, student)
    golden = golden_tokens(
        folder / "tokenizer.json", vocab_size=config.vocab_size, length=spec.golden_length
    )
    done("load")
    measured = _measure(student, graph, golden)
    demand(measured.figures)
    done("check")
    program = archive.export(graph, _example(spec.interface))
    done("export")
    path = archive.save(program, context.scratch)
    del program
    done("save")
    max_abs = measure_archive(archive.load(path), graph, golden.ids)
    demand({"archive.max_abs": max_abs})
    done("compare")
    return _Done(
        spec=spec,
        path=path,
        golden=golden,
        measured=measured,
        archive_max_abs=max_abs,
        seconds=seconds,
    )


def _spec(params: Mapping[str, Any], config: StudentConfig) -> _GraphSpec:
    mode, length = params["mode"], int(params["length"])
    assert mode in ("prefill", "decode")  # noqa: S101  # SPEC makes no other
    return _GraphSpec(mode=mode, length=length, architecture=config.architecture(), config=config)


def _graph(spec: _GraphSpec, student: Student) -> StaticPrefill | StaticDecode:
    kind = StaticPrefill if spec.mode == "prefill" else StaticDecode
    return kind(spec.architecture, student.state_dict(), spec.length)


def _measure(student: Student, graph: StaticPrefill | StaticDecode, golden: Golden) -> Measured:
    if isinstance(graph, StaticPrefill):
        return measure_prefill(student, graph, golden.ids)
    return measure_decode(student, graph, golden.ids)


def _example(interface: Interface) -> tuple[torch.Tensor, ...]:
    """Make inputs to trace with: zeros, since the archive keeps them."""
    return tuple(torch.zeros(t.shape, dtype=torch.int32) for t in interface.inputs)


def _publish(context: Context, done: _Done) -> tuple[Product, ...]:
    spec = done.spec
    name = shape_id(spec.mode, spec.length)
    facts = ExportFacts(mode=spec.mode, length=spec.length)
    export = context.file(
        "export", Kind.EXPORT, done.path, name=f"{name}.pt2", facts=facts, sha256=True
    )
    contract = _contract(context, done, export)
    written = context.scratch / "contract.json"
    written.write_bytes(canonical.encode(contract.to_json()))
    made = context.file(
        "contract",
        Kind.CONTRACT,
        written,
        name=f"{name}.json",
        facts=_summary(contract),
        sha256=True,
    )
    return export, made, context.report(_report(done, export))


def _report(done: _Done, export: Product) -> Report:
    figures = {**done.measured.figures, "archive.max_abs": done.archive_max_abs}
    return Report(
        phase="export",
        subject=export.digest,
        metrics=tuple(
            metric(name, value, unit=_UNITS.get(name, ""), n=len(done.golden.ids))
            for name, value in figures.items()
        ),
        details={"seconds": dict(done.seconds), "golden": done.golden.text},
    )


def _contract(context: Context, done: _Done, export: Product) -> Contract:
    checkpoint, spec, interface = context.one("checkpoint"), done.spec, done.spec.interface
    tokenizer = checkpoint.path / "tokenizer.json"
    words = CONVENTIONS[spec.mode]
    figures = done.measured.figures
    return Contract(
        mode=spec.mode,
        length=spec.length,
        shape_validation=ShapeStatus(status="ok", max_abs=figures["parity.max_abs"]),
        inputs=interface.inputs,
        outputs=interface.outputs,
        states=interface.states,
        mask_convention=words.mask,
        position_convention=words.position,
        cache_layout=words.cache,
        architecture=spec.architecture,
        rms_norm=RMS_NORM,
        tokenizer=hash_file(tokenizer).digest if tokenizer.is_file() else None,
        checkpoint=checkpoint.digest,
        checkpoint_step=_checkpoint_step(checkpoint.path),
        export_sha256=export.files[0].sha256,
        export_digest=export.digest,
        route=ROUTE,
        tools={tool: version(tool) for tool in ("torch", "numpy")},
        target=TARGET,
        precision=PRECISION,
        golden=_answers(done.golden, done.measured.reference),
        tolerances={n: t for n, t in TOLERANCES.items() if n in {*figures, "archive.max_abs"}},
        warnings=_warnings(spec),
    )


def _answers(golden: Golden, reference: torch.Tensor) -> Answers:
    # Adding 0 makes -0.0 and 0.0 one.
    rounded = (reference.double().mul_(1000).round_().div_(1000) + 0.0).float()
    return Answers(
        token_ids=golden.ids,
        text=golden.text,
        top_ids=tuple(int(i) for i in reference.argmax(dim=-1)),
        logits_sha256=hashlib.sha256(rounded.numpy().astype("<f4").tobytes()).hexdigest(),
    )


def _warnings(spec: _GraphSpec) -> tuple[str, ...]:
    trained = spec.config.max_position_embeddings
    if spec.length <= trained:
        return ()
    return (f"Positions from {trained} on are beyond what the checkpoint was trained for.",)


def _checkpoint_step(folder: Path) -> int | None:
    """Read the optimizer step of a checkpoint that was trained here."""
    state = folder / "training_state.json"
    if not state.is_file():
        return None
    try:
        step = json.loads(state.read_bytes())["step"]
    except (ValueError, KeyError, TypeError) as error:
        raise PhaseError(
            f"The checkpoint's training_state.json names no step: {error}.",
            remedy="Publish the checkpoint without it, or as training wrote it.",
            code="export.training_state",
        ) from error
    return int(step)


def _summary(contract: Contract) -> ContractFacts:
    """Say what of a contract travels in its event."""

    def brief(tensors: tuple[Tensor, ...]) -> tuple[TensorFacts, ...]:
        return tuple(TensorFacts(name=t.name, dtype=t.dtype, shape=t.shape) for t in tensors)

    return ContractFacts(
        mode=contract.mode,
        length=contract.length,
        inputs=brief(contract.inputs),
        outputs=brief(contract.outputs),
        states=brief(contract.states),
        export=contract.export_digest,
        export_sha256=contract.export_sha256,
        checkpoint=contract.checkpoint,
        max_abs=contract.shape_validation.max_abs,
        target=contract.target,
        precision=contract.precision,
        rms_norm=contract.rms_norm,
        vocab_size=contract.architecture.vocab_size,
    )
