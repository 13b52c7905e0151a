"""The call of coremltools, and nothing else of it.

coremltools 9.0 was released for torch 2.7. With torch 2.13 and numpy 2.4 two of its handlers fail
(a constant cast by `int`, issue 2633; the operation `alias`, issue 2517). The static graphs contain
neither, so nothing is patched here; if one ever appears, the conversion fails and says which.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

from torch.export import ExportedProgram

from stillhouse.phases.mil import quiet_coremltools
from stillhouse.schemas.contract import Tensor
from stillhouse.schemas.errors import PhaseError


def convert(
    program: ExportedProgram, outputs: Sequence[Tensor], *, target: str, folder: Path
) -> Path:
    """Convert a functional program; the package is written to `folder`, which is returned.

    Inputs are named and typed by the program, states by the buffers that it changes, outputs by
    place, as given. Arithmetic becomes fp16.
    Raises PhaseError when coremltools cannot convert it.
    """
    with quiet_coremltools():
        import coremltools
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with warnings.catch_warnings():
            # coremltools leaves its folder of weights to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            coremltools.convert(
                program,
                convert_to="mlprogram",
                minimum_deployment_target=coremltools.target[target],
                compute_precision=coremltools.precision.FLOAT16,
                # A new list: coremltools changes the lists that it is given.
                outputs=[
                    coremltools.TensorType(name=t.name, dtype=_dtype(t.dtype)) for t in outputs
                ],
                # Without a Core ML runtime nothing can be loaded, and with one it is not needed.
                skip_model_load=True,
                package_dir=str(folder),
            )
    except (ValueError, TypeError, NotImplementedError, RuntimeError, KeyError) as error:
        raise PhaseError(
            f"coremltools cannot convert the graph: {error}.",
            remedy="Read the run's log; the graph has an operation that this coremltools lacks.",
            code="conversion.failed",
        ) from error
    return folder


def _dtype(name: str) -> object:
    import numpy as np

    return np.dtype(name).type
