"""One verification, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stillhouse.phases.contract import Context
from stillhouse.phases.mil import Package
from stillhouse.phases.models import Student, load_checkpoint
from stillhouse.phases.numerics.threads import fixed
from stillhouse.phases.verification.models import CoreMl, Interpreted, Model, core_ml_runs
from stillhouse.phases.verification.numbers import (
    CacheComparison,
    Comparison,
    compare_decode,
    compare_handover,
    compare_prefill,
)
from stillhouse.phases.verification.structure import Structure, inspect
from stillhouse.phases.verification.texts import Texts, texts_of
from stillhouse.schemas.artifact import Product
from stillhouse.schemas.contract import Contract
from stillhouse.schemas.report import Metric, Report, metric

DEVICE = "device"


def verify_shape(context: Context) -> tuple[Product, ...]:
    """Make the report of one verification slot."""
    contract = Contract.model_validate_json(context.one("contract").path.read_bytes())
    # Decode works on vectors, where more threads mostly wait for each other.
    threads = 1 if contract.mode == "decode" else int(context.params["threads"])
    with fixed(threads, seed=0):
        structure = inspect(context, contract)
        context.progress("structure", 1, 1)
        metrics, details = list(_counts(structure)), _findings(structure)
        not_run = ["device_predict"]
        if structure.runnable and structure.package is not None:
            measured, noted = _measure(context, contract, structure.package)
            metrics += measured
            details |= noted
            not_run = [] if any(m.name.startswith(DEVICE) for m in measured) else not_run
        else:
            not_run.append("numbers")
    report = Report(
        phase="verification",
        subject=context.one("mlpackage").digest,
        metrics=tuple(metrics),
        not_run=tuple(not_run),
        details=details,
    )
    return (context.report(report),)


def _counts(structure: Structure) -> tuple[Metric, ...]:
    """How much is wrong; what could not be looked at has no figure."""
    found = {
        "files.mismatches": structure.files,
        "schema.errors": structure.schema,
        "io.mismatches": structure.io,
        "state.mismatches": structure.state,
        "ops.unknown": structure.unknown,
    }
    return tuple(
        metric(name, len(faults), unit="count")
        for name, faults in found.items()
        if faults is not None
    )


def _findings(structure: Structure) -> dict[str, Any]:
    faults = [*structure.files, *structure.schema, *(structure.io or ())]
    faults += [*(structure.state or ()), *(f"unknown: {op}" for op in structure.unknown or ())]
    ops = structure.package.op_histogram() if structure.package else {}
    return {"findings": faults, "ops": ops}


def _measure(
    context: Context, contract: Contract, package: Package
) -> tuple[list[Metric], dict[str, Any]]:
    """Every figure that needs the package to be run."""
    given = context.maybe("dataset")
    texts = texts_of(given.path if given else None, contract)
    student, _ = load_checkpoint(context.one("checkpoint").path)
    own = {name: Interpreted(package, name) for name in ("fp32", "declared")}
    models: dict[str, Model] = dict(own)
    if core_ml_runs():
        models[DEVICE] = CoreMl(package.path, context.scratch)
    compared = _compare(context, contract, student, models, texts)
    metrics = [m for name, comparison in compared.items() for m in comparison.metrics(name)]
    metrics.append(metric("text.held_out", texts.source == "held_out", n=len(texts.records)))
    nonfinite = sum(stats.nonfinite for stats in own["declared"].stats)
    metrics.append(metric("declared.nonfinite", nonfinite, unit="count"))
    peaks = [stats.attention_peak for stats in own["declared"].stats]
    if known := [peak for peak in peaks if peak is not None]:
        worst = next((peak for peak in known if math.isnan(peak)), max(known))
        metrics.append(metric("declared.attention_peak", worst, n=len(known)))
    return metrics, {"text": texts.source, **{name: _noted(m) for name, m in own.items()}}


def _compare(
    context: Context,
    contract: Contract,
    student: Student,
    models: Mapping[str, Model],
    texts: Texts,
) -> dict[str, Comparison | CacheComparison]:
    """Distances by the prefix of their metrics."""

    def tell(done: int, total: int) -> None:
        context.progress("predict", done, total)

    steps, length = int(context.params["decode_steps"]), contract.length
    if contract.mode == "prefill":
        chosen = texts.for_prefill(length, int(context.params["sequences"]))
        logits, caches = compare_prefill(student, models, chosen, contract, tell)
        own = {f"{name}.cache": caches[name] for name in models}
        return {**logits, **own}
    text = texts.for_decode(length, steps)
    compared: dict[str, Comparison | CacheComparison] = {
        **compare_decode(student, models, text, contract, tell)
    }
    continuation = texts.continuation(length, steps)
    compared["decode"] = compare_handover(student, models["declared"], continuation, contract)
    return compared


def _noted(model: Interpreted) -> dict[str, Any]:
    """Where numbers grew largest, and where the first one left its range."""
    largest = max(model.stats, key=lambda stats: stats.max_abs)
    born: Sequence[str] = [s.first_nonfinite_op for s in model.stats if s.first_nonfinite_op]
    return {
        "predictions": len(model.stats),
        "max_abs": largest.max_abs,
        "max_abs_op": largest.max_abs_op,
        **({"first_nonfinite_op": born[0]} if born else {}),
    }
