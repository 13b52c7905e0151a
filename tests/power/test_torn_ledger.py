"""A ledger of whose last batch a power cut kept some blocks only, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.event import Actor
from stillhouse.schemas.events import TagMoved

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECTOR = 512


def opened(log: Path) -> Ledger:
    return Ledger(log, lambda: NOON, Actor(user="ada", host="still-1"))


def recorded(log: Path, *batches: Sequence[int]) -> list[int]:
    """A log of batches, each of events of about so many bytes; gives the ends of the batches."""
    ledger = opened(log)
    ends = [0]
    for sizes in batches:
        ledger.append([TagMoved(name="x" * size, digest="ab" * 32) for size in sizes])
        ends.append(log.stat().st_size)
    return ends[1:]


def zero(log: Path, start: int, stop: int) -> bytes:
    data = bytearray(log.read_bytes())
    data[start:stop] = bytes(stop - start)
    log.write_bytes(data)
    return bytes(data)


@pytest.mark.parametrize("sizes", [[2_000], [2_000, 30, 30], [50_000] * 12])
def test_what_was_never_acknowledged_is_dropped(tmp_path: Path, sizes: Sequence[int]) -> None:
    """Also when the last lines are there, and when the batch is longer than what is looked at."""
    log = tmp_path / "events.log"
    end, _ = recorded(log, [40, 40], sizes)
    boundary = -(-end // SECTOR) * SECTOR
    zero(log, boundary, boundary + SECTOR)
    assert opened(log).head().seq == 2
    assert opened(log).audit().fault is None
    assert opened(log).append([TagMoved(name="after", digest="ab" * 32)])[0].seq == 3
    assert [event.seq for event in opened(log).read()] == [1, 2, 3]


def test_a_batch_that_others_follow_is_never_dropped(tmp_path: Path) -> None:
    """They may have been acknowledged, and then so was this one."""
    log = tmp_path / "events.log"
    end, *_ = recorded(log, [40], [2_000], [40])
    boundary = -(-end // SECTOR) * SECTOR
    damaged = zero(log, boundary, boundary + SECTOR)
    with pytest.raises(IntegrityError, match="event 2"):
        opened(log).append([TagMoved(name="after", digest="ab" * 32)])
    with pytest.raises(IntegrityError, match="event 2"):
        list(opened(log).read())
    assert log.read_bytes() == damaged


def test_zeros_that_no_disk_leaves_are_damage(tmp_path: Path) -> None:
    log = tmp_path / "events.log"
    end, _ = recorded(log, [40], [2_000])
    damaged = zero(log, end + 100, end + 101)
    with pytest.raises(IntegrityError, match="event 2"):
        opened(log).append([TagMoved(name="after", digest="ab" * 32)])
    assert opened(log).audit().fault is not None
    assert log.read_bytes() == damaged
