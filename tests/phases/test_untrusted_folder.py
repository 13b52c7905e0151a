from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stillhouse.phases.untrusted import check_model_folder, find_pickle
from stillhouse.schemas.errors import UntrustedFileError


class Evil:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._mark),)


def weights(*names: str) -> bytes:
    header = {
        name: {"dtype": "F16", "shape": [2], "data_offsets": [4 * n, 4 * n + 4]}
        for n, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4 * len(names))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": 2}')
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("config\nof\nReal models.")
    (folder / "model.safetensors").write_bytes(weights("a", "b"))
    return folder


def shard(model: Path, weight_map: object) -> None:
    (model / "model.safetensors").unlink()
    (model / "model-1.safetensors").write_bytes(weights("a"))
    (model / "model-2.safetensors").write_bytes(weights("b"))
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_a_sound_folder_is_summarised(model: Path) -> None:
    found = check_model_folder(model)
    assert found.model_type == "llama"
    assert found.config["vocab_size"] == 2
    assert found.tensors == {"a": ("F16", (2,)), "b": ("F16", (2,))}
    assert found.parameters == 4
    assert "tokenizer.json" in found.files


def test_a_sharded_folder_has_the_tensors_of_its_index(model: Path) -> None:
    shard(model, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    assert set(check_model_folder(model).tensors) == {"a", "b"}


def test_training_state_beside_the_weights_is_checked_and_not_counted(model: Path) -> None:
    (model / "training_state.safetensors").write_bytes(weights("moment"))
    assert set(check_model_folder(model).tensors) == {"a", "b"}
    (model / "training_state.safetensors").write_bytes(weights("moment")[:-1])
    with pytest.raises(UntrustedFileError, match=r"training_state\.safetensors"):
        check_model_folder(model)


def test_a_folder_of_links_to_files_is_read_like_the_files(model: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in model.iterdir():
        (linked / path.name).symlink_to(path)
    assert check_model_folder(linked) == check_model_folder(model)


@pytest.mark.parametrize(
    "weight_map",
    [
        {"a": "../model-1.safetensors"},
        {"a": "/etc/passwd"},
        {"a": "sub/model-1.safetensors"},
        {"a": "..\\model-1.safetensors"},
        {"a": "model-3.safetensors"},
        {"a": "model-2.safetensors"},
        {"a": "config.json"},
        {"a": 1},
        {},
        ["a"],
    ],
)
def test_an_index_that_points_elsewhere_is_refused(model: Path, weight_map: object) -> None:
    shard(model, weight_map)
    with pytest.raises(UntrustedFileError, match=r"index\.json") as error:
        check_model_folder(model)
    assert error.value.code == "model.bad_index"


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("config.json", {"model_type": "x", "auto_map": {"AutoModel": "m.M"}}),
        ("config.json", {"model_type": "x", "deep": [{"text": {"auto_map": {}}}]}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["t.T", None]}}),
        ("generation_config.json", {"custom_generate": "who/ever"}),
    ],
)
def test_remote_code_is_refused(model: Path, file: str, settings: object) -> None:
    (model / file).write_text(json.dumps(settings))
    with pytest.raises(UntrustedFileError, match=file) as error:
        check_model_folder(model)
    assert error.value.code == "model.remote_code"


def _pickle(protocol: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(pickle.dumps(Evil(path.parent / "pwned"), protocol=protocol))

    return write


def _torch_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/version", "3")
        archive.writestr("archive/data", pickle.dumps(Evil(path.parent / "pwned")))


def _broken_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(50))


def _packed_zip(method: int, *, damaged: bool) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("data", b"harmless " * 400)
        content = bytearray(path.read_bytes())
        if damaged:
            start = content.index(b"data") + 4
            content[start : start + 60] = b"\xff" * 60
        path.write_bytes(content)

    return write


def _long_pickle(protocol: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        evil = [Evil(path.parent / "pwned"), *map(str, range(40_000))]
        path.write_bytes(pickle.dumps(evil, protocol=protocol))

    return write


def _pickle_and_rubbish(path: Path) -> None:
    """The loader fails, and has run the call by then."""
    path.write_bytes(pickle.dumps(Evil(path.parent / "pwned"), protocol=0)[:-1] + b"\xff\xff")


def _object_array(path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.array([Evil(path.parent / "pwned")], dtype=object)
    with path.open("wb") as file:
        numpy.save(file, array, allow_pickle=True)


def _text(path: Path) -> None:
    path.write_text("harmless")


@pytest.mark.parametrize(
    ("name", "write", "code"),
    [
        ("pytorch_model.bin", _text, "model.pickle"),
        ("weights.PT", _text, "model.pickle"),
        ("model.pth", _text, "model.pickle"),
        ("model.ckpt", _text, "model.pickle"),
        ("x.pkl", _text, "model.pickle"),
        ("x.pickle", _text, "model.pickle"),
        ("exported.pt2", _text, "model.export"),
        ("modeling_x.py", _text, "model.code"),
        ("sub/hook.py", _text, "model.code"),
        ("native.so", _text, "model.code"),
        ("vocab.txt", _pickle(0), "model.pickle"),
        ("vocab.txt", _pickle(1), "model.pickle"),
        ("vocab.txt", _pickle(2), "model.pickle"),
        ("vocab.txt", _pickle(4), "model.pickle"),
        ("tokenizer.model", _pickle(5), "model.pickle"),
        ("vocab.txt", _long_pickle(0), "model.pickle"),
        ("vocab.txt", _long_pickle(1), "model.pickle"),
        ("vocab.txt", _pickle_and_rubbish, "model.pickle"),
        ("assets.zip", _packed_zip(zipfile.ZIP_LZMA, damaged=True), "model.pickle"),
        ("assets.zip", _packed_zip(zipfile.ZIP_BZIP2, damaged=True), "model.pickle"),
        ("assets.zip", _packed_zip(zipfile.ZIP_DEFLATED, damaged=True), "model.pickle"),
        ("assets.zip", _torch_zip, "model.pickle"),
        ("notes", _broken_zip, "model.pickle"),
        ("sub/stats.npy", _object_array, "model.pickle"),
    ],
)
def test_code_and_pickles_are_refused_under_any_name_and_never_run(
    model: Path, name: str, write: Callable[[Path], None], code: str
) -> None:
    path = model / name
    path.parent.mkdir(exist_ok=True)
    write(path)
    with pytest.raises(UntrustedFileError, match=path.name) as error:
        check_model_folder(model)
    assert error.value.code == code
    assert not (path.parent / "pwned").exists()


def test_a_pickle_named_safetensors_is_refused(model: Path) -> None:
    _pickle(4)(model / "model.safetensors")
    with pytest.raises(UntrustedFileError) as error:
        check_model_folder(model)
    assert error.value.code == "safetensors.malformed"


def test_honest_files_are_not_taken_for_pickles(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    numpy.save(tmp_path / "floats.npy", numpy.ones((2, 3)))
    numpy.savez(tmp_path / "floats.npz", a=numpy.ones(2))
    for name, content in {
        "a.txt": "config\nof\nReal models.",
        "b.txt": "(lp0\nS'text'\n.",
        "c.txt": "",
        "d.json": '{"a": 1}',
        "e.txt": "Nothing.",
        "f.txt": "R.",
        "g.txt": "(config\nof\nReal.\n" * 9000,
    }.items():
        (tmp_path / name).write_text(content)
    _packed_zip(zipfile.ZIP_LZMA, damaged=False)(tmp_path / "sound.zip")
    assert {path.name: find_pickle(path) for path in tmp_path.iterdir()} == dict.fromkeys(
        path.name for path in tmp_path.iterdir()
    )


@pytest.mark.parametrize("count", [512, 640, 896, 1152, 1408])
def test_a_count_of_weights_is_not_taken_for_a_pickle(tmp_path: Path, count: int) -> None:
    """Core ML's weight.bin begins with how many blobs it holds: 640 is 80 02 00 00."""
    path = tmp_path / "weight.bin"
    path.write_bytes(struct.pack("<II", count, 2) + bytes(1000))
    assert find_pickle(path) is None


def _no_config(model: Path) -> None:
    (model / "config.json").unlink()


def _config(text: str) -> Callable[[Path], None]:
    def write(model: Path) -> None:
        (model / "config.json").write_text(text)

    return write


def _no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def _dangling(model: Path) -> None:
    (model / "vocab.txt").symlink_to("nowhere")


def _folder_link(model: Path) -> None:
    (model / "up").symlink_to("..")


def _fifo(model: Path) -> None:
    os.mkfifo(model / "pipe")


def _bytes_name(model: Path) -> None:
    Path(os.fsdecode(bytes(model) + b"/\xff.json")).touch()


def _deep(model: Path) -> None:
    (model / Path(*["d"] * 40)).mkdir(parents=True)


def _long_template(model: Path) -> None:
    (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x" * 300_000}))


def _long(name: str, size: int) -> Callable[[Path], None]:
    def write(model: Path) -> None:
        with (model / name).open("wb") as file:
            file.truncate(size)

    return write


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_no_config, "model.no_config"),
        (_config("{"), "model.bad_config"),
        (_config("[]"), "model.bad_config"),
        (_config('{"a": NaN}'), "model.bad_config"),
        (_config("{}"), "model.bad_config"),
        (_config('{"a": "' + "x" * (17 << 20) + '"}'), "model.bad_config"),
        (_no_weights, "model.no_weights"),
        (_dangling, "folder.special"),
        (_folder_link, "folder.special"),
        (_fifo, "folder.special"),
        (_bytes_name, "folder.bad_name"),
        (_deep, "folder.too_deep"),
        (_config('{"model_type": "llama", "a": "' + "x" * (2 << 20) + '"}'), "model.bad_config"),
        (_long_template, "chat_template.too_long"),
        (_long("chat_template.jinja", 300_000), "chat_template.too_long"),
        (_long("chat_template.jinja", 2 << 20), "model.too_large"),
        (_long("tokenizer.json", 65 << 20), "model.too_large"),
        (_long("vocab.json", 65 << 20), "model.too_large"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(
    model: Path, spoil: Callable[[Path], None], code: str
) -> None:
    spoil(model)
    with pytest.raises(UntrustedFileError) as error:
        check_model_folder(model)
    assert error.value.code == code
    assert error.value.remedy
    assert str(error.value).isprintable()
