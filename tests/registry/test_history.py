"""A metric through time: which measurement changed it. What `still blame` says: tests/cli."""

from __future__ import annotations

import pytest

from stillhouse.registry.compare.history import last_change
from stillhouse.schemas.report import Metric


def measured(value: float | None, **more: object) -> Metric:
    return Metric.model_validate({"name": "m", "value": value, **more})


@pytest.mark.parametrize(
    ("metrics", "place"),
    [
        ([], None),
        ([measured(1.0)], None),
        ([measured(1.0), measured(1.0)], None),
        ([measured(1.0), measured(2.0), measured(1.0), measured(1.0)], 2),
        ([measured(1.0), measured(1.0, n=9, low=0.5, high=1.5)], None),
        ([measured(None, nonfinite="nan"), measured(None, nonfinite="inf")], 1),
        ([measured(None, nonfinite="nan"), measured(None, nonfinite="nan")], None),
    ],
)
def test_the_last_change_is_one_of_the_value_alone(
    metrics: list[Metric], place: int | None
) -> None:
    assert last_change(metrics) == place
