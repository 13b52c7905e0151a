"""An interpreter for saved Core ML programs, with kernels written from the documentation.

It opens an `.mlpackage` (an ML program for iOS18), says what is in it, and runs its functions on
any machine, so that a conversion's numbers can be checked without a Mac. See interpreter.py for
what a result means and what it does not.
"""

from __future__ import annotations

from stillhouse.phases.mil.checks import unknown_ops
from stillhouse.phases.mil.interpreter import Arithmetic, Interpreter, RunResult
from stillhouse.phases.mil.package import (
    Package,
    Signature,
    StateUse,
    manifest_faults,
    quiet_coremltools,
)
from stillhouse.phases.mil.tally import RunStats
from stillhouse.phases.mil.tensortype import TensorType

__all__ = [
    "Arithmetic",
    "Interpreter",
    "Package",
    "RunResult",
    "RunStats",
    "Signature",
    "StateUse",
    "TensorType",
    "manifest_faults",
    "quiet_coremltools",
    "unknown_ops",
]
