"""The `still` command as a user runs it: another process, its output and exit code, its workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 400


def environment() -> dict[str, str]:
    """Two threads per worker would make these tests slower, not faster."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "random"}


def command(registry: Path, *arguments: str) -> list[str]:
    """The command line of `still`."""
    code = "import sys; from stillhouse.cli.main import main; sys.exit(main())"
    return [sys.executable, "-c", code, "--registry", str(registry), *arguments]


def still(
    registry: Path, *arguments: str, expect: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Run one command; its exit code must be `expect`."""
    done = subprocess.run(
        command(registry, *arguments),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        env=environment(),
        check=False,
    )
    if expect is not None:
        assert done.returncode == expect, f"{arguments}: {done.stdout}\n{done.stderr}"
    return done


def still_json(registry: Path, *arguments: str, expect: int = 0) -> Any:
    """The JSON that one command prints."""
    return json.loads(still(registry, *arguments, "--json", expect=expect).stdout)


def events(registry: Path) -> list[dict[str, Any]]:
    """Every event, as `still log --json` prints it."""
    lines = still(registry, "log", "--json").stdout.splitlines()
    return [json.loads(line) for line in lines]


def workers(registry: Path) -> dict[int, bool]:
    """Process ids of this registry's live workers; whether each one has a run."""
    root = str(registry.resolve())
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"stillhouse.phases.workers.main" in words and root.encode() in words:
                held = [str(fd.readlink()) for fd in (folder / "fd").iterdir()]
                found[int(folder.name)] = any(
                    name.startswith(f"{root}/runs/") and name.endswith("/lock") for name in held
                )
        except OSError:  # it ended meanwhile
            continue
    return found
