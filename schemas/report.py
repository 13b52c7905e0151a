"""Reports: measurements, flat and comparable. A report judges nothing; gates do.

A report is one canonical JSON blob. Its metrics also travel in the event that publishes it, so that
gates and SQL never open a blob.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from stillhouse.schemas.digest import Digest
from stillhouse.schemas.value import Value

_LARGEST = 2.0**53


class Metric(Value):
    """One measured number."""

    name: str
    """Dotted: `trained.kl`, `fp32.top1_agreement`."""
    value: float | None = None
    """None: measured, but not finite (see `nonfinite`)."""
    unit: str = ""
    """`nats`, `fraction`, `seconds`, `count` …"""
    n: int | None = Field(default=None, ge=0)
    """How many items the number rests on."""
    low: float | None = None
    high: float | None = None
    """Ends of the 95 % confidence interval, where there is one."""
    nonfinite: Literal["nan", "inf", "-inf", "huge", "-huge"] | None = None
    """Why there is no value. `huge`: finite, but beyond 2**53, where RFC 8785 numbers end."""


def metric(
    name: str,
    value: float,
    *,
    unit: str = "",
    n: int | None = None,
    interval: tuple[float, float] | None = None,
) -> Metric:
    """A Metric; a non-finite value becomes null plus its name, and so can never pass a gate."""
    low, high = (
        interval if interval and all(abs(end) < _LARGEST for end in interval) else (None, None)
    )
    if abs(value) < _LARGEST:
        return Metric(name=name, value=float(value), unit=unit, n=n, low=low, high=high)
    if math.isnan(value):
        return Metric(name=name, value=None, unit=unit, n=n, nonfinite="nan")
    if math.isinf(value):
        spelled: Literal["inf", "-inf"] = "inf" if value > 0 else "-inf"
        return Metric(name=name, value=None, unit=unit, n=n, nonfinite=spelled)
    return Metric(name=name, value=None, unit=unit, n=n, nonfinite="huge" if value > 0 else "-huge")


class Report(Value):
    """What one run measured about one subject."""

    schema_version: Literal[1] = 1
    phase: str
    subject: Digest
    """The artifact that the metrics are about."""
    metrics: tuple[Metric, ...]
    not_run: tuple[str, ...] = ()
    """Checks that could not run here (`device_predict` off macOS). Never counted as a pass."""
    details: dict[str, Any] = Field(default_factory=dict)
    """Curves, per-item rows, notes. Read by people, never by gates."""
