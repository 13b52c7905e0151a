"""The catalog: one row a phase that has slots, in topological order, and where its work is.

A phase is added by writing its module, adding its row here, and its tests. Rows are importable
without heavy libraries; a phase's work is imported by the worker that executes it.
"""

from __future__ import annotations

from importlib import import_module

from stillhouse.phases import (
    conversion,
    dataset,
    deployment,
    evaluation,
    export,
    training,
    verification,
)
from stillhouse.phases.contract import Phase
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.plan import PhaseSpec

CATALOG: tuple[PhaseSpec, ...] = (
    dataset.SPEC,
    training.SPEC,
    export.SPEC,
    conversion.SPEC,
    verification.SPEC,
    evaluation.SPEC,
    deployment.SPEC,
)


def phase_function(name: str) -> Phase:
    """The work of a phase: `run` in its module. Raises InputError for an unknown phase."""
    if name not in {spec.name for spec in CATALOG}:
        raise InputError(
            f"There is no phase named {name!r}.",
            remedy="Phases are: " + ", ".join(spec.name for spec in CATALOG) + ".",
            code="phase.unknown",
        )
    function: Phase = import_module(f"stillhouse.phases.{name}").run
    return function
