"""Where runs execute: the environment of this process, probed again when packages change.

A daemon lives for weeks, and packages are upgraded under it. Its workers would import the new ones.
So before anything starts, the site looks at the folders that packages are installed into. When one
of them changed, it probes the environment again, and runs are keyed by what is there now.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from stillhouse.phases import environment
from stillhouse.registry.planning.views import Site
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.events import ArtifactPublished
from stillhouse.schemas.limits import Limits
from stillhouse.store.disk.hashing import hash_bytes


class Surroundings:
    """The environment as it was last probed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.data = b""
        """The environment as a blob."""
        self.site: Site
        self._probe()

    def looks_changed(self) -> bool:
        """Whether a folder of packages changed since the last probe."""
        return _stamps() != self._stamps

    def probe(self) -> bool:
        """Probe again; whether the environment is another."""
        before = self.data
        self._probe()
        return self.data != before

    def allow(self, limits: Limits) -> None:
        """Other limits from now on."""
        self._limits = limits
        self.site = replace(self.site, limits=limits)

    def fact(self) -> ArtifactPublished:
        """The event that records this environment; `data` is the blob."""
        return ArtifactPublished(
            digest=self.site.environment,
            kind=Kind.ENVIRONMENT,
            form="blob",
            size=len(self.data),
            origin="probe",
            facts=environment.facts(self._probed).to_json(),
        )

    def _probe(self) -> None:
        self._stamps = _stamps()
        self._probed = environment.probe()
        self.data = canonical.encode(self._probed.to_json())
        self.site = Site(
            environment=hash_bytes(self.data).digest,
            versions=self._probed.versions,
            limits=self._limits,
        )


def _stamps() -> tuple[tuple[str, int], ...]:
    """(folder, mtime_ns) of every folder that modules are imported from."""
    found = []
    for entry in sys.path:
        try:
            found.append((entry, Path(entry).stat().st_mtime_ns))
        except OSError:
            found.append((entry, 0))
    return tuple(found)
