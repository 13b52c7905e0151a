"""What a person sees: the same commands with a terminal behind stdout."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.registry.home import Home

from .conftest import Still

ROOT = Path(__file__).parents[2]
_STILL = ("-m", "stillhouse.cli.main")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def _at_terminal(*arguments: str, cwd: Path, program: tuple[str, ...] = _STILL) -> tuple[int, str]:
    """Run `still` with a pseudo-terminal as its stdout; (exit code, what appeared)."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "160", "TERM": "xterm-256color"},
        stdout=theirs,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    return process.wait(timeout=60), seen.decode()


@pytest.fixture
def digest(still: Still, policy: Path) -> str:
    return still("publish", policy, "--kind", "policy").out.strip()


def test_ls_is_a_table_with_a_header_and_short_digests(home: Home, digest: str) -> None:
    code, seen = _at_terminal("ls", cwd=home.root.parent)
    header, row = _ESCAPES.sub("", seen).splitlines()[:2]
    assert code == 0
    columns = "digest kind size origin published name tags bytes"
    assert header.split() == columns.split()
    assert row.split()[:2] == [digest[:12], "policy"]
    assert digest not in seen


def test_json_is_the_same_data_wherever_it_goes(still: Still, home: Home, digest: str) -> None:
    import json

    assert digest
    _, seen = _at_terminal("ls", "--json", cwd=home.root.parent)
    assert json.loads(seen) == still("ls", "--json").json


def test_publish_tells_what_was_published(home: Home, policy: Path) -> None:
    _, seen = _at_terminal("publish", str(policy), "--kind", "policy", cwd=home.root.parent)
    assert re.match(r"[0-9a-f]{64}  policy, \d+ B\r\n$", seen)
    _, seen = _at_terminal("publish", str(policy), "--kind", "policy", cwd=home.root.parent)
    assert "published before" in seen


_SLOW_WORK = """
import time
from stillhouse.cli.screen import here
from stillhouse.cli.views.progress import bar
with bar(here(), "reading") as drawn:
    drawn.of = 100
    drawn.add(25)
    time.sleep(0.6)
    drawn.add(25)
    time.sleep(0.3)
print("done")
"""


def test_work_that_takes_a_while_shows_how_far_it_is(tmp_path: Path) -> None:
    code, seen = _at_terminal(_SLOW_WORK, cwd=tmp_path, program=("-c",))
    assert code == 0
    assert "reading" in seen
    assert "50/100 bytes" in seen
    assert _ESCAPES.sub("", seen).split()[-1] == "done"


def test_work_that_is_done_at_once_shows_nothing(tmp_path: Path) -> None:
    quick = _SLOW_WORK.replace("0.6", "0").replace("0.3", "0")
    assert _at_terminal(quick, cwd=tmp_path, program=("-c",)) == (0, "done\r\n")


def test_nobody_waits_at_a_pipe(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SLOW_WORK]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("done\n", "")
