"""The projection among other programs: a shell that holds it a while, projectors side by side."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.registry.projection.projection import Projection
from stillhouse.schemas.errors import BusyError
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import TagMoved

from .documented import OF_THE_PROJECTION

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

SHELL = """
import duckdb, sys
shell = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
shell.close()
"""

PROJECT = """
import sys
from pathlib import Path
from stillhouse.registry.projection.projection import Projection
folder = Path(sys.argv[1])
projection = Projection(folder / "registry.duckdb", folder / "events.log")
print("ready", flush=True)
for line in sys.stdin:
    print(projection.catch_up(60), *projection.query(sys.argv[2], timeout=60).rows[0], flush=True)
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "events.log", lambda: NOON, Actor(user="ada", host="h"))
    ledger.append([tag(0)])
    return ledger


def tag(number: int) -> TagMoved:
    return TagMoved(name=f"t{number}", digest="ab" * 32)


def start(script: str, *arguments: Path | str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_shell_that_is_left_open_and_closed_again(ledger: Ledger) -> None:
    path = ledger.path.with_name("registry.duckdb")
    projection = Projection(path, ledger.path)
    projection.catch_up()
    with start(SHELL, path) as shell:
        assert shell.stdin
        assert shell.stdout
        assert shell.stdout.readline() == "open\n"
        for number in range(1, 6):
            ledger.append([tag(number)])
            with pytest.raises(BusyError) as caught:
                projection.catch_up(timeout=0.05)
            assert f"(PID {shell.pid}) and is {number} events behind" in caught.value.message
        shell.stdin.write("enough\n")
        shell.stdin.close()
        # Asked while it is still closing: whoever waits is answered.
        assert projection.query("SELECT count(*) FROM tags", timeout=60).rows == ((6,),)


def test_two_projectors_and_a_writer_at_once(ledger: Ledger) -> None:
    projectors = [start(PROJECT, ledger.path.parent, OF_THE_PROJECTION) for _ in range(2)]
    try:
        for projector in projectors:
            assert projector.stdout
            assert projector.stdout.readline() == "ready\n"
        for number in range(12):
            seq = ledger.append([tag(number), tag(number + 1)])[-1].seq
            for projector in projectors:
                assert projector.stdin
                projector.stdin.write("go\n")
                projector.stdin.flush()
        for projector in projectors:
            told, errors = projector.communicate(timeout=120)
            assert projector.returncode == 0, errors
            reached = [int(line.split()[0]) for line in told.splitlines()]
            assert reached == sorted(reached)
            assert [line.split()[1] for line in told.splitlines()] == ["0"] * 12
    finally:
        for projector in projectors:
            projector.kill()
    projection = Projection(ledger.path.with_name("registry.duckdb"), ledger.path)
    assert projection.query("SELECT count(*), max(seq) FROM event").rows == ((seq, seq),)
