"""What a release run is asked for: its parameters, typed, and the graphs that reached it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phases.shapes import Shape, shapes_of
from schemas.contract import Contract
from schemas.digest import Digest
from schemas.policy import CheckResult, Tier, Verdict
from schemas.recipe import DeploymentSection
from schemas.release import WaiverRow
from schemas.value import Value


class VerdictRow(Value):
    """One gate over one slot, as the decision to release read it."""

    gate: str
    slot: str
    subject: Digest | None = None
    """None: there was nothing to measure (the slot's run failed)."""
    evidence: Digest | None = None
    policy: Digest
    verdict: Verdict
    required: bool
    checks: tuple[CheckResult, ...] = ()
    seq: int | None = None
    waiver: WaiverRow | None = None

    @property
    def open(self) -> bool:
        """Whether the gate lets its subject into a release."""
        return self.verdict is Verdict.PASS or self.waiver is not None

    @property
    def shape(self) -> str:
        """The shape that the slot is about; empty for slots without one."""
        return self.slot.partition("/")[2]


class Request(Value):
    """The parameters of a deployment run."""

    deployment: DeploymentSection
    name: str
    tier: Tier
    plan: Digest
    policy: Digest
    primary: int
    prefill: tuple[int, ...]
    decode_capacity: int | None = None
    verdicts: tuple[VerdictRow, ...]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Every graph that the recipe asks for."""
        return shapes_of(self.prefill, self.primary, self.decode_capacity)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One shape that is released: its package, its archive and its contract."""

    shape: Shape
    mlpackage: Digest
    export: Digest
    contract: Digest
    promises: Contract
    """The contract's content."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What the runtime config needs of the checkpoint."""

    digest: Digest
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    """Sorted; any of them ends an answer."""
    has_tokenizer: bool


def eos_of(*configs: Mapping[str, Any]) -> tuple[int, ...]:
    """Every `eos_token_id` of some Hugging Face config files (a number or a list), sorted."""
    found: set[int] = set()
    for config in configs:
        value = config.get("eos_token_id")
        values = value if isinstance(value, list) else [value]
        found |= {v for v in values if isinstance(v, int) and not isinstance(v, bool)}
    return tuple(sorted(found))
