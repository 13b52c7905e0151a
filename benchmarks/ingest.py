"""`still publish` against the disk itself and against `dvc add`: the same bytes, in turns.

    one large file     publish, against dd conv=fdatasync from the same file to the same disk
    one large file     publish, against dvc add
    many small files   publish, then one more file and publish again, against dvc add of both
    nothing changed    publish again: a folder of large files, and the folder of small ones

Every round has new bytes, a new registry and a new DVC repository, all on the disk of `--in`, and
begins after a sync: nobody pays for what the preparation left dirty. Times are of whole processes.
Removing a round's large files happens outside the times and is waited for; small files stay until
the end, because for minutes after a mass deletion ext4 takes ten times as long to create a file (it
passes over inodes that were freed lately, `recently_deleted`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import peers

STILL = (sys.executable, "-c", "import sys; from stillhouse.cli.main import main; sys.exit(main())")
ROOT = Path(__file__).parents[1]
MEBI = 1 << 20
PIECE = 64 * MEBI


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything, in MiB or files."""

    against_dd: int
    against_dvc: int
    files: int
    unchanged: int
    pairs: int
    dvc_pairs: int


FULL = Sizes(
    against_dd=4096, against_dvc=1024, files=10_000, unchanged=10_240, pairs=9, dvc_pairs=5
)
QUICK = Sizes(against_dd=256, against_dvc=128, files=1_000, unchanged=256, pairs=3, dvc_pairs=1)


def timed(command: Sequence[object], cwd: Path) -> float:
    """Seconds of one whole process. Raises CalledProcessError, with what it said, when it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    begun = time.perf_counter()
    subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, check=True, capture_output=True
    )
    return time.perf_counter() - begun


def fill(path: Path, size: int) -> Path:
    """A file of so many random MiB."""
    with path.open("wb") as file:
        for done in range(0, size * MEBI, PIECE):
            file.write(os.urandom(min(PIECE, size * MEBI - done)))
    return path


def fill_many(folder: Path, count: int) -> Path:
    """A folder of files of 4 KiB."""
    folder.mkdir()
    for place in range(count):
        (folder / f"file-{place:05}").write_bytes(os.urandom(4096))
    return folder


def quiet() -> None:
    """Let the disk finish whatever is left, and timestamps grow older than a tick."""
    os.sync()
    time.sleep(1)


def publish(registry: Path, path: Path, *more: str) -> float:
    """Seconds of `still publish`."""
    verb = ("publish", "--kind", "source", *more, path)
    return timed((*STILL, "--registry", registry, *verb), ROOT)


def new_registry(folder: Path) -> Path:
    """An empty one."""
    timed((*STILL, "--registry", folder / "registry", "init"), ROOT)
    return folder / "registry"


def new_repository(folder: Path, dvc: Path) -> Path:
    """An empty DVC repository without git, which links or copies nothing unusual."""
    (folder / "repository").mkdir()
    timed((dvc, "init", "--no-scm", "--quiet"), folder / "repository")
    timed((dvc, "config", "core.analytics", "false"), folder / "repository")
    return folder / "repository"


def report(what: str, ours: Sequence[float], theirs: Sequence[float], peer: str) -> None:
    """One line: both medians and the median of the ratios, pair by pair."""
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    mine, peers_own = statistics.median(ours), statistics.median(theirs)
    print(
        f"{what:<26} still {mine:7.2f} s   {peer} {peers_own:7.2f} s"
        f"   {ratio:5.2f}x its rate   ({len(ours)} pairs)",
        flush=True,
    )


def in_turn(one: Callable[[], float], other: Callable[[], float], turn: int) -> tuple[float, float]:
    """Time both; every other round begins with the other."""
    if turn % 2:
        second = other()
        quiet()
        return one(), second
    first = one()
    quiet()
    return first, other()


def against_dd(where: Path, sizes: Sizes) -> None:
    """One large file against the disk."""
    ours, theirs = [], []
    for turn in range(sizes.pairs):
        with tempfile.TemporaryDirectory(dir=where) as name:
            folder = Path(name)
            source = fill(folder / "source", sizes.against_dd)
            registry = new_registry(folder)
            quiet()
            dd = ("dd", f"if={source}", f"of={folder / 'copy'}", "bs=4M", "conv=fdatasync")
            pair = in_turn(
                lambda: publish(registry, source),  # noqa: B023  # called before the loop goes on
                lambda: timed(dd, folder),  # noqa: B023
                turn,
            )
            ours.append(pair[0])
            theirs.append(pair[1])
        quiet()
    report(f"publish {sizes.against_dd} MiB", ours, theirs, "dd fdatasync")


def large_against_dvc(where: Path, sizes: Sizes, dvc: Path) -> None:
    """One large file against DVC."""
    ours, theirs = [], []
    for turn in range(sizes.dvc_pairs):
        with tempfile.TemporaryDirectory(dir=where) as name:
            folder = Path(name)
            repository, registry = new_repository(folder, dvc), new_registry(folder)
            source = fill(repository / "source", sizes.against_dvc)
            shutil.copy(source, folder / "source")
            quiet()
            pair = in_turn(
                lambda: publish(registry, folder / "source"),  # noqa: B023
                lambda: timed((dvc, "add", "--quiet", "source"), repository),  # noqa: B023
                turn,
            )
            ours.append(pair[0])
            theirs.append(pair[1])
        quiet()
    report(f"publish {sizes.against_dvc} MiB", ours, theirs, "dvc add")


def small_against_dvc(where: Path, sizes: Sizes, dvc: Path) -> None:
    """Many small files, then one more, against DVC; then nothing new."""
    first: tuple[list[float], list[float]] = ([], [])
    more: tuple[list[float], list[float]] = ([], [])
    again: list[float] = []
    with tempfile.TemporaryDirectory(dir=where) as name:
        for turn in range(sizes.dvc_pairs):
            folder = Path(name, str(turn))
            folder.mkdir()
            repository, registry = new_repository(folder, dvc), new_registry(folder)
            sources = (
                fill_many(folder / "many", sizes.files),
                shutil.copytree(folder / "many", repository / "many"),
            )
            for times in (first, more):
                quiet()
                pair = in_turn(
                    lambda: publish(registry, sources[0]),  # noqa: B023
                    lambda: timed((dvc, "add", "--quiet", "many"), repository),  # noqa: B023
                    turn,
                )
                times[0].append(pair[0])
                times[1].append(pair[1])
                for source in sources:
                    (source / "one more").write_bytes(b"one more")
            again.append(publish(registry, sources[0]))
    report(f"publish {sizes.files} x 4 KiB", *first, "dvc add")
    report("... and one more file", *more, "dvc add")
    print(f"... and nothing new: {statistics.median(again):.2f} s")


def unchanged(where: Path, sizes: Sizes) -> None:
    """A folder of large files that did not change, and with `--rehash` for comparison."""
    with tempfile.TemporaryDirectory(dir=where) as name:
        folder = Path(name)
        (folder / "source").mkdir()
        for place in range(4):
            fill(folder / "source" / str(place), sizes.unchanged // 4)
        registry = new_registry(folder)
        quiet()
        publish(registry, folder / "source")
        times = [publish(registry, folder / "source") for _ in range(9)]
        read = publish(registry, folder / "source", "--rehash")
    print(
        f"publish {sizes.unchanged} MiB again, unchanged: {statistics.median(times):.2f} s"
        f" (with --rehash {read:.2f} s)"
    )


def main() -> None:
    """Measure all, or what was asked for."""
    parts = ("dd", "large", "small", "unchanged")
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    arguments.add_argument("--in", dest="where", type=Path, default=Path.cwd(), help="the disk")
    arguments.add_argument("--peers", type=Path, default=None, help="where peers are kept")
    arguments.add_argument("--only", choices=parts, action="append")
    given = arguments.parse_args()
    sizes, wanted = QUICK if given.quick else FULL, given.only or parts
    if "dd" in wanted:
        against_dd(given.where, sizes)
    if "unchanged" in wanted:
        unchanged(given.where, sizes)
    with peers.folder(given.peers) as folder:
        if "large" in wanted:
            large_against_dvc(given.where, sizes, peers.install(folder, "dvc") / "dvc")
        if "small" in wanted:
            small_against_dvc(given.where, sizes, peers.install(folder, "dvc") / "dvc")


if __name__ == "__main__":
    main()
