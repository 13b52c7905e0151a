"""Plans: the slots that one resolved recipe asks for, and how the catalog describes a phase.

A slot is one run to be had: of a phase, about one shape or about no single one (schemas/slot.py).
All slots are enumerated from the recipe, never guessed from lineage. A slot is *settled* when it is
filled (its run succeeded, here or earlier under the same key) or when it is optional and failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Need:
    """One input of a slot: an output of another slot, or a digest that the recipe names."""

    role: str
    slot: str | None = None
    output: str | None = None
    digest: Digest | None = None
    optional: bool = False
    """True: the slot starts without it when the other slot settled empty."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One run that a plan asks for."""

    id: str
    """A `SlotId`, as text: `training`, `export/prefill-128`."""
    params: dict[str, Any]
    """The parameters that the phase reads; part of the run key."""
    needs: tuple[Need, ...]
    optional: bool = False
    """True: a failure is recorded and blocks nothing."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """One output that a phase promises."""

    role: str
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class PhaseSpec:
    """One row of the catalog."""

    name: str
    version: int
    """Bumped when the same inputs and parameters would give other outputs."""
    slots: Callable[[Recipe], tuple[Slot, ...]]
    """The slots of this phase in a resolved recipe; pure."""
    makes: tuple[Made, ...]
    tools: tuple[str, ...]
    """Distributions whose versions are in the run key."""
    start_gates: tuple[str, ...] = ()
    """Gates over this slot's inputs that must have passed (or be waived) before it starts."""
    seals: bool = False
    """True: the run reads verdicts, so its key holds them (deployment)."""
