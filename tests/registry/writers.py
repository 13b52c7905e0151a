"""A program of its own: processes that append to one ledger, and may be killed at any moment.

    writers.py LOG SECONDS KILLS WRITERS

Each writer appends batches of 1 to 3 events, then notes what was acknowledged in LOG.<pid>.acks.
After SECONDS the survivors stop. KILLS of them died before, each replaced by a new one.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import Payload, TagMoved


def append_until_stopped(path: Path, deadline: float) -> None:
    chance = random.Random(os.getpid())
    ledger = Ledger(path, lambda: datetime.now(UTC), Actor(user=f"w{os.getpid()}", host="h"))
    acks = os.open(f"{path}.{os.getpid()}.acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while time.monotonic() < deadline:
        batch: list[Payload] = [
            TagMoved(name="x" * chance.randrange(1, 9000), digest="ab" * 32)
            for _ in range(chance.randrange(1, 4))
        ]
        for event in ledger.append(batch):
            os.write(acks, f"{event.seq} {event.batch}\n".encode())


def spawn(path: Path, deadline: float) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        append_until_stopped(path, deadline)
    except BaseException:  # noqa: BLE001  # a forked child must never return into its parent's code
        os._exit(1)
    os._exit(0)


def main(path: Path, seconds: float, kills: int, writers: int) -> int:
    deadline = time.monotonic() + seconds
    alive = [spawn(path, deadline) for _ in range(writers)]
    for _ in range(kills):
        time.sleep(seconds / (kills + 1) * random.random() * 1.5)
        victim = alive.pop(0)
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        alive.append(spawn(path, deadline))
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in alive)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
