"""Phase 4: the checkpoint as static graphs, one slot a shape, each with its contract.

Recipe: load the checkpoint, put its weights into the static graph, measure what must hold (parity,
causality, prefill ≡ decode), export, save, load again and compare, write the contract. A graph that
does not hold is no product: the run fails with the figure that is beyond its tolerance.

A slot's parameters name its own shape and nothing else, so that adding a length to a recipe leaves
the other slots' run keys, and so their results, as they are.
"""

from __future__ import annotations

from stillhouse.phases import slots as needs
from stillhouse.phases.contract import Context
from stillhouse.schemas.artifact import Kind, Product
from stillhouse.schemas.plan import Made, PhaseSpec, Slot
from stillhouse.schemas.recipe import Recipe


def slots(recipe: Recipe) -> tuple[Slot, ...]:
    """One slot per prefill length, and one for decode. Only the primary and decode are required."""
    section = recipe.export
    if section is None:
        return ()
    return tuple(
        Slot(
            id=shape.slot("export"),
            params={"mode": shape.mode, "length": shape.length, "threads": section.threads},
            needs=(needs.checkpoint(recipe),),
            optional=shape.optional,
        )
        for shape in section.shapes
    )


SPEC = PhaseSpec(
    name="export",
    version=1,
    slots=slots,
    makes=(
        Made(role="export", kind=Kind.EXPORT),
        Made(role="contract", kind=Kind.CONTRACT),
        Made(role="report", kind=Kind.REPORT),
    ),
    tools=("torch", "numpy", "safetensors", "tokenizers"),
)


def run(context: Context) -> tuple[Product, ...]:
    """Export one shape.

    Raises PhaseError when the checkpoint or the graph does not hold, and what load_checkpoint does.
    """
    from stillhouse.phases.export.work import export_shape

    return export_shape(context)
