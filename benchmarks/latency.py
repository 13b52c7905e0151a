"""How long a person waits: whole processes of `still`, interleaved with a bare interpreter."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 15
STILL = [sys.executable, "-c", "import sys; from stillhouse.cli.main import main; sys.exit(main())"]


def main(registry: Path) -> None:
    """Print the median milliseconds of each command, and its ratio to a bare interpreter."""
    at = ["--registry", str(registry)]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "still --version": [*STILL, "--version"],
        "still ls": [*STILL, *at, "ls"],
        "still show release@latest": [*STILL, *at, "show", "release@latest"],
        "still gates": [*STILL, *at, "gates"],
        "still why training": [*STILL, *at, "why", "training"],
        "still lineage release@latest": [*STILL, *at, "lineage", "release@latest"],
        "still runs": [*STILL, *at, "runs"],
        "still why-not release": [*STILL, *at, "why-not", "release"],
        "still sql": [*STILL, *at, "sql", "SELECT count(*) FROM event"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            begun = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times[name].append(1000 * (time.perf_counter() - begun))
    bare = statistics.median(times["python -c pass"])
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:30} p50 {median:7.1f} ms   {median / bare:6.1f} x bare Python")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
