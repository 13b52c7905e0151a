"""No schedule of publishers and garbage collection loses what the ledger refers to."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from .gc_model import Rules, lost

SCHEDULES = 100_000


@pytest.mark.slow
def test_no_schedule_loses_a_live_object() -> None:
    assert [seed for seed in range(SCHEDULES) if lost(seed, Rules())] == []


def test_few_schedules_lose_no_live_object() -> None:
    assert not any(lost(seed, Rules()) for seed in range(5_000))


@pytest.mark.parametrize("condition", [field.name for field in fields(Rules)])
def test_the_model_notices_when_a_condition_is_left_out(condition: str) -> None:
    broken = replace(Rules(), **{condition: False})
    assert any(lost(seed, broken) for seed in range(SCHEDULES))
