from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from stillhouse.phases.models import (
    Student,
    StudentConfig,
    from_shape,
    from_teacher_layers,
    load_checkpoint,
    read_config,
    save_checkpoint,
)
from stillhouse.schemas.errors import InputError, StorageError, UntrustedFileError

CONFIG = StudentConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    tie_word_embeddings=True,
    eos_token_ids=(2,),
)
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "teacher"
    save_checkpoint(from_shape(CONFIG, SIZES, seed=3), path)
    return path


def logits(student: Student) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = student(torch.arange(12).reshape(1, 12))
    return out


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    path = folder / "model.safetensors"
    tensors: dict[str, torch.Tensor | None] = {**load_file(path)}
    tensors.update({name.replace("__", "."): tensor for name, tensor in changes.items()})
    save_file({n: t for n, t in tensors.items() if t is not None}, path)


def test_a_folder_saved_by_transformers_loads_with_equal_logits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = LlamaForCausalLM(LlamaConfig.from_dict(CONFIG.to_json())).eval()
    reference.save_pretrained(tmp_path)
    student, config = load_checkpoint(tmp_path)
    assert config == CONFIG
    with torch.no_grad():
        theirs = reference(torch.arange(12).reshape(1, 12)).logits
    assert (logits(student) - theirs).abs().max() <= 1e-5


def test_transformers_loads_what_we_save_with_equal_logits(folder: Path) -> None:
    reference = LlamaForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        theirs = reference(torch.arange(12).reshape(1, 12)).logits
    assert (logits(load_checkpoint(folder)[0]) - theirs).abs().max() <= 1e-5


def test_equal_weights_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    save_checkpoint(load_checkpoint(folder)[0], again)
    for name in ("config.json", "model.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_shards_load_like_one_file(folder: Path) -> None:
    whole = logits(load_checkpoint(folder)[0])
    tensors = sorted(load_file(folder / "model.safetensors").items())
    (folder / "model.safetensors").unlink()
    shards = {"model-1.safetensors": dict(tensors[:9]), "model-2.safetensors": dict(tensors[9:])}
    for name, part in shards.items():
        save_file(part, folder / name)
    weight_map = {tensor: name for name, part in shards.items() for tensor in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(logits(load_checkpoint(folder)[0]), whole)


def test_loaded_weights_can_be_trained_and_do_not_touch_the_file(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    student, _ = load_checkpoint(folder)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in student.parameters())
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_disk_that_refuses_the_weights_is_a_storage_error(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(StorageError, match="full") as caught:
            save_checkpoint(from_shape(CONFIG, SIZES, seed=3), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.code == "store.full"


def test_tokenizer_files_travel_with_the_weights(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").write_bytes(b'{"a": 1}')
    (folder / "notes.txt").write_bytes(b"private")
    save_checkpoint(load_checkpoint(folder)[0], tmp_path / "out", tokenizer_folder=folder)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json"}
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == b'{"a": 1}'


def test_chosen_layers_keep_the_teachers_weights_in_order(folder: Path) -> None:
    teacher = load_checkpoint(folder)[0].state_dict()
    student = from_teacher_layers(folder, (0, 3, 2))
    assert student.config.num_hidden_layers == 3
    mine = student.state_dict()
    for here, there in enumerate((0, 3, 2)):
        for name in ("self_attn.q_proj.weight", "mlp.down_proj.weight", "input_layernorm.weight"):
            assert torch.equal(
                mine[f"model.layers.{here}.{name}"], teacher[f"model.layers.{there}.{name}"]
            )
    assert torch.equal(mine["model.embed_tokens.weight"], teacher["model.embed_tokens.weight"])


def test_all_layers_make_the_teacher_itself(folder: Path) -> None:
    assert torch.equal(
        logits(from_teacher_layers(folder, range(4))), logits(load_checkpoint(folder)[0])
    )


@pytest.mark.parametrize(
    ("layers", "said"), [((0, 4), "no layer 4"), ((-1,), "no layer -1"), ((1, 2, 1), "Layer 1")]
)
def test_impossible_layers_are_refused(folder: Path, layers: tuple[int, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_teacher_layers(folder, layers)


def test_random_weights_follow_the_seed() -> None:
    assert torch.equal(
        logits(from_shape(CONFIG, SIZES, seed=5)), logits(from_shape(CONFIG, SIZES, seed=5))
    )
    assert not torch.equal(
        logits(from_shape(CONFIG, SIZES, seed=5)), logits(from_shape(CONFIG, SIZES, seed=6))
    )


def test_a_shape_that_does_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match="attention heads"):
        from_shape(CONFIG, SIZES | {"hidden_size": 30}, seed=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}),
        ("model_type", "gpt2"),
        ("hidden_act", "gelu"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("num_key_value_heads", 3),
        ("hidden_size", "32"),
        ("hidden_size", None),
        ("rms_norm_eps", -1.0),
        ("head_dim", 7),
    ],
)
def test_a_config_that_the_model_cannot_express_is_refused_by_field(
    folder: Path, field: str, value: Any
) -> None:
    edit_config(folder, **{field: value})
    with pytest.raises(InputError, match=field):
        read_config(folder)


def test_theta_is_read_from_either_spelling() -> None:
    old = {k: v for k, v in CONFIG.to_json().items() if k != "rope_parameters"}
    new = {k: v for k, v in CONFIG.to_json().items() if k != "rope_theta"}
    assert StudentConfig.from_json(old | {"rope_theta": 5e5}).rope_theta == 5e5
    new["rope_parameters"] = {"rope_type": "default", "rope_theta": 5e5}
    assert StudentConfig.from_json(new).rope_theta == 5e5


def test_a_missing_tensor_is_named(folder: Path) -> None:
    edit_weights(folder, model__layers__2__mlp__up_proj__weight=None)
    with pytest.raises(InputError, match=r"model\.layers\.2\.mlp\.up_proj\.weight is missing"):
        load_checkpoint(folder)


def test_a_surplus_tensor_is_named(folder: Path) -> None:
    edit_weights(folder, model__layers__0__self_attn__q_proj__bias=torch.zeros(32))
    with pytest.raises(InputError, match=r"q_proj\.bias"):
        load_checkpoint(folder)


def test_a_misshapen_tensor_is_named_with_both_shapes(folder: Path) -> None:
    edit_weights(folder, model__norm__weight=torch.ones(31))
    with pytest.raises(InputError, match=r"model\.norm\.weight has shape \(31,\).*\(32,\)"):
        load_checkpoint(folder)


def test_a_head_that_contradicts_tied_embeddings_is_refused(folder: Path) -> None:
    edit_weights(folder, lm_head__weight=torch.zeros(61, 32))
    with pytest.raises(InputError, match="ties the embeddings"):
        load_checkpoint(folder)


def test_a_truncated_weight_file_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-64])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_checkpoint(folder)


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        load_checkpoint(tmp_path)


def test_pickled_weights_are_never_opened(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UntrustedFileError, match=r"pytorch_model\.bin"):
        load_checkpoint(folder)


def test_a_folder_that_asks_for_remote_code_is_refused_as_teacher_too(folder: Path) -> None:
    edit_config(folder, auto_map={"AutoModel": "evil.Model"})
    with pytest.raises(UntrustedFileError, match="auto_map"):
        from_teacher_layers(folder, (0,))
