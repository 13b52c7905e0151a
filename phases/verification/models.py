"""The models that are compared: the checkpoint, the package as we run it, the package on a device.

Rules: a package's model answers with every output in fp32, whatever its declared dtype; its memory
goes in and comes out, so that a text can be begun again. The checkpoint is the reference and is
never rounded.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from stillhouse.phases.mil import Arithmetic, Interpreter, Package, RunStats, quiet_coremltools
from stillhouse.phases.models import Student

Outputs = Mapping[str, Tensor]
"""By name, in fp32, shaped as the contract promises: `logits` [1, T, V], and a prefill's caches."""

MACOS = 15
"""The first macOS that runs what is converted for iOS18."""


class Model(Protocol):
    """A package that can be run."""

    def memory(self, states: Mapping[str, Tensor]) -> Any:  # noqa: ANN401  # each model's own
        """Memory that begins with these states."""
        ...

    def predict(self, inputs: Mapping[str, Tensor], memory: Any) -> tuple[Outputs, Any]:  # noqa: ANN401
        """Every output, and the memory afterwards."""
        ...


class Interpreted:
    """A package run by our interpreter, with what the runs measured."""

    def __init__(self, package: Package, arithmetic: Arithmetic) -> None:
        self._interpreter = Interpreter(package, arithmetic=arithmetic)
        self.stats: list[RunStats] = []

    def memory(self, states: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Give the states as they are: the interpreter never changes them."""
        return states

    def predict(
        self, inputs: Mapping[str, Tensor], memory: Mapping[str, Tensor]
    ) -> tuple[Outputs, Mapping[str, Tensor]]:
        """Run the package once."""
        result = self._interpreter.run(inputs, memory)
        self.stats.append(result.stats)
        return result.outputs, result.states


class CoreMl:
    """A package run by Core ML itself. Only where `core_ml_runs`."""

    def __init__(self, package: Path, scratch: Path) -> None:
        with quiet_coremltools():
            from coremltools.models import MLModel
        copy = scratch / "device.mlpackage"
        shutil.rmtree(copy, ignore_errors=True)
        # Core ML compiles files, and a worker's inputs are links.
        shutil.copytree(package, copy)
        self._model = MLModel(str(copy))

    def memory(self, states: Mapping[str, Tensor]) -> Any:  # noqa: ANN401  # coremltools' MLState
        """Make Core ML's own memory and write the states into it."""
        if not states:
            return None
        memory = self._model.make_state()
        for name, tensor in states.items():
            memory.write_state(name, tensor.half().numpy())
        return memory

    def predict(self, inputs: Mapping[str, Tensor], memory: Any) -> tuple[Outputs, Any]:  # noqa: ANN401
        """Let Core ML predict; it changes its memory in place."""
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        answer = (
            self._model.predict(arrays, state=memory) if memory else self._model.predict(arrays)
        )
        return {name: torch.from_numpy(found).float() for name, found in answer.items()}, memory


def core_ml_runs() -> bool:
    """Whether this machine can run a package for iOS18."""
    version = platform.mac_ver()[0].partition(".")[0]
    return sys.platform == "darwin" and version.isdecimal() and int(version) >= MACOS


def reference(student: Student, tokens: Sequence[int]) -> Tensor:
    """The checkpoint's logits [T, V] over a text, in fp32."""
    with torch.inference_mode():
        logits: Tensor = student(torch.tensor([list(tokens)]))
    return logits[0]
