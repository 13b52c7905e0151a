"""The lineage index against the ledger: every node and arrow is gathered again, and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from stillhouse.registry.ledger.ledger import lines_until
from stillhouse.registry.lineage.gather import Gatherer
from stillhouse.registry.lineage.index import DamagedError, Image, empty, grown

IndexState = Literal["equal", "differs", "absent", "unreadable", "not compared"]


def compare_index(path: Path, log: Path) -> IndexState:
    """Whether the index at `path` is what the log gives up to the event that it covers.

    unreadable: it is damaged or covers another log, so no command believes it. The log must verify.
    """
    if not path.exists():
        return "absent"
    try:
        data = path.read_bytes()
        covered = Image(data).position
    except (OSError, DamagedError):
        return "unreadable"
    gatherer = Gatherer(empty())
    last = None
    for line in lines_until(log, covered.seq):
        gatherer.take((line,))
        last = line.after
    if last != covered:
        return "unreadable"
    return "equal" if grown(empty(), gatherer.growth, covered) == data else "differs"
