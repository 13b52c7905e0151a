"""The deployment manifest and the runtime config: what `still manifest` writes and `verify` reads.

Both are byte-deterministic: no wall-clock time enters them, only facts of recorded events.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from stillhouse.schemas.artifact import Kind, Origin
from stillhouse.schemas.digest import Digest, Sha256
from stillhouse.schemas.policy import CheckResult, Tier, Verdict
from stillhouse.schemas.slot import Mode, shape_id
from stillhouse.schemas.value import Value

MANIFEST = "deployment_manifest.json"
RUNTIME_CONFIG = "runtime_config.json"


class ReleasedFile(Value):
    """One file of the deployable folder."""

    path: str
    size: int = Field(ge=0)
    blake3: Digest
    sha256: Sha256
    artifact: Digest | None = None
    """The artifact that it belongs to; None for the runtime config."""


class ReleasedArtifact(Value):
    """One artifact that the release contains or rests on."""

    role: str
    kind: Kind
    digest: Digest
    size: int
    origin: Origin
    name: str | None = None
    seq: int
    """The event that published it."""
    released: bool
    """True: its files are in the deployable folder."""


class GateRow(Value):
    """One verdict, with the numbers it was judged on."""

    gate: str
    slot: str
    subject: Digest
    evidence: Digest | None = None
    policy: Digest
    verdict: Verdict
    required: bool
    checks: tuple[CheckResult, ...] = ()
    seq: int | None = None
    waiver: WaiverRow | None = None
    expired: tuple[WaiverRow, ...] = ()
    """Waivers that were in force once, where none was when the release was cut."""


class WaiverRow(Value):
    """Who took responsibility for a gate that did not pass."""

    author: str
    reason: str
    until: str
    seq: int


class ShapeRow(Value):
    """One graph that the recipe asked for, and what became of it."""

    mode: Mode
    length: int
    primary: bool
    status: Literal["released", "failed", "excluded"]
    reason: str | None = None
    max_abs: float | None = None
    """Largest |exported - checkpoint| of the export's own check."""

    @property
    def id(self) -> str:
        """The id of the shape: `prefill-128`."""
        return shape_id(self.mode, self.length)


class Capability(Value):
    """Something the release may claim, because gates on its own digests passed."""

    name: str
    gates: tuple[str, ...]
    subjects: tuple[Digest, ...]


class RunRow(Value):
    """One recorded run of the provenance."""

    run: Digest
    phase: str
    phase_version: int
    slot: str
    """Of `plan`, also where that reused the run."""
    plan: Digest | None = None
    """Whose slot it is: the released plan, or one whose run made what the recipe names."""
    reused: bool = False
    """Whether the run was started for another plan."""
    attempt: int | None = None
    """The attempt that succeeded; None in manifests of rule 1."""
    inputs: dict[str, list[Digest]]
    outputs: dict[str, Digest]
    params: dict[str, Any]
    tools: dict[str, str]
    environment: Digest | None = None
    seq: int


class Head(Value):
    """The last ledger event that the release depends on."""

    seq: int
    hash: Sha256


class Manifest(Value):
    """What a release is, and what it claims."""

    schema_version: Literal[1, 2] = 2
    rule: Literal[1, 2] = 1
    """By which provenance was walked: 1, by equal bytes; 2, by the plan's own runs."""
    name: str
    tier: Tier
    plan: Digest
    policy: Digest
    recipe: dict[str, Any]
    """The resolved recipe: every reference is a digest."""
    artifacts: tuple[ReleasedArtifact, ...]
    files: tuple[ReleasedFile, ...]
    """Every file of the folder but this one."""
    capabilities: tuple[Capability, ...]
    gates: tuple[GateRow, ...]
    not_run: tuple[str, ...]
    """Checks that could not run where the release was made."""
    shapes: tuple[ShapeRow, ...]
    """Every graph that the recipe asked for; optional ones may have failed."""
    provenance: tuple[RunRow, ...]
    toolchain: dict[str, str]
    environment: dict[str, Any]
    depends_on: Head
    signature: Literal["unsigned"] = "unsigned"
    limits: tuple[str, ...] = ()
    """What this release does not claim, in words."""


class ModelEntry(Value):
    """One package of the runtime config."""

    path: str
    mode: Mode
    length: int
    contract: str
    primary: bool


class RuntimeConfig(Value):
    """What a runtime needs to load and drive the packages."""

    schema_version: Literal[1] = 1
    name: str
    models: tuple[ModelEntry, ...]
    tokenizer: str | None = None
    eos_token_ids: tuple[int, ...]
    vocab_size: int
    max_new_tokens: int
    temperature: float
    max_refinement_loops: int
    max_latent_spans: int
    caws_tier: Tier
