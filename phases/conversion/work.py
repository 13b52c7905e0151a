"""One conversion, step by step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.export import ExportedProgram

from stillhouse.phases.contract import Context
from stillhouse.phases.conversion.coreml import convert
from stillhouse.phases.conversion.package import canonicalise
from stillhouse.phases.conversion.saved import missing_writes, package_differences
from stillhouse.phases.mil import Package
from stillhouse.phases.models.static import archive
from stillhouse.phases.models.static.interface import (
    border,
    differences,
    of_contract,
    program_border,
)
from stillhouse.phases.numerics.threads import fixed
from stillhouse.schemas.artifact import Kind, Product
from stillhouse.schemas.contract import Contract
from stillhouse.schemas.errors import PhaseError
from stillhouse.schemas.facts import MlpackageFacts
from stillhouse.schemas.report import Report, metric

_STEPS = 4


def convert_shape(context: Context) -> tuple[Product, ...]:
    """Make the products of one conversion slot: package and report."""
    with fixed(int(context.params["threads"]), seed=0):
        return _convert(context)


def _convert(context: Context) -> tuple[Product, ...]:
    began, seconds = time.monotonic(), dict[str, float]()

    def done(step: str) -> None:
        seconds[step] = round(time.monotonic() - began - sum(seconds.values()), 3)
        context.progress(step, len(seconds), _STEPS)

    contract = Contract.model_validate_json(context.one("contract").path.read_bytes())
    _check_request(context, contract)
    program = functional_program(context.one("export").path, contract)
    done("load")
    raw = convert(
        program,
        contract.outputs,
        target=contract.target,
        folder=context.scratch / "raw.mlpackage",
    )
    del program
    done("convert")
    saved = canonicalise(raw, context.scratch / f"{contract.shape_id}.mlpackage")
    done("save")
    package = Package.open(saved)
    found = package_differences(package, contract)
    silent = missing_writes(package, contract)
    demand_same("package", (*found, *(f"state {name} is never written" for name in silent)))
    done("read back")
    return _publish(context, saved, package, (len(found), len(silent)), seconds)


def functional_program(path: Path, contract: Contract) -> ExportedProgram:
    """Load the archive's program and make it functional.

    Raises PhaseError when it is not what the contract says.
    """
    program = archive.functional(archive.load(path))
    found = program_border(program, [t.name for t in contract.outputs])
    demand_same("graph", differences(found, border(of_contract(contract))))
    return program


def demand_same(what: str, found: Sequence[str]) -> None:
    """Raise PhaseError when there are differences from the contract."""
    if found:
        raise PhaseError(
            f"The {what} is not what its contract says: {'; '.join(found)}.",
            remedy="Export the shape again; if it persists, the converter changed its behaviour.",
            code=f"conversion.{what}_differs",
        )


def _check_request(context: Context, contract: Contract) -> None:
    if contract.export_digest != context.one("export").digest:
        raise PhaseError(
            f"The contract is of another export ({contract.export_digest[:12]}).",
            remedy="Convert an export with the contract that was published beside it.",
            code="conversion.foreign_contract",
        )
    asked = context.params["target"], context.params["precision"]
    if asked != (contract.target, contract.precision):
        raise PhaseError(
            f"The recipe asks for {' '.join(asked)}; the graph was made for "
            f"{contract.target} {contract.precision}.",
            remedy="Ask for the target and precision of the export.",
            code="conversion.target",
        )


def _publish(
    context: Context,
    saved: Path,
    package: Package,
    counts: tuple[int, int],
    seconds: Mapping[str, float],
) -> tuple[Product, ...]:
    histogram = package.op_histogram()
    facts = MlpackageFacts(
        export=context.one("export").digest,
        contract=context.one("contract").digest,
        specification_version=package.specification_version,
        target=context.params["target"],
        precision=context.params["precision"],
    )
    product = context.tree(
        "mlpackage", Kind.MLPACKAGE, saved, name=saved.name, facts=facts, sha256=True
    )
    mismatches, silent = counts
    report = Report(
        phase="conversion",
        subject=product.digest,
        metrics=(
            metric("io.mismatches", mismatches, unit="count"),
            metric("state.missing_writes", silent, unit="count"),
            metric("ops.total", len(package.ops()), unit="count"),
            metric("package.bytes", product.size, unit="bytes"),
        ),
        details={"seconds": dict(seconds), "ops": histogram, "opset": package.opset()},
    )
    return product, context.report(report)
