"""Phase 6: the saved package, checked on this machine, one slot a shape.

Recipe: look at the package's files, its schema, its border, its states and its operations, each
against the contract; then run it with our own interpreter, in fp32 and as declared, on held-out
text, and compare its logits with the checkpoint's own, in fp32 PyTorch; on macOS let Core ML
predict the same. The report counts and measures, it judges nothing: what is wrong with a package is
a figure, and a figure that could not be taken is missing, which no gate passes.

Source of the gates: docs/design.md; of the two modes: phases/mil/interpreter.py.
"""

from __future__ import annotations

from phases.contract import Context
from schemas.artifact import Kind, Product
from schemas.plan import Made, Need, PhaseSpec, Slot
from schemas.recipe import Recipe


def slots(recipe: Recipe) -> tuple[Slot, ...]:
    """One slot per converted shape; optional where its conversion is."""
    section, export = recipe.verification, recipe.export
    if section is None or export is None:
        return ()
    shapes = [("prefill", length) for length in export.prefill]
    if export.decode_capacity is not None:
        shapes.append(("decode", export.decode_capacity))
    return tuple(
        Slot(
            id=f"verification/{mode}-{length}",
            phase="verification",
            params=section.to_json(),
            needs=(
                Need(role="mlpackage", slot=f"conversion/{mode}-{length}", output="mlpackage"),
                Need(role="contract", slot=f"export/{mode}-{length}", output="contract"),
                Need(role="export", slot=f"export/{mode}-{length}", output="export"),
                *_checkpoint(recipe),
                *_dataset(recipe),
            ),
            optional=mode == "prefill" and length != export.primary,
        )
        for mode, length in shapes
    )


def _checkpoint(recipe: Recipe) -> tuple[Need, ...]:
    if recipe.training is not None:
        return (Need(role="checkpoint", slot="training", output="checkpoint"),)
    return (Need(role="checkpoint", digest=recipe.given.checkpoint),)


def _dataset(recipe: Recipe) -> tuple[Need, ...]:
    """Where held-out text comes from; without any, the contract's golden tokens are used."""
    if recipe.dataset is not None:
        return (Need(role="dataset", slot="dataset", output="dataset"),)
    if recipe.given.dataset is not None:
        return (Need(role="dataset", digest=recipe.given.dataset),)
    return ()


SPEC = PhaseSpec(
    name="verification",
    version=1,
    slots=slots,
    makes=(Made(role="report", kind=Kind.REPORT),),
    tools=("coremltools", "torch", "numpy", "safetensors", "protobuf"),
)


def run(context: Context) -> tuple[Product, ...]:
    """Verify one package.

    Raises PhaseError when the dataset does not go with the checkpoint, and what load_checkpoint
    does; what is wrong with the package itself is measured, not raised.
    """
    from phases.verification.work import verify_shape

    return verify_shape(context)
