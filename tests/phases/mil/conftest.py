"""Small Core ML packages made on the spot, for the tests of the interpreter."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillhouse.phases.mil import Interpreter, Package, quiet_coremltools

with quiet_coremltools():
    import coremltools
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import types

ct: Any = coremltools
mb: Any = Builder
"""Both grow attributes at run time, where no type checker sees them."""

logging.getLogger("coremltools").setLevel(logging.ERROR)

Arrays = Mapping[str, np.ndarray]
Case = tuple[str, str, Arrays, Callable[..., Any], Callable[..., Any]]
"""Name, MIL operation, inputs, how the Builder makes it, and what NumPy says the answer is."""

_TYPES = {"float32": types.fp32, "float16": types.fp16, "int32": types.int32}


@contextmanager
def leftovers_ignored() -> Iterator[None]:
    """Let coremltools leave a temporary folder to the garbage collector, which it does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def save_program(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves what `build(**placeholders)` makes, untouched by optimisation passes."""

    def save(
        build: Callable[..., Any], inputs: Arrays, *, states: Mapping[str, Any] | None = None
    ) -> Path:
        specs = [mb.TensorSpec(a.shape, _TYPES[str(a.dtype)]) for a in inputs.values()]
        specs += [mb.StateTensorSpec(shape, types.fp16) for shape in (states or {}).values()]
        names = [*inputs, *(states or {})]
        signature = ", ".join(names)
        wrapped = eval(f"lambda {signature}: build({signature})", {"build": build})  # noqa: S307
        program = mb.program(input_specs=specs, opset_version=ct.target.iOS18)(wrapped)
        with leftovers_ignored():
            model = ct.convert(
                program,
                minimum_deployment_target=ct.target.iOS18,
                compute_precision=ct.precision.FLOAT32,
                pass_pipeline=ct.PassPipeline.EMPTY,
                skip_model_load=True,
            )
        path = tmp_path_factory.mktemp("package") / "model.mlpackage"
        model.save(str(path))
        return path

    return save


@pytest.fixture(scope="session")
def answers(save_program: Callable[..., Path]) -> Callable[[Sequence[Case]], dict[str, Any]]:
    """Runs all cases of a table as one program; the answer of each by its name."""

    def run(cases: Sequence[Case]) -> dict[str, Any]:
        inputs = {f"{name}_{key}": a for name, _, given, _, _ in cases for key, a in given.items()}

        def build(**placeholders: Any) -> list[Any]:
            made = []
            for name, _, given, make, _ in cases:
                result = make(**{key: placeholders[f"{name}_{key}"] for key in given})
                pieces = result if isinstance(result, (list, tuple)) else [result]
                made += [
                    mb.identity(x=_numeric(p), name=f"{name}_out{i}") for i, p in enumerate(pieces)
                ]
            return made

        names = ", ".join(inputs)
        spread = eval(  # noqa: S307
            f"lambda {names}: build(**dict({', '.join(f'{n}={n}' for n in inputs)}))",
            {"build": build},
        )
        package = Package.open(save_program(spread, inputs))
        for _, operation, _, _, _ in cases:
            assert operation in package.op_histogram(), operation
        given = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
        return dict(Interpreter(package).run(given).outputs)

    return run


def _numeric(value: Any) -> Any:
    """Core ML has no boolean outputs."""
    return mb.cast(x=value, dtype="int32") if value.dtype == types.bool else value


@pytest.fixture(scope="session")
def convert_traced(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Traces a module, converts it for iOS18, saves it."""

    def convert(module: torch.nn.Module, example: torch.Tensor, **options: Any) -> Path:
        with torch.no_grad(), leftovers_ignored():
            model = ct.convert(
                torch.jit.trace(module.eval(), example),  # type: ignore[no-untyped-call]
                minimum_deployment_target=ct.target.iOS18,
                skip_model_load=True,
                **options,
            )
        path = tmp_path_factory.mktemp("package") / "model.mlpackage"
        model.save(str(path))
        return path

    return convert
