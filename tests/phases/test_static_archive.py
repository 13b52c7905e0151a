from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from stillhouse.phases.models.static import archive
from stillhouse.phases.models.static.graphs import StaticDecode
from stillhouse.phases.models.static.interface import border, differences, program_border, promised

from .graph_parts import LENGTH, tiny_architecture, tiny_student


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    torch.set_num_threads(1)
    graph = StaticDecode(tiny_architecture(), tiny_student().state_dict(), LENGTH)
    token = torch.zeros(1, 1, dtype=torch.int32)
    return archive.export(graph, (token, torch.zeros(1, dtype=torch.int32)))


def test_an_archive_names_no_place_of_this_machine(
    program: torch.export.ExportedProgram, tmp_path: Path
) -> None:
    with zipfile.ZipFile(archive.save(program, tmp_path)) as opened:
        texts = [opened.read(name) for name in opened.namelist()]
    for place in (b"site-packages", b"phases/static", b"static.graphs", str(tmp_path).encode()):
        assert not any(place in text for text in texts), place


def test_saving_again_over_an_old_archive_gives_the_same_bytes(
    program: torch.export.ExportedProgram, tmp_path: Path
) -> None:
    first = archive.save(program, tmp_path).read_bytes()
    assert archive.save(program, tmp_path).read_bytes() == first


def test_an_archive_is_read_back_whatever_its_name(
    program: torch.export.ExportedProgram, tmp_path: Path
) -> None:
    stored = archive.save(program, tmp_path).rename(tmp_path / ("a" * 64))
    loaded = archive.load(stored)
    assert loaded.graph_signature.user_inputs == ("input_ids", "position")


def test_a_program_that_keeps_its_promise_differs_in_nothing(
    program: torch.export.ExportedProgram,
) -> None:
    functional = archive.functional(program)
    wanted = border(promised("decode", tiny_architecture(), LENGTH))
    assert differences(program_border(functional, ["logits"]), wanted) == ()


def test_differences_name_what_is_missing_extra_and_changed() -> None:
    wanted = {"input a": "int32 [1]", "output b": "float16 [2]", "state c": "float16 [3]"}
    found = {"input a": "int32 [1]", "output b": "float32 [2]", "output d": "int32 [1]"}
    assert differences(found, wanted) == (
        "state c (float16 [3]) is missing",
        "output d (int32 [1]) is not promised",
        "output b is float32 [2] instead of float16 [2]",
    )
