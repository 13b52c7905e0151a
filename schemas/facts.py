"""Facts: what the event of an artifact carries, by the kind of the artifact.

Rules: the code that records makes one of these values and dumps it; the code that reads parses it
with `facts_of`. FORMS holds the kinds whose facts are read by decisions, gates, SQL, the manifest
or another phase. All other facts are for people, and free. These are the facts of other kinds, and
of all that a person published, except recipes and policies.

A form belongs to the version of `artifact.published`. Every change of one, also an optional fact
more, raises ArtifactPublished.VERSION. tests/golden/facts.json holds the forms of every version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import SHORT, Digest, Sha256
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.policy import Policy, Tier
from stillhouse.schemas.recipe import Recipe
from stillhouse.schemas.report import Metric
from stillhouse.schemas.slot import Mode
from stillhouse.schemas.value import Value


class Facts(Value):
    """The base of every form. Built on first use: most commands read none."""

    model_config = ConfigDict(defer_build=True)


F = TypeVar("F", bound=Facts)


class RecipeFacts(Facts):
    """A resolved recipe travels whole."""

    recipe: Recipe


class PolicyFacts(Facts):
    """A policy travels whole."""

    policy: Policy


class ReportFacts(Facts):
    """What gates and comparisons read of a report; its details stay in the blob."""

    phase: str
    subject: Digest
    """The artifact that the metrics are about."""
    metrics: tuple[Metric, ...]
    not_run: tuple[str, ...] = ()
    """Checks that could not run."""


class VersionFinding(Value):
    """One package or platform that the version gate does not call `ok`."""

    level: str
    package: str
    version: str
    """Empty when it is not installed."""
    reason: str


class EnvironmentFacts(Facts):
    """A probe, and what the version gate says of it; further facts are kept as they are."""

    model_config = ConfigDict(extra="allow")  # the first ledgers held the bare probe

    phase: Literal["environment"] = "environment"
    metrics: tuple[Metric, ...] = ()
    not_run: tuple[str, ...] = ()
    environment: dict[str, Any] = Field(default_factory=dict)
    """The probe: the artifact's own content."""
    findings: tuple[VersionFinding, ...] = ()


class ExportFacts(Facts):
    """Which graph an archive holds."""

    mode: Mode
    length: int
    """Tokens: T for prefill, the state's capacity for decode."""
    format: Literal["torch.export.pt2"] = "torch.export.pt2"


class TensorFacts(Value):
    """One input, output or state of a graph."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class ContractFacts(Facts):
    """The summary of a contract (schemas/contract.py)."""

    mode: Mode
    length: int
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    states: tuple[TensorFacts, ...]
    export: Digest
    export_sha256: Sha256
    checkpoint: Digest
    max_abs: float | None = None
    """Largest |exported - checkpoint| over the golden tokens' logits, in fp32."""
    target: str
    precision: str
    rms_norm: str
    vocab_size: int


class MlpackageFacts(Facts):
    """What a package was converted from, and for what. Verification reports what is absent."""

    export: Digest | None = None
    contract: Digest | None = None
    specification_version: int | None = None
    target: str | None = None
    precision: str | None = None


class ReleaseFacts(Facts):
    """What a release rests on and claims; the rest is in its manifest."""

    name: str
    tier: Tier
    plan: Digest
    policy: Digest
    depends_on: int
    """Sequence number of the last event that the release rests on."""
    manifest: Digest
    manifest_sha256: Sha256
    shapes: dict[str, str]
    """`prefill-128` -> `released`, `failed` or `excluded`."""
    capabilities: tuple[str, ...]
    not_run: tuple[str, ...]


FORMS: Mapping[Kind, type[Facts]] = {
    Kind.RECIPE: RecipeFacts,
    Kind.POLICY: PolicyFacts,
    Kind.ENVIRONMENT: EnvironmentFacts,
    Kind.REPORT: ReportFacts,
    Kind.EXPORT: ExportFacts,
    Kind.CONTRACT: ContractFacts,
    Kind.MLPACKAGE: MlpackageFacts,
    Kind.RELEASE: ReleaseFacts,
}


class Carrier(Protocol):
    """A publication, or what a phase or a manifest knows of one."""

    @property
    def digest(self) -> Digest:
        """The artifact."""
        ...

    @property
    def kind(self) -> Kind:
        """Its kind."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What its event carries, as JSON."""
        ...


def facts_of(carrier: Carrier, form: type[F]) -> F:
    """What the event of an artifact carries, typed.

    Raises IntegrityError `event.malformed` when it does not have that form.
    """
    try:
        return form.model_validate(dict(carrier.facts))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise IntegrityError(
            f"The event of the {carrier.kind} {carrier.digest[:SHORT]} does not carry the facts of "
            f"its kind: {where}: {fault['msg']}.",
            remedy="Another program wrote it; restore events.log from a copy.",
            code="event.malformed",
        ) from error
