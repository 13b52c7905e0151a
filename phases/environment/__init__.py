"""Phase 1: what this machine is, and whether the versions on it are ones we can vouch for.

Owns the probe (`probe.py`) and the version gate (`versions.py`). Probed when the reactor starts,
never memoised. Importing it costs a few milliseconds and no heavy library, so that `still doctor`
feels instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse.phases.environment.probe import PACKAGES, Cpu, Environment, probe
from stillhouse.phases.environment.versions import Finding, Level, findings

if TYPE_CHECKING:
    from stillhouse.schemas.facts import EnvironmentFacts

__all__ = ["PACKAGES", "Cpu", "Environment", "Finding", "Level", "facts", "findings", "probe"]


def facts(environment: Environment) -> EnvironmentFacts:
    """What of the environment travels in its event: the probe, the findings and two metrics.

    `unsupported` counts what is refused or missing, `warnings` what only warns.
    """
    # pydantic: not worth paying at import
    from stillhouse.schemas.facts import EnvironmentFacts, VersionFinding
    from stillhouse.schemas.report import metric

    said = findings(environment)
    refused = sum(f.unsupported for f in said)
    warned = sum(f.level == "warn" for f in said)
    return EnvironmentFacts(
        metrics=(
            metric("unsupported", refused, unit="count", n=len(said)),
            metric("warnings", warned, unit="count", n=len(said)),
        ),
        environment=environment.to_json(),
        findings=tuple(
            VersionFinding(level=f.level, package=f.package, version=f.version, reason=f.reason)
            for f in said
            if f.level != "ok"
        ),
    )
