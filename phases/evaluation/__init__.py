"""Phase 7: teacher, untrained student and trained student, side by side, on one split.

The split is `evaluation`: no text and no function of it occurs in `train`, nor in `held_out`, whose
curve people may have looked at while they tuned the training. Everything is fp32 and runs through
the one student model, whoever's weights they are. The recipe of it is `work.py`; its parts:
`reading.py` (one text, read once), `fidelity.py` (teacher-forced distances), `decoding.py`
(argument slots and free answers), `figures.py` (numbers with their intervals).
"""

from __future__ import annotations

from stillhouse.phases import slots as needs
from stillhouse.phases.contract import Context
from stillhouse.schemas.artifact import Kind, Product
from stillhouse.schemas.plan import Made, Need, PhaseSpec, Slot
from stillhouse.schemas.recipe import Recipe


def slots(recipe: Recipe) -> tuple[Slot, ...]:
    """One slot, when the recipe evaluates."""
    if recipe.evaluation is None:
        return ()
    params = {"evaluation": recipe.evaluation.to_json()}
    return (Slot(id="evaluation", params=params, needs=_needs(recipe)),)


def _needs(recipe: Recipe) -> tuple[Need, ...]:
    assert recipe.teacher is not None  # noqa: S101  # [evaluation] needs [teacher]
    text = needs.dataset(recipe)
    assert text is not None  # noqa: S101  # … and a data set
    teacher = Need(role="teacher", digest=recipe.teacher.model)
    if recipe.dataset is not None:
        teacher = Need(role="teacher", slot="dataset", output="teacher_model")
    found = [teacher, text, needs.checkpoint(recipe)]
    if recipe.training is not None:
        found.append(Need(role="untrained", slot="training", output="untrained"))
    return tuple(found)


def run(context: Context) -> tuple[Product, ...]:
    """Measure; make `report`. Raises PhaseError, InputError."""
    from stillhouse.phases.evaluation.work import evaluate

    return (context.report(evaluate(context)),)


SPEC = PhaseSpec(
    name="evaluation",
    version=2,
    slots=slots,
    makes=(Made(role="report", kind=Kind.REPORT),),
    # The teacher may be a GGUF file, which transformers reads with gguf and accelerate.
    tools=(
        "torch",
        "tokenizers",
        "transformers",
        "numpy",
        "safetensors",
        "gguf",
        "accelerate",
    ),
)
