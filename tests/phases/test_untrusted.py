"""Hostile weights and packages, made here byte by byte. Folders and templates: the next files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillhouse.phases.untrusted import (
    check_gguf,
    check_mlpackage,
    check_safetensors,
    check_student_shapes,
)
from stillhouse.schemas.errors import InputError, UntrustedFileError

Header = dict[str, Any]


def safetensors(
    header: Header | bytes, payload: bytes = b"", *, length: int | None = None
) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + payload


def tensor(begin: int, end: int, *, dtype: str = "F32", shape: tuple[int, ...] = (2,)) -> Header:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_a_sound_safetensors_file_is_summarised(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = {
        "__metadata__": {"format": "pt"},
        "b": tensor(8, 20, dtype="BF16", shape=(2, 3)),
        "a": tensor(0, 8),
        "empty": tensor(20, 20, shape=(0, 4)),
        "scalar": tensor(20, 21, dtype="U8", shape=()),
    }
    path.write_bytes(safetensors(header, bytes(21)))
    found = check_safetensors(path)
    assert found.tensors["b"] == ("BF16", (2, 3))
    assert found.parameters == 2 + 6 + 0 + 1
    assert found.metadata == {"format": "pt"}


def test_what_the_library_writes_is_accepted(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    library = pytest.importorskip("safetensors.numpy")
    arrays = {"w": numpy.ones((3, 5), numpy.float16), "n": numpy.arange(4)}
    library.save_file(arrays, tmp_path / "w.safetensors", metadata={"k": "v"})
    found = check_safetensors(tmp_path / "w.safetensors")
    assert found.tensors == {"w": ("F16", (3, 5)), "n": ("I64", (4,))}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "too short"),
        (b"\0\0\0", "too short"),
        (safetensors({}, length=10), "claims a header of 10 bytes"),
        (safetensors({}, length=2**63), "claims a header"),
        (safetensors(b"[]"), "no JSON header"),
        (safetensors(b"{"), "cannot be read"),
        (safetensors(b'{"a":1,"a":2}'), "duplicate"),
        (safetensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "cannot be read"),
        (safetensors({"a": 1}), "without dtype"),
        (safetensors({"a": {"dtype": "F32"}}), "without dtype"),
        (safetensors({"a": tensor(0, 8) | {"more": 1}}, bytes(8)), "without dtype"),
        (safetensors({"a": tensor(0, 8, dtype="F31")}, bytes(8)), "unknown dtype"),
        (safetensors({"a": tensor(0, 8, shape=(-2,))}, bytes(8)), "shape"),
        (safetensors({"a": tensor(0, 8) | {"shape": [2.0]}}, bytes(8)), "shape"),
        (safetensors({"a": tensor(0, 8) | {"shape": [True]}}, bytes(8)), "shape"),
        (safetensors({"a": tensor(0, 8, shape=(1,) * 17)}, bytes(8)), "shape"),
        (safetensors({"a": tensor(0, 8, shape=(2**60, 2**60))}, bytes(8)), "shape"),
        (safetensors({"a": tensor(0, 8) | {"data_offsets": [0]}}, bytes(8)), "data_offsets"),
        (safetensors({"a": tensor(0, 8) | {"data_offsets": [-8, 0]}}, bytes(8)), "data_offsets"),
        (safetensors({"a": tensor(0, 8)}, bytes(7)), "past its 7 bytes"),
        (safetensors({"a": tensor(0, 4)}, bytes(4)), "needs 8"),
        (safetensors({"a": tensor(8, 0)}, bytes(8)), "needs 8"),
        (safetensors({"a": tensor(0, 1, dtype="F4", shape=(3,))}, bytes(1)), "needs 1.5"),
        (safetensors({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)), "overlapping"),
        (safetensors({"a": tensor(0, 8), "b": tensor(9, 17)}, bytes(17)), "gap"),
        (safetensors({"a": tensor(0, 8)}, bytes(9)), "belong to no tensor"),
        (safetensors({"__metadata__": {"a": 1}}), "__metadata__"),
        (safetensors({"__metadata__": []}), "__metadata__"),
    ],
)
def test_a_lying_safetensors_file_is_refused(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(UntrustedFileError, match=what) as error:
        check_safetensors(path)
    assert error.value.code == "safetensors.malformed"
    assert "model.safetensors" in error.value.message
    assert error.value.exit_code == 2


def test_a_header_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 200_000_000))
        file.truncate(300_000_000)
    with pytest.raises(UntrustedFileError, match="claims a header of 200000000"):
        check_safetensors(path)


def test_a_file_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    for check in (check_safetensors, check_gguf):
        with pytest.raises(InputError) as error:
            check(tmp_path / "absent")
        assert error.value.code == "file.unreadable"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.binary(max_size=200), at=st.integers(0, 400))
def test_a_damaged_file_is_refused_or_summarised_and_nothing_else(
    tmp_path: Path, data: bytes, at: int
) -> None:
    for name, sound, check in (
        ("w.safetensors", safetensors({"a": tensor(0, 8)}, bytes(8)), check_safetensors),
        ("m.gguf", gguf(), check_gguf),
    ):
        path = tmp_path / name
        path.write_bytes(sound[:at] + data + sound[at + len(data) :])
        try:
            check(path)
        except UntrustedFileError as error:
            assert name in error.message  # noqa: PT017  # both ends are right


# --- GGUF ---------------------------------------------------------------------------------------


def text(value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


ARCHITECTURE = entry("general.architecture", 8, text("llama"))


def info(name: str = "w", dims: tuple[int, ...] = (32, 2), kind: int = 8, offset: int = 0) -> bytes:
    return (
        text(name)
        + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        + struct.pack("<IQ", kind, offset)
    )


def gguf(
    entries: tuple[bytes, ...] = (ARCHITECTURE,),
    infos: tuple[bytes, ...] = (info(),),
    payload: int = 68,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A GGUF file; by default one Q8_0 tensor of 2 x 32 elements, 68 bytes."""
    head = magic + struct.pack("<IQQ", version, *(counts or (len(infos), len(entries))))
    head += b"".join(entries) + b"".join(infos)
    return head + bytes(-len(head) % 32) + bytes(payload)


def test_a_sound_gguf_file_is_summarised(tmp_path: Path) -> None:
    entries = (
        ARCHITECTURE,
        entry("general.name", 8, text("Tiny")),
        entry("llama.block_count", 4, struct.pack("<I", 30)),
        entry("llama.rope.freq_base", 6, struct.pack("<f", 100000.0)),
        entry("flag", 7, b"\1"),
        entry("tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("bc")),
        entry("types", 9, struct.pack("<IQ", 5, 2) + struct.pack("<2i", 1, -1)),
        entry("nested", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 0, 3) + b"abc"),
    )
    infos = (info("w"), info("norm", (8,), 0, 96))
    (tmp_path / "m.gguf").write_bytes(gguf(entries, infos, 128))
    found = check_gguf(tmp_path / "m.gguf")
    assert (found.architecture, found.name) == ("llama", "Tiny")
    assert (found.tensors, found.parameters) == (2, 72)
    assert found.metadata["llama.block_count"] == 30
    assert found.metadata["llama.rope.freq_base"] == 100000.0
    assert found.metadata["flag"] is True
    assert "tokens" not in found.metadata


def test_what_the_gguf_library_writes_is_accepted(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    library = pytest.importorskip("gguf")
    writer = library.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_name("Written")
    writer.add_token_list(["a", "b"])
    writer.add_tensor("token_embd.weight", numpy.ones((4, 32), numpy.float32))
    writer.add_tensor("norm.weight", numpy.ones(7, numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = check_gguf(tmp_path / "m.gguf")
    assert (found.architecture, found.name, found.tensors) == ("llama", "Written", 2)
    assert found.parameters == 4 * 32 + 7


def test_tensor_sizes_agree_with_the_gguf_library() -> None:
    from stillhouse.phases.untrusted.gguf import _TENSOR_TYPES

    library = pytest.importorskip("gguf")
    theirs = {int(kind): size for kind, size in library.GGML_QUANT_SIZES.items()}
    assert theirs == _TENSOR_TYPES


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "not a GGUF"),
        (gguf(magic=b"GGML"), "not a GGUF"),
        (gguf(version=1), "version 1"),
        (gguf(version=3 << 24), "big-endian"),
        (gguf(counts=(2**60, 1)), "claims"),
        (gguf(counts=(1, 2**60)), "claims"),
        (gguf(counts=(1, 3)), "unknown type|ends inside|claims"),
        (gguf()[:40], "ends inside its header"),
        (gguf(payload=67), "past the 67 bytes"),
        (gguf(infos=(info(offset=32),)), "past the 68 bytes"),
        (gguf(infos=(info(offset=2**63),)), "past the 68 bytes"),
        (gguf(infos=(info(offset=1),)), "unaligned"),
        (gguf(infos=(info(), info("v", offset=32)), payload=200), "on top of another"),
        (gguf(infos=(info(), info(offset=96)), payload=200), "twice"),
        (gguf(infos=(info(kind=4),)), "unknown type 4"),
        (gguf(infos=(info(dims=()),)), "0 dimensions"),
        (gguf(infos=(info(dims=(32, 1, 1, 1, 1)),)), "5 dimensions"),
        (gguf(infos=(info(dims=(31, 2)),)), "impossible dimensions"),
        (gguf(infos=(info(dims=(32, 0)),)), "impossible dimensions"),
        (gguf(infos=(info(dims=(2**63, 2)),)), "impossible dimensions"),
        (gguf(infos=(info("n" * 2000),)), "claims a text of 2000"),
        (gguf(entries=()), "no general.architecture"),
        (gguf(entries=(ARCHITECTURE, ARCHITECTURE)), "twice"),
        (gguf(entries=(entry("general.architecture", 8, text("../x")),)), "architecture"),
        (gguf(entries=(entry("k", 8, struct.pack("<Q", 2**62)),)), "claims a text"),
        (gguf(entries=(entry("k", 8, text(b"\xff")),)), "not UTF-8"),
        (gguf(entries=(entry("k", 13, b""),)), "unknown type 13"),
        (gguf(entries=(entry("k", 9, struct.pack("<IQ", 0, 2**40)),)), "array of"),
        (gguf(entries=(entry("k", 9, struct.pack("<IQ", 0, 2**20)),)), "ends inside"),
        (gguf(entries=(entry("k", 9, struct.pack("<IQ", 8, 1) + b"\xff" * 8),)), "ends inside"),
        (
            gguf(entries=(entry("k", 9, struct.pack("<IQ", 9, 1) * 5 + struct.pack("<IQ", 0, 0)),)),
            "deep",
        ),
        (
            gguf((ARCHITECTURE, entry("general.alignment", 4, struct.pack("<I", 0)))),
            "alignment of 0",
        ),
        (
            gguf((ARCHITECTURE, entry("general.alignment", 8, text("32")))),
            "alignment",
        ),
    ],
)
def test_a_lying_gguf_file_is_refused(tmp_path: Path, data: bytes, what: str) -> None:
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(UntrustedFileError, match=what) as error:
        check_gguf(tmp_path / "m.gguf")
    assert error.value.code == "gguf.malformed"
    assert "m.gguf" in error.value.message


def test_a_header_that_never_ends_is_refused(tmp_path: Path) -> None:
    arrays = 20
    with (tmp_path / "m.gguf").open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, arrays))
        for n in range(arrays):
            file.write(entry(f"k{n}", 9, struct.pack("<IQ", 0, 1 << 24)))
            file.seek(1 << 24, 1)  # a hole: the file takes no room
        file.truncate()
    with pytest.raises(UntrustedFileError, match="has a header of more than"):
        check_gguf(tmp_path / "m.gguf")


def test_an_endless_template_in_a_gguf_file_is_refused_by_its_length(tmp_path: Path) -> None:
    template = entry("tokenizer.chat_template", 8, text("x" * 300_000))
    (tmp_path / "m.gguf").write_bytes(gguf((ARCHITECTURE, template)))
    with pytest.raises(UntrustedFileError) as error:
        check_gguf(tmp_path / "m.gguf")
    assert error.value.code == "chat_template.too_long"


# --- A Llama's shapes ---------------------------------------------------------------------------

LLAMA = {
    "model_type": "llama",
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "intermediate_size": 20,
    "vocab_size": 50,
    "tie_word_embeddings": False,
}


def llama_tensors() -> dict[str, tuple[str, tuple[int, ...]]]:
    """As transformers names and shapes them, written out by hand."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (50, 12),
        "model.norm.weight": (12,),
        "lm_head.weight": (50, 12),
    }
    for n in range(2):
        shapes |= {
            f"model.layers.{n}.self_attn.q_proj.weight": (12, 12),
            f"model.layers.{n}.self_attn.k_proj.weight": (4, 12),
            f"model.layers.{n}.self_attn.v_proj.weight": (4, 12),
            f"model.layers.{n}.self_attn.o_proj.weight": (12, 12),
            f"model.layers.{n}.mlp.gate_proj.weight": (20, 12),
            f"model.layers.{n}.mlp.up_proj.weight": (20, 12),
            f"model.layers.{n}.mlp.down_proj.weight": (12, 20),
            f"model.layers.{n}.input_layernorm.weight": (12,),
            f"model.layers.{n}.post_attention_layernorm.weight": (12,),
        }
    return {name: ("F32", shape) for name, shape in shapes.items()}


def test_a_llama_that_fits_its_config_is_accepted() -> None:
    check_student_shapes(LLAMA, llama_tensors())


def test_a_tied_llama_needs_no_head_and_may_have_one() -> None:
    tensors = llama_tensors()
    check_student_shapes(LLAMA | {"tie_word_embeddings": True}, tensors)
    del tensors["lm_head.weight"]
    check_student_shapes(LLAMA | {"tie_word_embeddings": True}, tensors)
    with pytest.raises(UntrustedFileError, match=r"lm_head\.weight is missing"):
        check_student_shapes(LLAMA, tensors)


def test_head_dim_may_differ_from_hidden_size_over_heads() -> None:
    tensors = llama_tensors()
    for n in range(2):
        for name, shape in (("q", (24, 12)), ("k", (8, 12)), ("v", (8, 12)), ("o", (12, 24))):
            tensors[f"model.layers.{n}.self_attn.{name}_proj.weight"] = ("BF16", shape)
    check_student_shapes(LLAMA | {"head_dim": 8}, tensors)


def test_the_first_wrong_tensor_is_named_with_both_shapes() -> None:
    tensors = llama_tensors()
    tensors["model.layers.0.self_attn.k_proj.weight"] = ("F32", (12, 12))
    tensors["model.layers.1.mlp.up_proj.weight"] = ("F32", (1,))
    with pytest.raises(UntrustedFileError) as error:
        check_student_shapes(LLAMA, tensors)
    assert error.value.code == "checkpoint.wrong_shape"
    for part in ("layers.0.self_attn.k_proj", "(12, 12)", "(4, 12)"):
        assert part in error.value.message


@pytest.mark.parametrize(
    ("change", "code", "what"),
    [
        ({"num_hidden_layers": 10**9}, "missing_tensor", "model.layers.2"),
        ({"num_hidden_layers": 1}, "unknown_tensor", "model.layers.1"),
        ({"vocab_size": 51}, "wrong_shape", "embed_tokens"),
        ({"vocab_size": 10**12}, "bad_config", "vocab_size"),
        ({"hidden_size": "12"}, "bad_config", "hidden_size"),
        ({"hidden_size": None}, "bad_config", "hidden_size"),
        ({"intermediate_size": -1}, "bad_config", "intermediate_size"),
        ({"num_attention_heads": 5}, "bad_config", "num_attention_heads"),
        ({"num_key_value_heads": 2}, "bad_config", "num_key_value_heads"),
        ({"num_key_value_heads": True}, "bad_config", "num_key_value_heads"),
        ({"tie_word_embeddings": "yes"}, "bad_config", "tie_word_embeddings"),
        ({"model_type": "gpt2"}, "bad_config", "gpt2"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(change: Header, code: str, what: str) -> None:
    with pytest.raises(UntrustedFileError, match=what) as error:
        check_student_shapes(LLAMA | change, llama_tensors())
    assert error.value.code == f"checkpoint.{code}"


def test_extra_and_quantised_tensors_are_refused() -> None:
    bias = llama_tensors() | {"model.layers.0.self_attn.q_proj.bias": ("F32", (12,))}
    with pytest.raises(UntrustedFileError, match=r"q_proj\.bias") as error:
        check_student_shapes(LLAMA, bias)
    assert error.value.code == "checkpoint.unknown_tensor"
    quantised = llama_tensors() | {"model.norm.weight": ("U8", (12,))}
    with pytest.raises(UntrustedFileError, match="U8") as error:
        check_student_shapes(LLAMA, quantised)
    assert error.value.code == "checkpoint.wrong_dtype"


# --- Core ML packages ---------------------------------------------------------------------------


def package(root: Path, path: str = "com.apple.CoreML/model.mlmodel", **change: object) -> Path:
    folder = root / "m.mlpackage"
    weights = folder / "Data" / "com.apple.CoreML" / "weights"
    weights.mkdir(parents=True)
    (weights / "weight.bin").write_bytes(b"\x02\0\0\0")
    (folder / "Data" / "com.apple.CoreML" / "model.mlmodel").write_bytes(b"\x08\x09")
    items = {"A": {"path": path}, "B": {"path": "com.apple.CoreML/weights"}}
    manifest = {"itemInfoEntries": items, "rootModelIdentifier": "A"} | change
    (folder / "Manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_sound_package_is_summarised(tmp_path: Path) -> None:
    found = check_mlpackage(package(tmp_path))
    assert found.model == "Data/com.apple.CoreML/model.mlmodel"
    assert found.files == (
        "Data/com.apple.CoreML/model.mlmodel",
        "Data/com.apple.CoreML/weights/weight.bin",
        "Manifest.json",
    )


@pytest.mark.parametrize(
    "path",
    [
        "../model.mlmodel",
        "/etc/passwd",
        "a/../../x",
        "a\\..\\x",
        "",
        "a//b",
        "./a",
        "absent.mlmodel",
    ],
)
def test_a_package_that_points_out_of_itself_or_nowhere_is_refused(
    tmp_path: Path, path: str
) -> None:
    with pytest.raises(UntrustedFileError) as error:
        check_mlpackage(package(tmp_path, path))
    assert error.value.code == "mlpackage.bad_manifest"


@pytest.mark.parametrize(
    "change",
    [
        {"rootModelIdentifier": "C"},
        {"rootModelIdentifier": "B"},
        {"rootModelIdentifier": None},
        {"itemInfoEntries": []},
        {"itemInfoEntries": {"A": "model"}},
    ],
)
def test_a_package_without_a_root_model_is_refused(tmp_path: Path, change: Header) -> None:
    with pytest.raises(UntrustedFileError) as error:
        check_mlpackage(package(tmp_path, **change))
    assert error.value.code == "mlpackage.bad_manifest"


def test_strays_and_pickles_in_a_package_are_refused(tmp_path: Path) -> None:
    folder = package(tmp_path)
    (folder / "run.sh").touch()
    with pytest.raises(UntrustedFileError, match=r"run\.sh"):
        check_mlpackage(folder)
    (folder / "run.sh").unlink()
    (folder / "Data" / "com.apple.CoreML" / "weights" / "weight.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UntrustedFileError, match=r"weight\.bin is a pickle"):
        check_mlpackage(folder)
    (folder / "Manifest.json").unlink()
    with pytest.raises(UntrustedFileError, match=r"Manifest\.json"):
        check_mlpackage(folder)
