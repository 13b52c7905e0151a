"""The main job on the real teacher: SmolLM2-135M, eight of its layers, from GGUF to release."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .still import events, still

pytestmark = pytest.mark.real

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_smoke_recipe_ends_in_a_release_that_verifies(tmp_path: Path) -> None:
    registry, out = tmp_path / "still", tmp_path / "release"
    still(registry, "init")
    still(registry, "run", str(EXAMPLES / "smoke.toml"))
    still(registry, "manifest", "--tier", "tier_3", "--out", str(out))
    still(registry, "verify", str(out))
    manifest = json.loads((out / "deployment_manifest.json").read_bytes())
    assert {c["name"] for c in manifest["capabilities"]} == {
        "matches_checkpoint",
        "stateful_decode",
    }
    before = len(events(registry))
    still(registry, "run", str(EXAMPLES / "smoke.toml"))
    assert len(events(registry)) == before
