"""Phase 8: a release, assembled by query over lineage and gates.

Owns the release tree of docs/phases.md. What the manifest says is a pure function of recorded facts
(`assembly.py`); `work.py` gathers them, lays the files out (`folder.py`) and stores the folder;
`verify.py` checks such a folder wherever it went. The run's key holds the verdict and waiver rows
that the decision read, so another verdict is another release.
"""

from __future__ import annotations

from stillhouse.phases import slots as needs
from stillhouse.phases.contract import Context
from stillhouse.schemas.artifact import Kind, Product
from stillhouse.schemas.plan import Made, Need, PhaseSpec, Slot
from stillhouse.schemas.recipe import Recipe


def slots(recipe: Recipe) -> tuple[Slot, ...]:
    """One slot, when the recipe asks for a release."""
    if recipe.deployment is None or recipe.export is None:
        return ()
    params = {
        "deployment": recipe.deployment.to_json(),
        "name": recipe.name,
        "tier": str(recipe.tier),
        "policy": recipe.policy,
        "primary": recipe.export.primary,
        "prefill": list(recipe.export.prefill),
        "decode_capacity": recipe.export.decode_capacity,
    }
    return (Slot(id="deployment", params=params, needs=_needs(recipe)),)


def _needs(recipe: Recipe) -> tuple[Need, ...]:
    assert recipe.export is not None  # noqa: S101  # [deployment] needs [conversion] needs [export]
    found = [
        Need(role=f"{output}/{s.id}", slot=s.slot(phase), output=output, optional=s.optional)
        for s in recipe.export.shapes
        for phase, output in (
            ("conversion", "mlpackage"),
            ("export", "export"),
            ("export", "contract"),
        )
    ]
    return (*found, needs.checkpoint(recipe))


SPEC = PhaseSpec(
    name="deployment",
    version=3,
    slots=slots,
    makes=(Made(role="release", kind=Kind.RELEASE),),
    tools=(),
    seals=True,
)


def run(context: Context) -> tuple[Product, ...]:
    """Assemble the release and store it. Raises PhaseError when a required gate is closed."""
    from stillhouse.phases.deployment.work import release

    return (release(context),)
