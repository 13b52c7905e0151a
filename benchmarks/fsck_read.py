"""`still fsck` against `restic check --read-data`: the same bytes, both warm, in turns.

restic is a program in Go and on no Python index: it is taken from the PATH, else from Debian's
archive (`apt-get download`), unpacked beside the other peers and not installed. It encrypts and
compresses; the bytes are random, so there is nothing to compress, and decryption is part of what
its check costs. Also printed: what hashing alone reaches from memory (BLAKE3, every core, one
buffer again and again), the bound of any full read of warm data; `--metadata` and `--sample 5%`.
A whole process is compared with restic's; with the bound, the reading alone: the time of a process
that only looks (`--metadata`, in the same round) is taken off.
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
from collections.abc import Sequence
from pathlib import Path

import peers
from blake3 import blake3

STILL = (sys.executable, "-c", "import sys; from stillhouse.cli.main import main; sys.exit(main())")
ROOT = Path(__file__).parents[1]
MEBI = 1 << 20


def restic(folder: Path) -> Path:
    """The program: of this machine, else unpacked below `folder`."""
    found = shutil.which("restic")
    if found:
        return Path(found)
    here = folder / "restic"
    program = here / "usr" / "bin" / "restic"
    if not program.is_file():
        here.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-qq", "restic"], cwd=here, check=True)
        (archive,) = here.glob("restic_*.deb")
        subprocess.run(["dpkg", "-x", archive, here], check=True)
    return program


def timed(command: Sequence[object], environment: dict[str, str]) -> float:
    """Seconds of one whole process."""
    begun = time.perf_counter()
    subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - begun


def fill(folder: Path, size: int) -> None:
    """So many MiB of random bytes: half in files of 64 MiB, half in files of 1 MiB."""
    folder.mkdir()
    for place in range(size // 128):
        (folder / f"large-{place}").write_bytes(os.urandom(64 * MEBI))
    for place in range(size // 2):
        (folder / f"small-{place}").write_bytes(os.urandom(MEBI))


def hashing(seconds: float) -> float:
    """MiB a second of BLAKE3 alone, on every core, from one buffer."""
    buffer = os.urandom(64 * MEBI)
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        blake3(buffer, max_threads=blake3.AUTO).digest()
        done += 64
    return done / (time.perf_counter() - begun)


def main() -> None:
    """Fill both, then check both in turns."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="256 MiB, 2 rounds")
    arguments.add_argument("--in", dest="where", type=Path, default=Path.cwd(), help="the disk")
    arguments.add_argument("--peers", type=Path, default=None, help="where peers are kept")
    given = arguments.parse_args()
    size, rounds = (256, 2) if given.quick else (4096, 7)
    with (
        peers.folder(given.peers) as kept,
        tempfile.TemporaryDirectory(dir=given.where) as name,
    ):
        folder, program = Path(name), restic(kept)
        fill(folder / "source", size)
        still = (*STILL, "--registry", folder / "registry")
        check = (program, "-r", folder / "repository", "--no-cache")
        secret = {"RESTIC_PASSWORD": "benchmark"}
        timed((*still, "init"), {})
        timed((*still, "publish", "--kind", "source", folder / "source"), {})
        timed((*check, "init"), secret)
        timed((*check, "backup", folder / "source"), secret)
        shutil.rmtree(folder / "source")
        os.sync()
        ours, theirs, bound, reading = [], [], [], []
        for turn in range(rounds + 1):  # the first warms both
            bound.append(hashing(1))
            mine = timed((*still, "fsck"), {})
            looking = timed((*still, "fsck", "--metadata"), {})
            peer = timed((*check, "check", "--read-data"), secret)
            if turn:
                ours.append(size / mine)
                theirs.append(size / peer)
                reading.append(size / (mine - looking))
        sample = timed((*still, "fsck", "--sample", "5%"), {})
    mine, peer = statistics.median(ours), statistics.median(theirs)
    most, pure = statistics.median(bound), statistics.median(reading)
    print(f"fsck full {mine:.0f} MiB/s   restic check --read-data {peer:.0f} MiB/s")
    print(f"ratio {mine / peer:.1f}")
    print(f"reading alone {pure:.0f} MiB/s: {pure / most:.2f} of hashing alone ({most:.0f} MiB/s)")
    print(f"whole process: --metadata {looking:.2f} s, --sample 5% {sample:.2f} s, {size} MiB")


if __name__ == "__main__":
    main()
