"""What runs may take: workers, memory, time, attempts. Read from the registry's `config.toml`.

Limits are circumstances: no run key holds them, and changing one re-runs nothing.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stillhouse.schemas.value import Value

Workers = Annotated[int, Field(ge=1, le=64)]
Bytes = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class PhaseLimits(Value):
    """What the runs of one phase may take."""

    workers: Workers | None = None
    """Runs of this phase at once."""
    memory: Bytes | None = None
    """Bytes that one run may hold; it is ended beyond, and this much is set aside for it."""
    seconds: Seconds | None = None
    """Wall time of one attempt; it is ended beyond."""


class Limits(Value):
    """What all runs together may take."""

    workers: Workers = 1
    """Runs at once."""
    memory: Bytes | None = None
    """Bytes that are set aside for all runs together, by what their phases name."""
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """How often in a row a run is started by itself: the first time, and after deaths and
    transient failures."""
    backoff: Annotated[float, Field(ge=0, le=3600)] = 1.0
    """Seconds before the second attempt; doubled for each further one, up to an hour."""
    phases: dict[str, PhaseLimits] = Field(default_factory=dict)

    def of(self, phase: str) -> PhaseLimits:
        """The limits of one phase; none where none are named."""
        return self.phases.get(phase, PhaseLimits())

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row (at least one)."""
        return min(3600.0, self.backoff * 2.0 ** (failures - 1))
