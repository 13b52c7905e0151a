"""Phase 2: prompts, answers, the teacher's cached distributions, and three disjoint splits.

Recipe: read the sources, leave out what is malformed, doubled, private, empty, cut short or too
long (and count it), let the teacher answer where the recipe says so, split by content *and* by
function name, score train and held-out, write both trees, then read them back and measure what was
really published. Nothing here depends on the order of work: an example's random numbers come from
its own digest and the teacher answers each alone, so same inputs give same bytes, killed or not.
"""

from __future__ import annotations

from stillhouse.phases.contract import Context
from stillhouse.schemas.artifact import Kind, Product
from stillhouse.schemas.plan import Made, Need, PhaseSpec, Slot
from stillhouse.schemas.recipe import DatasetSection, Recipe, Source


def slots(recipe: Recipe) -> tuple[Slot, ...]:
    """One slot, when the recipe builds a data set."""
    if recipe.dataset is None or recipe.teacher is None:
        return ()
    files = _files(recipe.dataset)
    sources = tuple(
        Source(
            format=source.format,
            questions=str(files.index(source.questions)),
            answers=None if source.answers is None else str(files.index(source.answers)),
        )
        for source in recipe.dataset.sources
    )
    section = recipe.dataset.model_copy(update={"sources": sources})
    return (
        Slot(
            id="dataset",
            # A file is named by its place among the `source` inputs: no path, and no digest twice.
            params={"dataset": section.to_json(), "teacher": recipe.teacher.name},
            needs=(
                *(Need(role="source", digest=digest) for digest in files),
                Need(role="teacher", digest=recipe.teacher.model),
            ),
        ),
    )


def _files(section: DatasetSection) -> list[str]:
    """Every file once, in order: each question file, then its answer file."""
    named = [ref for source in section.sources for ref in (source.questions, source.answers)]
    return list(dict.fromkeys(ref for ref in named if ref is not None))


SPEC = PhaseSpec(
    name="dataset",
    version=1,
    slots=slots,
    makes=(
        Made(role="dataset", kind=Kind.DATASET),
        Made(role="teacher_cache", kind=Kind.TEACHER_CACHE),
        Made(role="teacher_model", kind=Kind.TEACHER),
        Made(role="report", kind=Kind.REPORT),
    ),
    tools=(
        "torch",
        "transformers",
        "tokenizers",
        "gguf",
        "jinja2",
        "numpy",
        "pyarrow",
        "accelerate",  # with safetensors it writes the teacher of a GGUF file
        "safetensors",
        "cpu",  # decides whether the teacher computes in bf16
        "python",  # its Unicode tables decide which examples ask the same
    ),
)


def run(context: Context) -> tuple[Product, ...]:
    """Build the data set and the teacher's cache.

    Raises InputError when a source is not what it says, PhaseError when too few examples are left.
    """
    from stillhouse.phases.dataset.work import build

    return build(context)
