"""Phase 3: knowledge distillation of the teacher's cached distributions into the student.

The recipe, step by step, is `work.py`; the others are its parts: `examples.py` (what is learnt, in
which order), `step.py` (one optimizer step), `held_out.py` (how good it is), `resume.py` (what
survives a kill). Rules: same inputs, same bytes; a run that was killed ends with the same bytes as
one that was not; a number that is not finite ends the run.
"""

from __future__ import annotations

from stillhouse.phases.contract import Context
from stillhouse.schemas.artifact import Kind, Product
from stillhouse.schemas.plan import Made, Need, PhaseSpec, Slot
from stillhouse.schemas.recipe import Recipe

_NEEDS = ("dataset", "teacher_cache", "teacher_model")


def slots(recipe: Recipe) -> tuple[Slot, ...]:
    """One slot, when the recipe trains."""
    if recipe.training is None or recipe.student is None:
        return ()
    params = {"student": recipe.student.to_json(), "training": recipe.training.to_json()}
    needs = tuple(Need(role=role, slot="dataset", output=role) for role in _NEEDS)
    return (Slot(id="training", params=params, needs=needs),)


def run(context: Context) -> tuple[Product, ...]:
    """Train; make `checkpoint`, `untrained` and `report`. Raises PhaseError, InputError."""
    from stillhouse.phases.training.work import distil

    return distil(context)


SPEC = PhaseSpec(
    name="training",
    version=1,
    slots=slots,
    makes=(
        Made(role="checkpoint", kind=Kind.CHECKPOINT),
        Made(role="untrained", kind=Kind.BASELINE),
        Made(role="report", kind=Kind.REPORT),
    ),
    tools=("torch", "safetensors", "numpy", "pyarrow"),
    # An hour of training on leaked or private data is an hour lost.
    start_gates=("dataset.schema", "dataset.leakage", "dataset.privacy"),
)
