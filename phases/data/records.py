"""The dataset and teacher-cache trees: what lies in them, how they are written and read.

The formats are in docs/phases.md. Rules: every record's `id` is the digest of its content and is
checked on reading, so a cache row never meets a record that was edited; the same records give the
same bytes; a folder that a person published by hand is read with the same distrust as any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from stillhouse.phases.untrusted import read_bounded
from stillhouse.schemas import canonical
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError, UntrustedFileError
from stillhouse.schemas.value import Value
from stillhouse.store.disk.durable import reading, writing
from stillhouse.store.disk.hashing import hash_bytes

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

Split = Literal["train", "held_out", "evaluation"]
SPLITS: tuple[Split, ...] = ("train", "held_out", "evaluation")
CACHED_SPLITS: tuple[Split, ...] = ("train", "held_out")
"""The splits that the teacher scores; evaluation asks the teacher itself."""

_ID_TAG = b"stillhouse example v1\n"
_LONGEST_LINE = 8 << 20
"""Bytes of one record; a line longer than this is refused before it is parsed."""
_LARGEST_HEADER = 1 << 20
"""Bytes of dataset.json and cache.json."""
_UINT16_VOCABULARY = 1 << 16
_COLUMNS = ("id", "n", "top_ids", "top_logprobs", "tail")


class Message(Value):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Record(Value):
    """One example: what the teacher was asked, what it should say, and both as tokens."""

    id: Digest
    """`content_id` of messages, tools and answer."""
    messages: tuple[Message, ...] = Field(min_length=1)
    """As rendered: the system message already holds the tools' text."""
    tools: tuple[dict[str, Any], ...] = ()
    """Function schemas (phases/data/calls.py): `name`, `description`, `parameters`."""
    functions: tuple[str, ...] = ()
    """Sorted names of the functions that may be called."""
    answer: str
    acceptable: dict[str, tuple[Any, ...]] | None = None
    """For a function call: argument -> every right value, when they are known."""
    prompt: str
    """The rendered chat, up to where the answer begins."""
    token_ids: tuple[Annotated[int, Field(ge=0)], ...]
    """Prompt + answer + EOS."""
    answer_start: Annotated[int, Field(gt=0)]
    """Index in `token_ids` of the first answer token."""

    @model_validator(mode="after")
    def _answer_is_inside(self) -> Record:
        if self.answer_start >= len(self.token_ids):
            raise ValueError("answer_start lies past the last token")
        if list(self.functions) != sorted(set(self.functions)):
            raise ValueError("functions must be sorted and named once")
        return self

    @property
    def answer_length(self) -> int:
        """Answer positions, EOS included."""
        return len(self.token_ids) - self.answer_start


def content_id(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], answer: str
) -> Digest:
    """The digest that names a record: BLAKE3 over a tag and the canonical JSON of its content.

    Raises InputError when the content has no canonical form.
    """
    content = {
        "messages": [m.to_json() for m in messages],
        "tools": [dict(t) for t in tools],
        "answer": answer,
    }
    return hash_bytes(_ID_TAG + canonical.encode(content)).digest


class DatasetHeader(Value):
    """`dataset.json`."""

    schema_version: Literal[1] = 1
    tokenizer: Digest
    """Of tokenizer.json."""
    counts: dict[Split, Annotated[int, Field(ge=0)]]
    top_k: Annotated[int, Field(gt=0)]
    teacher: str
    answers: Literal["given", "generated"]
    eos_token_id: Annotated[int, Field(ge=0)]


class CacheHeader(Value):
    """`cache.json`."""

    schema_version: Literal[1] = 1
    key: Digest
    """Of everything the numbers depend on."""
    k: Annotated[int, Field(gt=0)]
    vocab_size: Annotated[int, Field(gt=0)]
    teacher: Digest


@dataclass(frozen=True, kw_only=True, eq=False)
class CacheRow:
    """The teacher's distribution at the answer positions of one record, at temperature 1.

    Row i predicts `token_ids[answer_start + i]` from the tokens before it.
    """

    n: int
    """Answer positions, EOS included."""
    top_ids: NDArray[np.int64]
    """[n, k]: the k most likely tokens, most likely first."""
    top_logprobs: NDArray[np.float32]
    """[n, k]: their natural log-probabilities (rounded to fp16 in the file)."""
    tail: NDArray[np.float32]
    """[n]: log of the probability outside the top k."""


# --- records --------------------------------------------------------------------------------------


def write_split(folder: Path, split: Split, records: Sequence[Record]) -> None:
    """Write `<split>.jsonl`: one canonical JSON object a line. Raises StorageError."""
    lines = b"".join(canonical.encode(r.to_json()) + b"\n" for r in records)
    _write(folder / f"{split}.jsonl", lines)


def read_split(folder: Path, split: Split) -> list[Record]:
    """The records of a split, in file order.

    Raises UntrustedFileError, naming file and line, when a record is malformed, occurs twice or is
    not the content that its id names; InputError when the file cannot be read.
    """
    path = folder / f"{split}.jsonl"
    records: dict[str, Record] = {}
    for number, line in json_lines(path):
        record = _record(path, number, line)
        if record.id in records:
            raise _refused(path, number, f"repeats the record {record.id}")
        records[record.id] = record
    return list(records.values())


def write_header(folder: Path, header: DatasetHeader) -> None:
    """Write `dataset.json`. Raises StorageError."""
    _write(folder / "dataset.json", canonical.encode(header.to_json()))


def read_header(folder: Path) -> DatasetHeader:
    """`dataset.json`. Raises UntrustedFileError (malformed), InputError (unreadable)."""
    return _header(folder / "dataset.json", DatasetHeader)


def json_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Each line of a JSON-lines file with its number, from 1.

    Raises UntrustedFileError for a line beyond 8 MiB, InputError when the file cannot be read.
    """
    with reading(path), path.open("rb") as file:
        number = 0
        while line := file.readline(_LONGEST_LINE + 1):
            number += 1
            if len(line) > _LONGEST_LINE:
                raise _refused(path, number, f"is longer than {_LONGEST_LINE >> 20} MiB")
            yield number, line


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        record = Record.model_validate(canonical.decode(line))
        expected = content_id(record.messages, record.tools, record.answer)
    except (ValidationError, InputError) as error:
        raise _refused(path, number, f"is not a record: {_first(error)}") from error
    if record.id != expected:
        raise _refused(path, number, f"has id {record.id}, but its content is {expected}")
    return record


H = TypeVar("H", DatasetHeader, CacheHeader)


def _header(path: Path, form: type[H]) -> H:
    remedy = "Write it as docs/phases.md describes, or publish the folder again."
    data = read_bounded(path, limit=_LARGEST_HEADER, code="records.bad_header", remedy=remedy)
    try:
        return form.model_validate(canonical.decode(data))
    except (ValidationError, InputError) as error:
        raise UntrustedFileError(
            f"{path.name} cannot be read: {_first(error)}.",
            remedy=remedy,
            code="records.bad_header",
        ) from error


def _first(error: ValidationError | InputError) -> str:
    """The first complaint, in one line."""
    if isinstance(error, InputError):
        return error.message.rstrip(".")
    detail = error.errors()[0]
    return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}".lstrip(": ")


def _refused(path: Path, number: int, what: str) -> UntrustedFileError:
    return UntrustedFileError(
        f"Line {number} of {path.name} {what}.",
        remedy="Correct that line as docs/phases.md describes a dataset, then publish again.",
        code="records.bad_record",
    )


def _write(path: Path, data: bytes) -> None:
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


# --- teacher cache --------------------------------------------------------------------------------


def write_cache_header(folder: Path, header: CacheHeader) -> None:
    """Write `cache.json`. Raises StorageError."""
    _write(folder / "cache.json", canonical.encode(header.to_json()))


def read_cache_header(folder: Path) -> CacheHeader:
    """`cache.json`. Raises UntrustedFileError (malformed), InputError (unreadable)."""
    return _header(folder / "cache.json", CacheHeader)


def write_cache(
    folder: Path, split: Split, rows: Mapping[str, CacheRow], *, vocab_size: int
) -> None:
    """Write `<split>.parquet`, one row a record, in the mapping's order. Raises StorageError.

    BYTE_STREAM_SPLIT puts like bytes of neighbouring floats together, which zstd then packs: 85
    bytes a position at k = 32. One row group and no embedded Arrow schema: same rows, same bytes.
    """
    import pyarrow.parquet as pq

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            _table(rows, vocab_size),
            folder / f"{split}.parquet",
            row_group_size=max(1, len(rows)),
            compression="zstd",
            use_dictionary=False,
            column_encoding={
                "top_logprobs.list.element": "BYTE_STREAM_SPLIT",
                "tail.list.element": "BYTE_STREAM_SPLIT",
            },
            store_schema=False,
        )


def _table(rows: Mapping[str, CacheRow], vocab_size: int) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    ids = pa.uint16() if vocab_size <= _UINT16_VOCABULARY else pa.uint32()
    values = list(rows.values())
    columns = [
        pa.array(list(rows), pa.string()),
        pa.array([row.n for row in values], pa.int32()),
        pa.array([row.top_ids.ravel() for row in values], pa.list_(ids)),
        pa.array(
            [row.top_logprobs.astype(np.float16).ravel() for row in values],
            pa.list_(pa.float16()),
        ),
        pa.array([row.tail for row in values], pa.list_(pa.float32())),
    ]
    return pa.table(columns, names=list(_COLUMNS))


def read_cache(folder: Path, split: Split) -> dict[str, CacheRow]:
    """The rows of `<split>.parquet` by record id.

    Raises UntrustedFileError when the file is not such a table or a row's lists do not fit its `n`
    and the header's `k` and `vocab_size`; InputError when it cannot be read.
    """
    header = read_cache_header(folder)
    table = _read_table(folder / f"{split}.parquet")
    columns = (table.column(name).combine_chunks() for name in _COLUMNS)
    found: dict[str, CacheRow] = {}
    for name, n, top_ids, top_logprobs, tail in zip(*columns, strict=True):
        row = _row(header, n.as_py(), top_ids, top_logprobs, tail)
        if row is None or name.as_py() in found:
            raise _bad_cache(split, f"its row for {name.as_py()} is malformed")
        found[name.as_py()] = row
    return found


def _read_table(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with reading(path):
            table = pq.read_table(path, columns=list(_COLUMNS))
    except (pa.ArrowException, ValueError) as error:
        raise _bad_cache(path.stem, str(error).splitlines()[0]) from error
    if table.column_names != list(_COLUMNS):
        raise _bad_cache(path.stem, f"it needs the columns {', '.join(_COLUMNS)}")
    return table


def _row(
    header: CacheHeader, n: int, top_ids: pa.Scalar, top_logprobs: pa.Scalar, tail: pa.Scalar
) -> CacheRow | None:
    """One row as arrays; None when it does not fit the header."""
    import numpy as np

    flat = [np.asarray(s.values) for s in (top_ids, top_logprobs, tail)]
    if [a.size for a in flat] != [n * header.k, n * header.k, n]:
        return None
    if flat[0].size and int(flat[0].max()) >= header.vocab_size:
        return None
    if not all(np.isfinite(a).all() for a in flat[1:]):
        return None
    return CacheRow(
        n=n,
        top_ids=flat[0].astype(np.int64).reshape(n, header.k),
        top_logprobs=flat[1].astype(np.float32).reshape(n, header.k),
        tail=flat[2].astype(np.float32),
    )


def _bad_cache(split: str, what: str) -> UntrustedFileError:
    return UntrustedFileError(
        f"The teacher cache {split}.parquet cannot be used: {what}.",
        remedy="Build the dataset again; a cache is made by the dataset phase, never by hand.",
        code="records.bad_cache",
    )
