"""A GGUF file becomes a Hugging Face folder with the same weights and tokens, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from phases.teacher import ChatTokenizer, dequantise
from schemas.errors import PhaseError, UntrustedFileError

from . import dataset_parts as parts

HEADS = {"q_proj": 4, "k_proj": 2}
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    if name.startswith("model.layers."):
        number, _, rest = name.removeprefix("model.layers.").partition(".")
        return f"blk.{number}.{NAMES[rest.removesuffix('.weight')]}.weight"
    return {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }[name]


def interleaved(name: str, weight: torch.Tensor) -> torch.Tensor:
    """llama.cpp keeps the two halves of each rotated head side by side."""
    heads = next((n for part, n in HEADS.items() if part in name), None)
    if heads is None:
        return weight
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, -1)


def write_gguf(path: Path, model: Path, *, architecture: str = "llama") -> Path:
    """The tiny model as one fp32 GGUF file, tokenizer and template inside."""
    writer = gguf.GGUFWriter(path, architecture)
    config = json.loads((model / "config.json").read_text())
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(256)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    write_tokens(writer, json.loads((model / "tokenizer.json").read_text()))
    for name, weight in load_file(model / "model.safetensors").items():
        writer.add_tensor(gguf_name(name), interleaved(name, weight).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_tokens(writer: gguf.GGUFWriter, tokenizer: dict[str, Any]) -> None:
    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if t in parts.MARKS else normal for t in vocabulary])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id):
        add(0)
    writer.add_chat_template(parts.TEMPLATE)


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
