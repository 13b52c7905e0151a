"""Exporting and converting again, here or in another process, gives the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .graph_parts import convert_tiny, export_tiny, tiny_checkpoint

pytestmark = [pytest.mark.coreml, pytest.mark.slow]

HERE = Path(__file__).parent

_ELSEWHERE = """
import importlib.util, json, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
spec = importlib.util.spec_from_file_location("graph_parts", sys.argv[1])
parts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(parts)
checkpoint, work = Path(sys.argv[2]), Path(sys.argv[3])
digests = {}
for mode in ("prefill", "decode"):
    for products in (
        parts.export_tiny(checkpoint, mode, work / mode),
        parts.convert_tiny(work / mode, work / (mode + "-package")),
    ):
        digests |= {f"{mode} {role}": p.digest for role, p in products.items() if role != "report"}
print(json.dumps(digests))
"""


def in_another_process(checkpoint: Path, work: Path) -> dict[str, str]:
    """The digests that a process with other hash seeds, folder and time zone comes to."""
    environment = os.environ | {
        "PYTHONHASHSEED": "12345",
        "PYTHONPATH": str(HERE.parent.parent),
        "TZ": "Pacific/Kiritimati",
    }
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(HERE / "graph_parts.py"), checkpoint, work],
        capture_output=True,
        text=True,
        check=True,
        cwd=work,
        env=environment,
    )
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_processes_make_the_same_graphs_contracts_and_packages(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    there = in_another_process(checkpoint, elsewhere)
    here: dict[str, str] = {}
    for mode in ("prefill", "decode", "decode"):  # the last again, in a process that is not fresh
        work = tmp_path / mode
        made = export_tiny(checkpoint, mode, work) | convert_tiny(work, work / "package")
        found = {f"{mode} {role}": p.digest for role, p in made.items() if role != "report"}
        assert len(found) == 3
        assert {name: there[name] for name in found} == found
        here |= found
    assert here == there
