"""Runs: what is known of one run key, and how it stands.

How a run stands is said here alone; the SQL view `runs` says the same, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.events import RunFailed, RunStarted


class RunStatus(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABANDONED = "abandoned"
    """Its process died."""
    CANCELLED = "cancelled"
    """Someone asked for its end while it went on, and it was ended."""


@dataclass(frozen=True, kw_only=True)
class RunName:
    """A run as answers name it."""

    run: Digest
    slot: str


@dataclass(frozen=True, kw_only=True)
class Success:
    """One attempt that succeeded; what it was given and made never changes again."""

    seq: int
    """Of `run.succeeded`."""
    started_seq: int
    started: RunStarted
    outputs: Mapping[str, Digest]
    """By role."""


@dataclass(frozen=True, kw_only=True)
class Fill:
    """A slot of a plan was filled: by a run of its own, or by one of another plan."""

    seq: int
    """Of `run.succeeded` or `run.reused`."""
    slot: str
    success: Success
    reused: bool


@dataclass(kw_only=True)
class Run:
    """What is known of one run key."""

    key: Digest
    started: RunStarted
    last: Literal["started", "succeeded", "failed", "abandoned"] = "started"
    """What its latest attempt came to, as the event's type says it."""
    attempts: int
    """Number of its latest attempt."""
    seq: int
    """Of its latest event."""
    started_seq: int
    """Of the start of its latest attempt."""
    failures: int = 0
    """Attempts in a row whose process died, or that failed for a cause outside the run; a new
    request or a retry begins another row."""
    ts: str
    """When the latest attempt started …"""
    ended_ts: str = ""
    """… and when it ended; empty while it goes on."""
    wished_seq: int = 0
    """When someone asked last for its end; 0: nobody did since its latest start."""
    heeded: bool = False
    """Whether it was ended because someone asked for that."""
    retried_seq: int = 0
    """When someone asked for a retry; 0: nobody did since its latest attempt ended."""
    outputs: dict[str, Digest] = field(default_factory=dict)
    seconds: float | None = None
    error: RunFailed | None = None
    reason: str = ""
    log: Digest | None = None

    @property
    def status(self) -> RunStatus:
        """The one word for how the run stands."""
        if self.last == "started":
            return RunStatus.RUNNING
        return RunStatus.CANCELLED if self.heeded else RunStatus(self.last)

    @property
    def going_on(self) -> bool:
        """Whether its latest attempt has no recorded end."""
        return self.last == "started"

    @property
    def unsuccessful(self) -> bool:
        """Whether its latest attempt ended without success."""
        return self.last in ("failed", "abandoned")

    @property
    def cancelled_seq(self) -> int:
        """When someone asked for its end, if it is not tried again for that; else 0."""
        holds = self.wished_seq > self.retried_seq and self.last != "succeeded"
        return self.wished_seq if holds else 0

    @property
    def goes_on_by_itself(self) -> bool:
        """Whether it ended in a way that is tried again, were there no limit to that."""
        lost = self.last == "abandoned" or (self.error is not None and self.error.transient)
        return self.unsuccessful and (lost or bool(self.retried_seq)) and not self.cancelled_seq

    def tried_again(self, attempts: int) -> bool:
        """Whether it is tried again by itself, where `attempts` in a row may go wrong."""
        return self.goes_on_by_itself and self.failures < attempts

    @property
    def environment(self) -> Digest | None:
        """The environment that the run was recorded in."""
        found = [p.digest for p in self.started.inputs if p.role == "environment"]
        return found[0] if found else None

    @property
    def name(self) -> RunName:
        """The run as answers name it."""
        return RunName(run=self.key, slot=self.started.slot)

    @property
    def short_name(self) -> str:
        """The run in a sentence."""
        return f"run {self.key[:SHORT]} ({self.started.slot})"

    @property
    def ending(self) -> str:
        """How the run ended, as the end of a sentence."""
        since = ", and it was cancelled since" if self.cancelled_seq else ""
        match self.status:
            case RunStatus.FAILED if self.error:
                return f"it failed: {self.error.message.rstrip('.')}{since}"
            case RunStatus.ABANDONED:
                return f"it was abandoned: {self.reason.rstrip('.')}{since}"
            case RunStatus.RUNNING:
                return "it goes on"
            case RunStatus.CANCELLED:
                return "it was cancelled"
            case status:
                return f"it {status}"
