"""Phase 5: an exported graph as a Core ML package, one slot a shape.

Recipe: load the recorded `.pt2`, make it functional, compare it with its contract, convert it, make
the package's bytes steady, and read the *saved* package back: names, dtypes and shapes of its
description and of its program against the contract, and a write for each state. A package that
differs is no product: the run fails with the difference in words.
"""

from __future__ import annotations

from stillhouse.phases.contract import Context
from stillhouse.schemas.artifact import Kind, Product
from stillhouse.schemas.plan import Made, Need, PhaseSpec, Slot
from stillhouse.schemas.recipe import Recipe


def slots(recipe: Recipe) -> tuple[Slot, ...]:
    """One slot per exported shape; optional where its export is."""
    section, export = recipe.conversion, recipe.export
    if section is None or export is None:
        return ()
    return tuple(
        Slot(
            id=shape.slot("conversion"),
            params={
                "target": section.target,
                "precision": section.precision,
                "threads": section.threads,
            },
            needs=tuple(
                Need(role=role, slot=shape.slot("export"), output=role)
                for role in ("export", "contract")
            ),
            optional=shape.optional,
        )
        for shape in export.shapes
    )


SPEC = PhaseSpec(
    name="conversion",
    version=1,
    slots=slots,
    makes=(
        Made(role="mlpackage", kind=Kind.MLPACKAGE),
        Made(role="report", kind=Kind.REPORT),
    ),
    tools=("coremltools", "torch", "numpy", "protobuf"),
    start_gates=("export.parity", "export.causality", "export.prefill_decode"),
)


def run(context: Context) -> tuple[Product, ...]:
    """Convert one shape.

    Raises PhaseError when the graph or the package is not what the contract says.
    """
    from stillhouse.phases.conversion.work import convert_shape

    return convert_shape(context)
