"""A finished pipeline to measure on: the tiny recipe of the tests, run once for real.

It takes a minute of CPU, so `--finished DIR` keeps it for the next benchmark.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

STILL = (sys.executable, "-c", "import sys; from stillhouse.cli.main import main; sys.exit(main())")
"""The command as another process."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A registry in which one recipe ran to its end."""

    registry: Path
    recipe: Path

    def still(self, *arguments: str) -> list[str]:
        """The command line of `still` on this registry."""
        return [*STILL, "--registry", str(self.registry), *arguments]


def environment() -> dict[str, str]:
    """Ours, with this checkout importable from any folder."""
    known = os.environ.get("PYTHONPATH")
    paths = [str(ROOT), known] if known else [str(ROOT)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


@contextmanager
def finished(given: Path | None) -> Iterator[Finished]:
    """The finished pipeline in the folder given, made there if need be, or in one that goes away.

    Raises CalledProcessError when the recipe does not run to its end.
    """
    if given is not None:
        yield _made(given.resolve())
        return
    with tempfile.TemporaryDirectory(prefix="finished-") as name:
        yield _made(Path(name))


def _made(folder: Path) -> Finished:
    found = Finished(registry=folder / "still", recipe=folder / "input" / "tiny.toml")
    if not found.recipe.is_file():
        print("running the tiny recipe once (a minute or two) …", file=sys.stderr)
        _write_recipe(found.recipe.parent)
    if not found.registry.is_dir():
        run(found.still("init"))
    run(found.still("run", str(found.recipe)))
    return found


def _write_recipe(folder: Path) -> None:
    sys.path.insert(0, str(ROOT))
    from tests.pipeline.tiny import write

    write(folder)


def run(command: Sequence[str]) -> None:
    """Run one command to its end, quietly. Raises CalledProcessError."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment())
