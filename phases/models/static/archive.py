"""`.pt2` archives: written so that equal programs give equal bytes, and read back.

What varies between two exports of one model is only what torch notes for people about each node:
source lines, paths of this machine, module and function names. It is removed before saving. The zip
itself is steady: torch writes fixed dates, and the archive's inner folder is named after the file,
which therefore always has the same name.

What `torch.export.load` reads can run code; reading.py reads archives as data.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch.export import ExportedProgram

from stillhouse.phases.models.static.reading import read_program

ARCHIVE_NAME = "graph.pt2"

_NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn")


def export(graph: torch.nn.Module, example: tuple[torch.Tensor, ...]) -> ExportedProgram:
    """Take the graph as a program, without notes about where its nodes come from."""
    program = torch.export.export(graph, example, strict=False)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for note in _NOTES:
                    node.meta.pop(note, None)
    return program


def save(program: ExportedProgram, folder: Path) -> Path:
    """Write `folder`/graph.pt2 and return its path."""
    path = folder / ARCHIVE_NAME
    path.unlink(missing_ok=True)
    torch.export.save(program, path)
    return path


def load(path: Path) -> ExportedProgram:
    """Read an archive, whatever its file is called. Raises PhaseError where it may hold code."""
    return read_program(path)


def functional(program: ExportedProgram) -> ExportedProgram:
    """Rewrite a program without mutation: what it changes becomes what it returns.

    With an empty table: the fused attention and the linear operations stay whole.
    """
    with warnings.catch_warnings():
        # torch 2.13 copies a deprecated class of its own.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        rewritten: ExportedProgram = program.run_decompositions({})
    return rewritten
