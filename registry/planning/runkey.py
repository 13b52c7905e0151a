r"""Run keys: the digest of exactly what determines a run's outputs.

    b"stillhouse run-key v1\n" + canonical JSON of
        {"phase", "version", "params", "inputs": [[role, digest] …],
         "tools": {distribution: version}}

Circumstances (the recipe as a whole, the environment) are recorded beside a run and are not in its
key; no path ever is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blake3 import blake3

from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import Parent
from stillhouse.schemas.digest import Digest

_TAG = b"stillhouse run-key v1\n"


def run_key(
    *,
    phase: str,
    version: int,
    params: Mapping[str, Any],
    inputs: Sequence[Parent],
    tools: Mapping[str, str],
) -> Digest:
    """The run key. `inputs` in the order of the slot's needs; circumstances are left out."""
    image = {
        "phase": phase,
        "version": version,
        "params": dict(params),
        "inputs": [[i.role, i.digest] for i in inputs if not i.circumstance],
        "tools": dict(tools),
    }
    return blake3(_TAG + canonical.encode(image)).hexdigest()
