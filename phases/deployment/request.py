"""What a release run is asked for: its parameters, typed, and the graphs that reached it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillhouse.schemas.contract import Contract
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.events import GateEvaluated, GateWaived
from stillhouse.schemas.policy import CheckResult, Tier, Verdict
from stillhouse.schemas.recipe import DeploymentSection
from stillhouse.schemas.release import WaiverRow
from stillhouse.schemas.slot import Shape, SlotId, shapes_of
from stillhouse.schemas.value import Value


class VerdictRow(Value):
    """One gate over one slot, as the decision to release read it.

    What the verdict's and the waiver's event hold is told by the ledger (`told`), not by the
    run's parameters, which must fit into one event however many shapes there are.
    """

    gate: str
    slot: str
    subject: Digest | None = None
    """None: there was nothing to measure (the slot's run failed)."""
    evidence: Digest | None = None
    policy: Digest | None = None
    """None: that of the request."""
    verdict: Verdict
    required: bool
    checks: tuple[CheckResult, ...] = ()
    seq: int | None = None
    """The event of the verdict."""
    waiver_seq: int | None = None
    """The event of the waiver."""
    waiver: WaiverRow | None = None
    lapsed_seqs: tuple[int, ...] = ()
    """The events of waivers that have expired, oldest first, where none is in force."""
    expired: tuple[WaiverRow, ...] = ()

    @property
    def open(self) -> bool:
        """Whether the gate lets its subject into a release, once the ledger told the waiver."""
        return self.verdict is Verdict.PASS or self.waiver is not None

    @property
    def shape(self) -> str | None:
        """The id of the shape that the slot is about; None for slots without one."""
        return SlotId.parse(self.slot).shape

    def told(
        self,
        verdicts: Mapping[int, GateEvaluated],
        waivers: Mapping[int, GateWaived],
        policy: Digest,
    ) -> VerdictRow:
        """The row with what its events hold, by their seq. `policy` is that of the request."""
        known: dict[str, Any] = {"policy": self.policy or policy}
        if self.seq is not None and (said := verdicts.get(self.seq)):
            known |= {"checks": said.checks, "policy": said.policy}
        if self.waiver_seq is not None and (waived := waivers.get(self.waiver_seq)):
            known["waiver"] = _waiver(self.waiver_seq, waived)
        known["expired"] = tuple(
            _waiver(seq, waivers[seq]) for seq in self.lapsed_seqs if seq in waivers
        )
        return self.model_copy(update=known)


def _waiver(seq: int, waived: GateWaived) -> WaiverRow:
    return WaiverRow(author=waived.author, reason=waived.reason, until=waived.until, seq=seq)


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

    @property
    def events(self) -> tuple[int, ...]:
        """Sequence numbers of the verdicts and waivers that the decision read."""
        told = [row.waiver.seq for row in self.verdicts if row.waiver]
        read = [seq for row in self.verdicts for seq in (row.seq, row.waiver_seq) if seq]
        lapsed = [seq for row in self.verdicts for seq in row.lapsed_seqs]
        return tuple(sorted({*read, *told, *lapsed}))

    def told(
        self, verdicts: Mapping[int, GateEvaluated], waivers: Mapping[int, GateWaived]
    ) -> Request:
        """The request with what the events of its rows hold."""
        rows = tuple(row.told(verdicts, waivers, self.policy) for row in self.verdicts)
        return self.model_copy(update={"verdicts": rows})


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
