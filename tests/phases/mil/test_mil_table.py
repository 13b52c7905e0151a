"""No kernel without a test: the table of operations against the tables of cases."""

from __future__ import annotations

import pytest

from stillhouse.phases.mil.operations import COMPUTING, MOVING, OPS

from . import test_mil_elementwise, test_mil_linear, test_mil_reduction, test_mil_shape

pytestmark = pytest.mark.coreml

CASES = [
    *test_mil_elementwise.CASES,
    *test_mil_linear.CASES,
    *test_mil_reduction.CASES,
    *test_mil_shape.CASES,
    *test_mil_shape.SPLITS,
]
INSIDE_OTHER_CASES = {"logical_and", "logical_or", "logical_not"}
IN_WHOLE_PROGRAMS = {"read_state", "write_state"}


def test_every_kernel_has_a_case() -> None:
    tested = {case[1] for case in CASES} | INSIDE_OTHER_CASES | IN_WHOLE_PROGRAMS
    assert set(OPS) == tested


def test_an_operation_either_computes_or_moves() -> None:
    assert not set(COMPUTING) & set(MOVING)
