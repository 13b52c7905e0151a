"""Diagnosing this machine: what is tested, what only warns, what is refused or missing."""

from __future__ import annotations

from stillhouse.phases import environment
from stillhouse.phases.environment.versions import Diagnosis, diagnose


def doctor() -> Diagnosis:
    """Probe the environment, and compare it with what is tested."""
    return diagnose(environment.probe())
