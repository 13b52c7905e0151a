"""Whenever the power goes, what was acknowledged is there, and nothing wrong can be read."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from .checking import Loss, try_states
from .scenarios import SCENARIOS, play

STATES = 100
"""Of each scenario, about: together over two thousand (benchmarks/power_cuts.py tries far more)."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_power_cut_loses_or_corrupts(name: str, quick: Path) -> None:
    played = play(name, quick)
    tally = try_states(played, quick, chance=Random(name), at_least=STATES)
    assert [told(loss) for loss in tally.losses] == []
    assert tally.states >= STATES


def told(loss: Loss) -> str:
    """Enough to try that very state again."""
    return f"{loss.scenario} cut at {loss.cut} with {loss.fates}: {'; '.join(loss.faults)}"
