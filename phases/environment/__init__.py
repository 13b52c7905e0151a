"""Phase 1: what this machine is, and whether the versions on it are ones we can vouch for.

Owns the probe (`probe.py`) and the version gate (`versions.py`). Probed when the reactor starts,
never memoised. Importing it costs a few milliseconds and no heavy library, so that `still doctor`
feels instant.
"""

from __future__ import annotations

from typing import Any

from stillhouse.phases.environment.probe import PACKAGES, Cpu, Environment, probe
from stillhouse.phases.environment.versions import Finding, Level, findings

__all__ = ["PACKAGES", "Cpu", "Environment", "Finding", "Level", "facts", "findings", "probe"]


def facts(environment: Environment) -> dict[str, Any]:
    """What of the environment travels in its event: the probe, the findings and two metrics.

    `unsupported` counts what is refused or missing, `warnings` what only warns.
    """
    from stillhouse.schemas.report import metric  # pydantic: not worth paying at import

    said = findings(environment)
    refused = sum(f.level in ("refused", "missing") for f in said)
    warned = sum(f.level == "warn" for f in said)
    metrics = (
        metric("unsupported", refused, unit="count", n=len(said)),
        metric("warnings", warned, unit="count", n=len(said)),
    )
    return {
        "phase": "environment",
        "metrics": [m.to_json() for m in metrics],
        "not_run": [],
        "environment": environment.to_json(),
        "findings": [
            {"level": f.level, "package": f.package, "version": f.version, "reason": f.reason}
            for f in said
            if f.level != "ok"
        ],
    }
