"""One frozen model per fact. `EVENTS` maps the type's name to its payload.

Payloads carry whatever decisions, gates, SQL or the manifest read, so that nobody opens a blob to
decide. Every change of a payload raises its `VERSION`, also one optional field or one more kind: an
older program refuses what it does not know, and must answer `event.too_new`, not "restore a copy".
tests/golden/payloads.json holds the form of every version; a changed form fails its test. So does
tests/golden/facts.json for the facts of an artifact, which have a form for each kind.

A change that only adds optional fields or values leaves `READS_FROM` alone: earlier data reads as
it stands, at no cost. Any other change sets `READS_FROM` to the new version and adds an upcaster to
`schemas/upcast.py`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from stillhouse.schemas.artifact import FileFact, Form, Kind, Origin, Parent
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.policy import CheckResult, Tier, Verdict
from stillhouse.schemas.value import Value


class Payload(Value):
    """The base of every payload."""

    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1
    """The version that is written."""
    READS_FROM: ClassVar[int] = 1
    """The earliest version whose data has today's form: later ones only added to it."""

    @classmethod
    def reads(cls, version: int) -> bool:
        """Whether data of `version` has today's form as it stands."""
        return cls.READS_FROM <= version <= cls.VERSION


class ArtifactPublished(Payload):
    """An artifact exists: its bytes are durable in the store."""

    TYPE = "artifact.published"
    digest: Digest
    kind: Kind
    form: Form
    size: int = Field(ge=0)
    """Payload bytes (for a tree, the sum of its files)."""
    origin: Origin
    run: Digest | None = None
    role: str | None = None
    """Which output of its run this is."""
    name: str | None = None
    parents: tuple[Parent, ...] = ()
    facts: dict[str, Any] = Field(default_factory=dict)
    """In the form of the kind (schemas/facts.py), which belongs to this payload's version."""
    files: tuple[FileFact, ...] = ()


class PlanRequested(Payload):
    """Someone asked for this recipe's plan (`still run`, or a drop in watch mode).

    Failed and cancelled runs of the plan may be tried again after it.
    """

    TYPE = "plan.requested"
    VERSION = 2
    plan: Digest
    """Digest of the resolved recipe."""
    priority: int = Field(default=0, ge=-100, le=100)
    """Where two plans want the same worker, the higher one gets it; among equals the earlier."""
    given: dict[Digest, int] | None = None
    """Artifact that the recipe names and a run made -> the event that published the one meant."""


class PlanCancelled(Payload):
    """Someone no longer wants this plan; it is not advanced until it is asked for again."""

    TYPE = "plan.cancelled"
    plan: Digest
    reason: str = ""


class RunStarted(Payload):
    """A worker is about to execute a phase on given inputs."""

    TYPE = "run.started"
    run: Digest
    """The run key."""
    phase: str
    phase_version: int
    plan: Digest
    slot: str
    attempt: int = Field(ge=1)
    """1, 2, 3 … over the run's whole life; never used twice."""
    inputs: tuple[Parent, ...]
    """Inputs (in the key) and circumstances (not in it)."""
    params: dict[str, Any]
    tools: dict[str, str]
    """Versions of the packages that the phase declares."""


class RunSucceeded(Payload):
    """A run ended well; its artifacts are in the same batch."""

    TYPE = "run.succeeded"
    run: Digest
    phase: str
    plan: Digest
    slot: str
    attempt: int
    outputs: tuple[Parent, ...]
    """role -> digest of what it made."""
    seconds: float
    log: Digest | None = None


class RunFailed(Payload):
    """A run ended with an error, or was ended for taking more than it may.

    It waits for `still retry` or a new `still run`; a transient failure is tried again by itself.
    """

    TYPE = "run.failed"
    run: Digest
    phase: str
    plan: Digest
    slot: str
    attempt: int
    code: str
    message: str
    remedy: str
    seconds: float
    log: Digest | None = None
    transient: bool = False
    """True: the cause lies outside the run (a full disk, a busy file), and may be gone later."""


class RunAbandoned(Payload):
    """A run's process died without an outcome."""

    TYPE = "run.abandoned"
    run: Digest
    phase: str
    plan: Digest
    slot: str
    attempt: int
    reason: str
    stopped: bool = False
    """True: it was ended on purpose, and that does not count against the run."""


class RunCancelled(Payload):
    """Someone asked for a run to end; it is not started again until it is asked for anew."""

    TYPE = "run.cancelled"
    run: Digest
    attempt: int
    """The attempt that was going on, or the last one."""
    reason: str = ""


class RunReused(Payload):
    """A slot is filled by a run that already succeeded with the same key."""

    TYPE = "run.reused"
    run: Digest
    phase: str
    plan: Digest
    slot: str


class RunRetried(Payload):
    """Someone asked for a failed run to be tried again."""

    TYPE = "run.retried"
    run: Digest


class GateEvaluated(Payload):
    """A gate was judged over one report under one policy."""

    TYPE = "gate.evaluated"
    gate: str
    subject: Digest
    """The artifact that was measured."""
    evidence: Digest
    """The report."""
    policy: Digest
    verdict: Verdict
    checks: tuple[CheckResult, ...]


class GateWaived(Payload):
    """A person takes responsibility for a gate that did not pass, until a time."""

    TYPE = "gate.waived"
    gate: str
    subject: Digest
    author: str
    reason: str
    until: str
    """UTC, RFC 3339. After it the gate blocks again."""


class TagMoved(Payload):
    """A name now means this artifact."""

    TYPE = "tag.moved"
    name: str
    digest: Digest
    previous: Digest | None = None


class ReleaseCut(Payload):
    """A release was sealed."""

    TYPE = "release.cut"
    release: Digest
    plan: Digest
    tier: Tier
    depends_on: int
    """Sequence number of the last event that the release rests on."""


class BytesCondemned(Payload):
    """Nothing keeps the bytes of these artifacts any longer; they are swept after the grace.

    What was published stays recorded for ever: only bytes go.
    """

    TYPE = "bytes.condemned"
    artifacts: tuple[Digest, ...]
    orphans: tuple[Digest, ...] = ()
    """Objects that belong to no artifact: what a killed publisher left, logs of forgotten runs."""
    objects: int = Field(ge=0)
    size: int = Field(ge=0)
    """Bytes of the objects that only these artifacts and orphans hold."""
    until: str
    """UTC, RFC 3339. Not swept before."""


class BytesReprieved(Payload):
    """Condemned bytes are kept after all: something keeps them again."""

    TYPE = "bytes.reprieved"
    artifacts: tuple[Digest, ...]
    objects: int = Field(ge=0)


class BytesSwept(Payload):
    """Condemned bytes are gone."""

    TYPE = "bytes.swept"
    artifacts: tuple[Digest, ...]
    orphans: tuple[Digest, ...] = ()
    objects: int = Field(ge=0)
    size: int = Field(ge=0)
    """Bytes that were freed."""


class ArtifactEvicted(Payload):
    """Someone dropped the bytes of an artifact that its run can make again."""

    TYPE = "artifact.evicted"
    digest: Digest
    run: Digest
    """The run that made it."""
    size: int = Field(ge=0)
    """Bytes that were freed."""


class ArtifactRestored(Payload):
    """The bytes of an artifact are there again, and are those that were recorded."""

    TYPE = "artifact.restored"
    digest: Digest
    how: Literal["run", "file", "registry"]
    """Made again by its run, or taken from a given file or another registry."""
    seconds: float = 0.0


class RunDiffered(Payload):
    """A run was executed again and made something else: it is not deterministic here."""

    TYPE = "run.differed"
    run: Digest
    role: str
    expected: Digest
    made: Digest


EVENTS: dict[str, type[Payload]] = {
    payload.TYPE: payload
    for payload in (
        ArtifactPublished,
        PlanRequested,
        PlanCancelled,
        RunStarted,
        RunSucceeded,
        RunFailed,
        RunAbandoned,
        RunCancelled,
        RunReused,
        RunRetried,
        GateEvaluated,
        GateWaived,
        TagMoved,
        ReleaseCut,
        BytesCondemned,
        BytesReprieved,
        BytesSwept,
        ArtifactEvicted,
        ArtifactRestored,
        RunDiffered,
    )
}
