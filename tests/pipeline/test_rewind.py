"""What real phases made is given up, and made again from what came from outside, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from .still import events, still, still_json
from .tiny import RECIPE, write

pytestmark = pytest.mark.slow


def test_an_export_is_made_again_from_the_sources_alone(tmp_path: Path) -> None:
    recipe = write(tmp_path / "input")
    shorter = RECIPE.partition("[conversion]")[0].replace("[16, 24]", "[16]")
    recipe.write_text(shorter, encoding="utf-8")
    registry = tmp_path / "still"
    still(registry, "init")
    still(registry, "run", str(recipe), expect=1)  # its policy wants gates of later phases
    made = [row for row in still_json(registry, "ls") if row["origin"] == "run"]
    evicted = [row["digest"] for row in made if row["kind"] not in ("teacher", "report")]
    for digest in evicted:
        still(registry, "evict", digest)
    still(registry, "fsck")
    wanted = next(row["digest"] for row in made if row["name"] == "prefill-16.pt2")
    told = still_json(registry, "rewind", wanted)
    assert [step["slot"] for step in told["steps"]] == ["dataset", "training", "export/prefill-16"]
    assert all(step["differed"] == [] for step in told["steps"])
    still(registry, "verify", wanted)
    still(registry, "fsck")
    recorded = [event["type"] for event in events(registry)]
    assert recorded.count("run.started") == 4  # as many as at first
    absent = {row["digest"] for row in still_json(registry, "ls") if row["bytes"] == "absent"}
    assert absent == {row["digest"] for row in made if row["name"] in _DECODE}


_DECODE = ("decode-24.pt2", "decode-24.json")
