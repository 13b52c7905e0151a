"""Wrong input at the command line: one clear message, the right exit code, nothing half written."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.registry.home import Home
from stillhouse.store.objects.local import BlobStore

from .conftest import Still

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 6,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 32,
    "tie_word_embeddings": True,
}
SHAPES = {
    "model.embed_tokens.weight": [6, 4],
    "model.norm.weight": [4],
    "model.layers.0.input_layernorm.weight": [4],
    "model.layers.0.post_attention_layernorm.weight": [4],
    "model.layers.0.self_attn.q_proj.weight": [4, 4],
    "model.layers.0.self_attn.k_proj.weight": [2, 4],
    "model.layers.0.self_attn.v_proj.weight": [2, 4],
    "model.layers.0.self_attn.o_proj.weight": [4, 4],
    "model.layers.0.mlp.gate_proj.weight": [8, 4],
    "model.layers.0.mlp.up_proj.weight": [8, 4],
    "model.layers.0.mlp.down_proj.weight": [4, 8],
}


def _safetensors(shapes: dict[str, list[int]], *, stretch: int = 0) -> bytes:
    """A file of zeros; `stretch` moves the last offset beyond the end."""
    header: dict[str, Any] = {}
    offset = 0
    for name, shape in shapes.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    header[name]["data_offsets"][1] += stretch
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(offset)


@pytest.fixture
def checkpoint(place: Path) -> Path:
    """A folder that is a sound checkpoint until a test breaks it."""
    folder = place / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(_safetensors(SHAPES))
    return folder


def _pickled(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))


def _disguised_pickle(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"a": 1}, protocol=4))


def _wrong_shape(folder: Path) -> None:
    shapes = SHAPES | {"model.layers.0.self_attn.k_proj.weight": [4, 4]}
    (folder / "model.safetensors").write_bytes(_safetensors(shapes))


def _auto_map(folder: Path) -> None:
    document = CONFIG | {"auto_map": {"AutoModelForCausalLM": "modeling.Model"}}
    (folder / "config.json").write_text(json.dumps(document), encoding="utf-8")


def _escaping_index(folder: Path) -> None:
    index = {"weight_map": dict.fromkeys(SHAPES, "../outside.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _offset_past_the_end(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(_safetensors(SHAPES, stretch=10**9))


def _symlink(folder: Path) -> None:
    (folder / "passwords").symlink_to("/etc/passwd")


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def _odd_name(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/bad-\xff"))).write_bytes(b"x")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_pickled, "pytorch_model.bin"),
        (_disguised_pickle, "model.safetensors"),
        (_wrong_shape, "k_proj"),
        (_auto_map, "auto_map"),
        (_escaping_index, "outside.safetensors"),
        (_offset_past_the_end, "model.safetensors"),
        (_symlink, "passwords"),
        (_fifo, "pipe"),
        (_odd_name, "bad-"),
    ],
)
def test_a_checkpoint_that_is_wrong_or_dangerous_is_refused_whole(
    still: Still, home: Home, checkpoint: Path, damage: Callable[[Path], None], says: str
) -> None:
    damage(checkpoint)
    told = still("publish", checkpoint, "--kind", "checkpoint")
    assert told.code == 2
    assert told.out == ""
    assert says in told.err
    assert "Next:" in told.err
    _assert_nothing_kept(home)


def test_the_checkpoint_that_these_tests_break_is_sound(
    still: Still, home: Home, checkpoint: Path
) -> None:
    assert home.exists
    told = still("publish", checkpoint, "--kind", "checkpoint")
    assert told.code == 0, told.err
    assert len(told.out.strip()) == 64


def _gguf(*, offset: int) -> bytes:
    """A GGUF file (version 3) of one f32 tensor of two elements, stored at `offset`."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    head += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    head += text("t") + struct.pack("<IQIQ", 1, 2, 0, offset)
    head += bytes(-len(head) % 32)
    return head + bytes(32)


def test_a_gguf_whose_tensor_lies_past_its_end_is_refused(
    still: Still, home: Home, place: Path
) -> None:
    sound, lying = place / "sound.gguf", place / "lying.gguf"
    sound.write_bytes(_gguf(offset=0))
    lying.write_bytes(_gguf(offset=1 << 40))
    told = still("publish", lying, "--kind", "teacher")
    assert told.code == 2
    assert "lying.gguf" in told.err
    _assert_nothing_kept(home)
    assert still("publish", sound, "--kind", "teacher").code == 0


@pytest.mark.parametrize("kind", ["model", "", "Checkpoint", "../x"])
def test_an_unknown_kind_is_refused_with_the_kinds_there_are(
    still: Still, home: Home, place: Path, kind: str
) -> None:
    (place / "x").write_text("x", encoding="utf-8")
    told = still("publish", place / "x", "--kind", kind)
    assert told.code == 2
    assert "checkpoint" in told.err
    _assert_nothing_kept(home)


@pytest.mark.parametrize("kind", ["report", "release", "contract", "export"])
def test_evidence_made_by_hand_is_refused(still: Still, home: Home, place: Path, kind: str) -> None:
    (place / "report.json").write_text('{"metrics": []}', encoding="utf-8")
    told = still("publish", place / "report.json", "--kind", kind)
    assert told.code == 2
    assert "recorded runs only" in told.err
    _assert_nothing_kept(home)


POLICY = 'policy = "policy.toml"\n'
ONE_SOURCE = """
[teacher]
name = "t"
model = "policy.toml"
[dataset]
answers = "given"
splits = {{ train = 1, held_out = 1, evaluation = 1 }}
[[dataset.sources]]
format = "jsonl"
questions = "qq.jsonl"
{more}
"""
GIVEN = 'given = {{ checkpoint = "{checkpoint}" }}\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = [", "not valid TOML"),
        ("name = 'a'\n", "policy"),
        ("name = 'a'\ntier = 'tier_9'\n" + POLICY, "tier_9"),
        ("name = 'a'\npolicy = 'nowhere.toml'\n", "nowhere.toml"),
        ("name = 'a'\npolicy = 'https://example.com/p.toml'\n", "URL"),
        ("name = 'a'\npolicy = 'dist:no-such-distribution/p.toml'\n", "no-such-distribution"),
        ("name = 'a'\n" + POLICY + "[teacher]\nname='t'\nmodel='gone.gguf'\n", "gone.gguf"),
        ("name = 'a'\n" + POLICY + "colour = 'red'\n", "colour"),
    ],
)
def test_a_recipe_that_cannot_be_resolved_says_where_and_records_nothing(  # noqa: PLR0917  # fixtures
    still: Still, home: Home, place: Path, policy: Path, text: str, says: str
) -> None:
    recipe = place / "recipe.toml"
    policy.rename(place / "policy.toml")
    recipe.write_text(text, encoding="utf-8")
    told = still("run", recipe)
    assert told.code == 2
    assert says in told.err
    _assert_nothing_kept(home)


def test_a_mistyped_path_is_told_as_a_file_that_is_not_there(
    still: Still, home: Home, place: Path, policy: Path
) -> None:
    policy.rename(place / "policy.toml")
    (place / "deep").mkdir()
    text = "name = 'a'\npolicy = 'polcy.toml'\n" + ONE_SOURCE.format(more="")
    (place / "deep" / "recipe.toml").write_text(text, encoding="utf-8")
    told = still("run", Path("deep") / "recipe.toml")
    assert told.code == 2
    assert "policy is 'polcy.toml': there is no such file (deep/polcy.toml)" in told.err
    assert "no reference either" in told.err
    (place / "recipe.toml").write_text(
        "name = 'a'\n" + POLICY + ONE_SOURCE.format(more=""), encoding="utf-8"
    )
    told = still("run", "recipe.toml")
    assert "dataset.sources.0.questions is 'qq.jsonl': there is no such file" in told.err
    _assert_nothing_kept(home)


@pytest.mark.usefixtures("home")
def test_every_fault_of_a_recipe_is_told_unknown_keys_first_with_the_nearest_name(
    still: Still, place: Path
) -> None:
    text = "name = 'a'\n" + ONE_SOURCE.format(more="anwers = 'a'") + "[training]\nstepz = 6\n"
    (place / "recipe.toml").write_text(text + "[export]\nprefill = 'x'\n", encoding="utf-8")
    err = still("run", "recipe.toml").err
    assert "training.stepz: there is no such key (did you mean steps?)" in err
    assert "dataset.sources.0.anwers: there is no such key (did you mean answers?)" in err
    places = [err.index(part) for part in ("training.stepz", "training.steps:", "policy:")]
    assert err.index("sources.0.anwers") < min(places[1:])
    assert places[0] < min(places[1:])
    assert "export.prefill" in err


@pytest.mark.parametrize(
    "reference",
    ["policy.toml", "./policy.toml", "/etc/passwd", "https://example.com/p", "dist:a/b"],
)
def test_a_recipe_from_the_inbox_may_not_name_files(
    still: Still, home: Home, policy: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.cli.daemon.inbox.SETTLE_SECONDS", 0.05)
    policy.rename(home.inbox / "recipe" / "policy.toml")
    dropped = home.inbox / "recipe" / "dropped.toml"
    dropped.write_text(f"name = 'a'\npolicy = '{reference}'\n", encoding="utf-8")
    (home.inbox / "recipe" / "policy.toml").unlink()
    told = still("watch", "--once")
    assert told.code == 1
    assert "dropped.toml" in told.err
    assert "recipe" not in {row[0] for row in still("ls").rows}


def test_a_cut_log_is_refused_and_left_as_it_is(
    still: Still, home: Home, place: Path, policy: Path
) -> None:
    still("publish", policy, "--kind", "policy")
    (place / "x").write_text("x", encoding="utf-8")
    still("publish", place / "x", "--kind", "source")
    assert still("sql", "SELECT count(*) FROM event").code == 0
    lines = home.log.read_bytes().splitlines(keepends=True)
    home.log.write_bytes(b"".join(lines[:-1]))
    told = still("sql", "SELECT 1")
    assert told.code == 1
    assert "events.log" in told.err
    assert home.log.read_bytes() == b"".join(lines[:-1])


def _assert_nothing_kept(home: Home) -> None:
    assert home.log.read_bytes() == b""
    assert list(BlobStore(home.objects).digests()) == []
