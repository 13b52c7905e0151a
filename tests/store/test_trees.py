from __future__ import annotations

import hashlib
import os
import threading
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.trees.names import component_fault, path_faults
from stillhouse.store.trees.trees import HEADER, Entry, parse_tree, put_tree, read_tree, tree_bytes

EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
ABC = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"

# Forever: releases name trees by these bytes.
GOLDEN_ENTRIES = (
    Entry(path="Z last by case, first by bytes", size=3, digest=ABC),
    Entry(path="a-b", size=0, digest=EMPTY),
    Entry(path="a/run.sh", size=3, digest=ABC, executable=True),
    Entry(path="é/ü", size=0, digest=EMPTY),
)
GOLDEN_BYTES = (
    f"stillhouse tree v1\n"
    f"- 3 {ABC} Z last by case, first by bytes\n"
    f"- 0 {EMPTY} a-b\n"
    f"x 3 {ABC} a/run.sh\n"
    f"- 0 {EMPTY} é/ü\n"
).encode()
GOLDEN_DIGEST = "59e6f78b50e60a294ea2ad304b8b2d19a54825d16e1040f202fc93cd03637d4e"

_digest = st.binary(min_size=32, max_size=32).map(bytes.hex)
_name = (
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=12)
    .map(lambda text: unicodedata.normalize("NFC", text))
    .filter(lambda text: component_fault(text) is None)
)
_path = st.lists(_name, min_size=1, max_size=4).map("/".join)


@st.composite
def _entries(draw: st.DrawFn) -> list[Entry]:
    kept: list[str] = []
    for path in draw(st.lists(_path, max_size=12)):
        if next(path_faults(sorted([*kept, path], key=str.encode)), None) is None:
            kept.append(path)
    return [
        Entry(
            path=path,
            size=draw(st.integers(0, 2**62)),
            digest=draw(_digest),
            executable=draw(st.booleans()),
        )
        for path in kept
    ]


def test_golden_tree_bytes() -> None:
    assert tree_bytes(reversed(GOLDEN_ENTRIES)) == GOLDEN_BYTES
    assert parse_tree(GOLDEN_BYTES) == GOLDEN_ENTRIES


def test_golden_tree_digest(store: BlobStore, tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    for entry in GOLDEN_ENTRIES:
        file = folder / entry.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"abc" if entry.size else b"")
        file.chmod(0o755 if entry.executable else 0o644)
    stored = put_tree(store, folder)
    assert stored.digest == GOLDEN_DIGEST
    assert store.read(stored.digest) == GOLDEN_BYTES


@given(_entries())
def test_a_tree_survives_the_round_trip_in_one_form_only(entries: list[Entry]) -> None:
    data = tree_bytes(entries)
    assert tree_bytes(reversed(entries)) == data
    parsed = parse_tree(data)
    assert sorted(parsed, key=lambda e: e.path) == sorted(entries, key=lambda e: e.path)
    assert tree_bytes(parsed) == data


@given(st.binary(max_size=300))
def test_whatever_parses_is_canonical(tail: bytes) -> None:
    try:
        entries = parse_tree(HEADER + tail)
    except IntegrityError:
        return
    assert tree_bytes(entries) == HEADER + tail


def _text(*lines: str) -> bytes:
    return HEADER + "".join(line + "\n" for line in lines).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"stillhouse tree v2\n",
        _text(f"- 3 {ABC} a")[:-1],
        _text(f"- 3 {ABC} ../a"),
        _text(f"- 3 {ABC} a/../b"),
        _text(f"- 3 {ABC} a/./b"),
        _text(f"- 3 {ABC} /etc/passwd"),
        _text(f"- 3 {ABC} a//b"),
        _text(f"- 3 {ABC} a/"),
        _text(f"- 3 {ABC} a\\b"),
        _text(f"- 3 {ABC} a\tb"),
        _text(f"- 3 {ABC} a\rb"),
        _text(f"- 3 {ABC} a\x85b"),
        _text(f"- 3 {ABC} a\x00b"),
        _text(f"- 3 {ABC} "),
        _text(f"- 03 {ABC} a"),
        _text(f"- -3 {ABC} a"),
        _text(f"- ٣ {ABC} a"),
        _text(f"- 3 {ABC.upper()} a"),
        _text(f"- 3 {ABC[:-1]} a"),
        _text(f"w 3 {ABC} a"),
        _text(f"-  3 {ABC} a"),
        _text("", f"- 3 {ABC} a"),
        _text(f"- 3 {ABC} b", f"- 3 {ABC} a"),
        _text(f"- 3 {ABC} a", f"- 3 {ABC} a"),
        _text(f"- 3 {ABC} A", f"- 3 {ABC} a"),
        _text(f"- 3 {ABC} A/x", f"- 3 {ABC} a/y"),
        _text(f"- 3 {ABC} a", f"- 3 {ABC} a/b"),
        _text(f"- 3 {ABC} a", f"- 3 {ABC} a-b", f"- 3 {ABC} a/b"),
        _text(f"- 3 {ABC} e\u0301"),
        _text(f"- 3 {ABC} {'a' * 256}"),
        _text(f"- 3 {ABC} {'/'.join(['a' * 200] * 6)}"),
        HEADER + f"- 3 {ABC} ".encode() + b"\xff\n",
    ],
)
def test_a_hostile_or_sloppy_tree_is_refused(store: BlobStore, data: bytes) -> None:
    with pytest.raises(IntegrityError) as error:
        read_tree(store, store.put_bytes(data).digest)
    assert error.value.code == "tree.malformed"


def test_a_corrupt_tree_is_told_before_it_is_parsed(store: BlobStore, folder: Path) -> None:
    digest = put_tree(store, folder).digest
    place = store.path(digest)
    place.chmod(0o644)
    place.write_bytes(place.read_bytes().replace(b"config", b"c0nfig"))
    with pytest.raises(IntegrityError, match=digest) as error:
        read_tree(store, digest)
    assert error.value.code == "store.corrupt"


@pytest.mark.parametrize(
    "entries",
    [
        [Entry(path="../a", size=0, digest=EMPTY)],
        [Entry(path="a\nb", size=0, digest=EMPTY)],
        [Entry(path="\udcff", size=0, digest=EMPTY)],
        [Entry(path="a", size=-1, digest=EMPTY)],
        [Entry(path="a", size=0, digest="x")],
        [Entry(path="a", size=0, digest=EMPTY), Entry(path="A", size=0, digest=EMPTY)],
    ],
)
def test_a_bad_tree_cannot_be_written(entries: list[Entry]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        tree_bytes(entries)


def test_a_folder_is_stored_with_its_files_and_their_sums(store: BlobStore, folder: Path) -> None:
    (folder / "nothing here").mkdir()
    stored = put_tree(store, folder, sha256=True)
    assert [(e.path, e.executable) for e in stored.entries] == [
        ("config.json", False),
        ("run me.sh", True),
        ("weights/empty", False),
        ("weights/model.bin", False),
    ]
    assert read_tree(store, stored.digest) == stored.entries
    assert stored.payload == sum(entry.size for entry in stored.entries) == 10253
    for entry, fact in zip(stored.entries, stored.files, strict=True):
        data = (folder / entry.path).read_bytes()
        assert store.read(entry.digest) == data
        assert fact.sha256 == hashlib.sha256(data).hexdigest()
        assert (fact.path, fact.size, fact.digest) == (entry.path, len(data), entry.digest)


def test_sha256_is_not_computed_unless_asked_for(store: BlobStore, folder: Path) -> None:
    assert put_tree(store, folder).files == ()


def test_the_digest_depends_on_content_names_and_mode_only(store: BlobStore, folder: Path) -> None:
    first = put_tree(store, folder).digest
    os.utime(folder / "config.json", (1, 1))
    (folder / "config.json").chmod(0o600)
    assert put_tree(store, folder).digest == first
    (folder / "config.json").chmod(0o755)
    assert put_tree(store, folder).digest != first


def _symlink(root: Path) -> None:
    (root / "link").symlink_to("config.json")


def _folder_link(root: Path) -> None:
    (root / "link").symlink_to("weights")


def _fifo(root: Path) -> None:
    os.mkfifo(root / "weights" / "fifo")


def _bytes_name(root: Path) -> None:
    Path(os.fsdecode(bytes(root) + b"/\xff\xfe.json")).touch()


def _newline(root: Path) -> None:
    (root / "a\nb").touch()


def _escape_sequence(root: Path) -> None:
    (root / "\x1b[2J").touch()


def _backslash(root: Path) -> None:
    (root / "a\\b").touch()


def _case(root: Path) -> None:
    (root / "CONFIG.json").touch()


def _folder_case(root: Path) -> None:
    (root / "Weights").mkdir()
    (root / "Weights" / "other").touch()


def _normal_form(root: Path) -> None:
    (root / "\u00e9").touch()
    (root / "e\u0301").touch()


@pytest.mark.parametrize(
    ("spoil", "code", "named"),
    [
        (_symlink, "file.symlink", "link"),
        (_folder_link, "file.symlink", "link"),
        (_fifo, "file.special", "fifo"),
        (_bytes_name, "tree.bad_name", "not UTF-8"),
        (_newline, "tree.bad_name", "control character"),
        (_escape_sequence, "tree.bad_name", "control character"),
        (_backslash, "tree.bad_name", "backslash"),
        (_case, "tree.clash", "CONFIG.json"),
        (_folder_case, "tree.clash", "Weights"),
        (_normal_form, "tree.clash", "listed twice"),
    ],
)
def test_a_folder_that_cannot_be_a_tree_is_refused_with_nothing_written(
    store: BlobStore, folder: Path, spoil: object, code: str, named: str
) -> None:
    assert callable(spoil)
    spoil(folder)
    with pytest.raises(InputError, match=named) as error:
        put_tree(store, folder)
    assert error.value.code == code
    assert str(error.value).isprintable()
    assert list(store.digests()) == []
    assert list((store.root / "tmp").iterdir()) == []


def test_the_folder_itself_must_be_a_folder_with_files(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "hollow" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "hollow")
    (tmp_path / "file").touch()
    for name, code in (
        ("hollow", "tree.empty"),
        ("link", "file.symlink"),
        ("file", "tree.not_folder"),
        ("absent", "file.unreadable"),
    ):
        with pytest.raises(InputError) as error:
            put_tree(store, tmp_path / name)
        assert error.value.code == code


def test_a_bottomless_folder_is_refused(store: BlobStore, tmp_path: Path) -> None:
    top = deep = tmp_path / "deep"
    deep.mkdir()
    for _ in range(600):
        deep = deep / "d"
        deep.mkdir()
    with pytest.raises(InputError, match="longer than 1024 bytes"):
        put_tree(store, top)


def test_a_decomposed_name_is_recorded_in_normal_form(store: BlobStore, tmp_path: Path) -> None:
    for name, text in (("composed", "\u00e9"), ("decomposed", "e\u0301")):
        (tmp_path / name).mkdir()
        (tmp_path / name / text).write_bytes(b"abc")
    assert (
        put_tree(store, tmp_path / "composed").digest
        == put_tree(store, tmp_path / "decomposed").digest
    )


def test_a_folder_that_gains_files_while_it_is_read_is_refused(
    store: BlobStore, folder: Path
) -> None:
    # Large enough for the other thread to get in between the first look and the last.
    (folder / "large").write_bytes(bytes(16 << 20))
    done = threading.Event()

    def drop_files() -> None:
        count = 0
        while not done.is_set():
            (folder / f"late-{count}").touch()
            count += 1
            done.wait(0.001)

    writer = threading.Thread(target=drop_files)
    writer.start()
    try:
        with pytest.raises(InputError) as error:
            put_tree(store, folder)
    finally:
        done.set()
        writer.join()
    assert error.value.code == "file.changed"
    assert list(store.digests()) == []
