"""The projection among processes that die: killed while it catches up or rebuilds."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.registry.projection.projection import Projection
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import TagMoved

from .documented import OF_THE_PROJECTION

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

CATCH_UP_FOR_EVER = """
import sys
from pathlib import Path
from stillhouse.registry.projection.projection import Projection
folder = Path(sys.argv[1])
projection = Projection(folder / "registry.duckdb", folder / "events.log")
print("ready", flush=True)
for turn in range(1_000_000):
    projection.rebuild(30) if turn % 5 == 0 else projection.catch_up(30)
"""


def test_killed_projectors_leave_what_the_next_one_makes_whole(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "events.log", lambda: NOON, Actor(user="ada", host="h"))
    chance = random.Random(7)
    for _ in range(6):
        command = [sys.executable, "-c", CATCH_UP_FOR_EVER, str(tmp_path)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
        ) as projector:
            assert projector.stdout is not None
            assert projector.stdout.readline() == b"ready\n"
            until = time.monotonic() + chance.random() * 0.3
            while time.monotonic() < until:
                ledger.append([TagMoved(name="x" * 500, digest="ab" * 32) for _ in range(20)])
            projector.send_signal(signal.SIGKILL)
    seq = ledger.append([TagMoved(name="last", digest="ab" * 32)])[0].seq
    projection = Projection(tmp_path / "registry.duckdb", ledger.path)
    assert projection.query("SELECT count(*), max(seq) FROM event").rows == ((seq, seq),)
    assert projection.query(OF_THE_PROJECTION).rows == ((0,),)
