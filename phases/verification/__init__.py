"""Phase 6: the saved package, checked on this machine, one slot a shape.

Recipe: look at the package's files, its schema, its border, its states and its operations, each
against the contract; then run it with our own interpreter, in fp32 and as declared, on held-out
text, and compare its logits with the checkpoint's own, in fp32 PyTorch; on macOS let Core ML
predict the same. The report counts and measures, it judges nothing: what is wrong with a package is
a figure, and a figure that could not be taken is missing, which no gate passes.

Source of the gates: docs/phases.md; of the two kinds of arithmetic: phases/mil/interpreter.py.
"""

from __future__ import annotations

from stillhouse.phases import slots as needs
from stillhouse.phases.contract import Context
from stillhouse.schemas.artifact import Kind, Product
from stillhouse.schemas.plan import Made, Need, PhaseSpec, Slot
from stillhouse.schemas.recipe import Recipe


def slots(recipe: Recipe) -> tuple[Slot, ...]:
    """One slot per converted shape; optional where its conversion is."""
    section, export = recipe.verification, recipe.export
    if section is None or export is None:
        return ()
    # Without a data set the contract's golden tokens are the text.
    text = needs.dataset(recipe)
    return tuple(
        Slot(
            id=shape.slot("verification"),
            params=section.to_json(),
            needs=(
                Need(role="mlpackage", slot=shape.slot("conversion"), output="mlpackage"),
                Need(role="contract", slot=shape.slot("export"), output="contract"),
                Need(role="export", slot=shape.slot("export"), output="export"),
                needs.checkpoint(recipe),
                *((text,) if text else ()),
            ),
            optional=shape.optional,
        )
        for shape in export.shapes
    )


SPEC = PhaseSpec(
    name="verification",
    version=2,
    slots=slots,
    makes=(Made(role="report", kind=Kind.REPORT),),
    # `macos` is there only on a Mac, whose Core ML measures what is `not_run` elsewhere.
    tools=("coremltools", "torch", "numpy", "safetensors", "protobuf", "macos"),
)


def run(context: Context) -> tuple[Product, ...]:
    """Verify one package.

    Raises PhaseError when the dataset does not go with the checkpoint, and what load_checkpoint
    does; what is wrong with the package itself is measured, not raised.
    """
    from stillhouse.phases.verification.work import verify_shape

    return verify_shape(context)
