"""The programs that we are compared with: pinned, and installed by the benchmark itself.

Each peer gets a virtual environment of its own, since their dependencies disagree, in the folder
that `--peers` names: a cache that later runs use again, or a temporary folder that nobody keeps.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PINNED = {
    "dvc": ("dvc==3.67.1",),
    "snakemake": ("snakemake==9.27.1",),
    "dagster": ("dagster==1.13.29",),
}
"""Peer -> what pip is asked for."""

_FINISHED = "finished"
"""Holds what was installed; written last, so half an installation is made anew."""


def install(peers: Path, name: str) -> Path:
    """Install a peer into `peers/name` unless that was done; the folder of its programs.

    Raises KeyError for an unknown peer, CalledProcessError when pip fails.
    """
    folder = peers / name
    wanted = "\n".join(PINNED[name])
    note = folder / _FINISHED
    if not note.is_file() or note.read_text(encoding="utf-8") != wanted:
        print(f"installing {wanted} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-qq", *PINNED[name]]
        subprocess.run(pip, check=True)
        note.write_text(wanted, encoding="utf-8")
    return folder / "bin"


@contextmanager
def folder(given: Path | None) -> Iterator[Path]:
    """Where things are kept: the folder given, else one that is removed afterwards."""
    if given is not None:
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        yield Path(name)
