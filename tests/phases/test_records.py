"""The dataset and teacher-cache trees: what is written is read back, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.phases.data.records import (
    CacheHeader,
    CacheRow,
    DatasetHeader,
    Message,
    Record,
    content_id,
    read_cache,
    read_cache_header,
    read_header,
    read_split,
    write_cache,
    write_cache_header,
    write_header,
    write_split,
)
from stillhouse.schemas.errors import InputError, UntrustedFileError


def a_record(number: int = 0, *, answer: str = "yes") -> Record:
    messages = (Message(role="user", content=f"Question {number}? ü\n"),)
    tools = ({"name": "f", "description": "", "parameters": {"type": "object"}},)
    return Record(
        id=content_id(messages, tools, answer),
        messages=messages,
        tools=tools,
        functions=("f",),
        answer=answer,
        acceptable={"x": (1, "one", [2.5])},
        prompt="<u>",
        token_ids=(5, 6, 7, 8, 2),
        answer_start=3,
    )


def a_row(n: int, k: int, *, vocab: int = 50, seed: int = 0) -> CacheRow:
    random = np.random.default_rng(seed)
    return CacheRow(
        n=n,
        top_ids=random.integers(0, vocab, (n, k)),
        top_logprobs=-random.random((n, k), dtype=np.float32) * 20,
        tail=-random.random(n, dtype=np.float32) * 20,
    )


def a_cache(folder: Path, rows: dict[str, CacheRow], *, k: int = 3, vocab: int = 50) -> Path:
    write_cache(folder, "train", rows, vocab_size=vocab)
    header = CacheHeader(key="0" * 64, k=k, vocab_size=vocab, teacher="1" * 64)
    write_cache_header(folder, header)
    return folder


def edited(folder: Path, **changes: object) -> Path:
    """A split of two records, the second with some fields changed by hand."""
    write_split(folder, "train", [a_record(0), a_record(1)])
    first, second = (folder / "train.jsonl").read_text().splitlines()
    (folder / "train.jsonl").write_text(f"{first}\n{json.dumps(json.loads(second) | changes)}\n")
    return folder


def test_a_split_comes_back_as_it_was_written_in_its_order(tmp_path: Path) -> None:
    records = [a_record(n) for n in (3, 1, 2)]
    write_split(tmp_path, "held_out", records)
    assert read_split(tmp_path, "held_out") == records


def test_writing_what_was_read_changes_no_byte(tmp_path: Path) -> None:
    write_split(tmp_path, "train", [a_record(1), a_record(2)])
    before = (tmp_path / "train.jsonl").read_bytes()
    write_split(tmp_path, "train", read_split(tmp_path, "train"))
    assert (tmp_path / "train.jsonl").read_bytes() == before


def test_a_record_edited_by_hand_is_refused_with_the_id_it_should_have(tmp_path: Path) -> None:
    with pytest.raises(UntrustedFileError) as refused:
        read_split(edited(tmp_path, answer="no"), "train")
    assert refused.value.message.startswith("Line 2 of train.jsonl")
    changed = a_record(1, answer="no")
    assert changed.id in refused.value.message


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"surprise": 1}, "surprise"),
        ({"answer_start": 5}, "answer_start"),
        ({"answer_start": 0}, "answer_start"),
        ({"token_ids": [5, -1, 7, 8, 2]}, "token_ids"),
        ({"functions": ["g", "f"]}, "sorted"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": ""}]}, "messages.0.role"),
    ],
)
def test_a_malformed_record_is_refused_by_field(
    tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(UntrustedFileError, match=complaint):
        read_split(edited(tmp_path, **changes), "train")


@pytest.mark.parametrize("line", [b"[]", b"{", b"\xff", b"", b'{"id":1,"id":2}', b"[" * 100_000])
def test_a_line_that_is_no_object_is_refused(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "train.jsonl").write_bytes(line + b"\n")
    with pytest.raises(UntrustedFileError, match=r"Line 1 of train\.jsonl"):
        read_split(tmp_path, "train")


def test_a_record_given_twice_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path, "train", [a_record(1), a_record(1)])
    with pytest.raises(UntrustedFileError, match="repeats"):
        read_split(tmp_path, "train")


def test_an_endless_line_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(b'{"answer":"' + b"a" * (8 << 20))
    with pytest.raises(UntrustedFileError, match="longer than 8 MiB"):
        read_split(tmp_path, "train")


def test_a_missing_split_says_which_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.jsonl"):
        read_split(tmp_path, "train")


def test_headers_come_back(tmp_path: Path) -> None:
    header = DatasetHeader(
        tokenizer="2" * 64,
        counts={"train": 1, "held_out": 2, "evaluation": 3},
        top_k=4,
        teacher="t",
        answers="given",
        eos_token_id=2,
    )
    write_header(tmp_path, header)
    assert read_header(tmp_path) == header
    (tmp_path / "dataset.json").write_text('{"schema_version":2}')
    with pytest.raises(UntrustedFileError, match="schema_version"):
        read_header(tmp_path)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), max_size=5),
    k=st.integers(1, 6),
    vocab=st.sampled_from([7, 65_536, 65_537, 200_000]),
)
def test_any_cache_comes_back_to_fp16(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], k: int, vocab: int
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    rows = {f"r{i}": a_row(n, k, vocab=vocab, seed=i) for i, n in enumerate(sizes)}
    found = read_cache(a_cache(folder, rows, k=k, vocab=vocab), "train")
    assert list(found) == list(rows)
    for name, row in rows.items():
        assert found[name].n == row.n
        np.testing.assert_array_equal(found[name].top_ids, row.top_ids)
        np.testing.assert_array_equal(found[name].tail, row.tail)
        rounded = row.top_logprobs.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(found[name].top_logprobs, rounded)
        assert found[name].top_logprobs.dtype == np.float32
        assert found[name].top_ids.dtype == np.int64


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    rows = {f"r{i}": a_row(4, 3, seed=i) for i in range(20)}
    one, two = (a_cache(tmp_path / name, rows) for name in ("one", "two"))
    assert (one / "train.parquet").read_bytes() == (two / "train.parquet").read_bytes()
    assert read_cache_header(one) == read_cache_header(two)


@pytest.mark.parametrize(("vocab", "kind"), [(65_536, "uint16"), (65_537, "uint32")])
def test_ids_are_as_narrow_as_the_vocabulary_allows(tmp_path: Path, vocab: int, kind: str) -> None:
    folder = a_cache(tmp_path, {"r": a_row(2, 3, vocab=vocab)}, vocab=vocab)
    table = pq.read_table(folder / "train.parquet")
    assert str(table.schema.field("top_ids").type) == f"list<element: {kind}>"


def test_floats_are_split_by_byte_and_packed(tmp_path: Path) -> None:
    folder = a_cache(tmp_path, {"r": a_row(8, 3)})
    group = pq.ParquetFile(folder / "train.parquet").metadata.row_group(0)
    for column in (3, 4):
        assert "BYTE_STREAM_SPLIT" in group.column(column).encodings
        assert group.column(column).compression == "ZSTD"


def test_a_cache_that_does_not_fit_its_header_is_refused(tmp_path: Path) -> None:
    rows = {"r": a_row(2, 3)}
    with pytest.raises(UntrustedFileError, match="malformed"):
        read_cache(a_cache(tmp_path / "k", rows, k=4), "train")
    beyond = CacheRow(
        n=1,
        top_ids=np.array([[60, 1, 2]]),
        top_logprobs=np.full((1, 3), -1, np.float32),
        tail=np.array([-1], np.float32),
    )
    with pytest.raises(UntrustedFileError, match="malformed"):
        read_cache(a_cache(tmp_path / "v", {"r": beyond}), "train")


def test_a_cache_with_a_number_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    row = a_row(2, 3)
    row.tail[1] = np.nan
    with pytest.raises(UntrustedFileError, match="malformed"):
        read_cache(a_cache(tmp_path, {"r": row}), "train")


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"not parquet at all"])
def test_a_damaged_cache_is_refused(tmp_path: Path, damage: bytes) -> None:
    a_cache(tmp_path, {"r": a_row(2, 3)})
    (tmp_path / "train.parquet").write_bytes(damage)
    with pytest.raises(UntrustedFileError, match=r"train\.parquet"):
        read_cache(tmp_path, "train")


@pytest.mark.parametrize(
    ("name", "read"), [("dataset.json", read_header), ("cache.json", read_cache_header)]
)
def test_a_header_of_any_size_is_not_read_whole(
    tmp_path: Path, name: str, read: Callable[[Path], object]
) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(2 << 20)
    with pytest.raises(UntrustedFileError, match="larger than"):
        read(tmp_path)
