"""A GGUF file becomes a Hugging Face folder with the same weights and tokens, or nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stillhouse.phases.teachers import ChatTokenizer, dequantise
from stillhouse.schemas.errors import PhaseError, UntrustedFileError

from . import dataset_parts as parts
from .gguf_parts import write_gguf


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parts.write_teacher(tmp_path_factory.mktemp("gguf") / "model")


@pytest.fixture(scope="module")
def file(model: Path) -> Path:
    return write_gguf(model.parent / "model.gguf", model)


@pytest.fixture(scope="module")
def folder(file: Path) -> Path:
    made = file.parent / "made"
    dequantise(file, made)
    return made


def test_every_weight_comes_back(model: Path, folder: Path) -> None:
    expected = load_file(model / "model.safetensors")
    found = load_file(folder / "model.safetensors")
    assert set(found) == set(expected)
    for name, weight in expected.items():
        assert found[name].dtype == torch.float32
        np.testing.assert_array_equal(found[name], weight, err_msg=name)


def test_text_has_the_same_tokens(model: Path, folder: Path) -> None:
    before, after = ChatTokenizer.load(model), ChatTokenizer.load(folder)
    chat = [{"role": "user", "content": 'Ünïcode {"city":"Oslo","days":12345}\n'}]
    (text,) = after.render([chat])
    assert before.render([chat]) == [text]
    assert after.encode(text) == before.encode(text)
    assert after.decode(after.encode(text)) == text
    assert after.eos_token_id == before.eos_token_id


def test_the_same_file_gives_the_same_bytes(file: Path, folder: Path, tmp_path: Path) -> None:
    dequantise(file, tmp_path / "elsewhere")
    first = {p.name: p.read_bytes() for p in folder.iterdir()}
    again = {p.name: p.read_bytes() for p in (tmp_path / "elsewhere").iterdir()}
    assert first == again
    assert str(file.parent).encode() not in b"".join(first.values())


def test_a_finished_folder_is_left_alone(file: Path, folder: Path) -> None:
    before = (folder / "model.safetensors").stat().st_mtime_ns
    dequantise(file, folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_what_a_killed_conversion_left_is_not_taken_for_the_result(
    file: Path, folder: Path, tmp_path: Path
) -> None:
    half = tmp_path / "made.half"
    half.mkdir()
    (half / "stray").write_text("half")
    dequantise(file, tmp_path / "made")
    assert {p.name for p in (tmp_path / "made").iterdir()} == {p.name for p in folder.iterdir()}
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_a_cut_file_is_refused_and_leaves_nothing(file: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(file.read_bytes()[:-64])
    with pytest.raises(UntrustedFileError):
        dequantise(tmp_path / "cut.gguf", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_an_architecture_that_cannot_be_read_is_refused(model: Path, tmp_path: Path) -> None:
    odd = write_gguf(tmp_path / "odd.gguf", model, architecture="no-such-thing")
    with pytest.raises(PhaseError, match="GGUF"):
        dequantise(odd, tmp_path / "made")
    assert not (tmp_path / "made").exists()
