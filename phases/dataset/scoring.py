"""The teacher's distributions over the chosen records, journal first.

Rule: a row is kept before the next passage is scored, under a key of everything it depends on.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from stillhouse.phases.contract import Progress
from stillhouse.phases.data.journal import Journal
from stillhouse.phases.data.records import CacheRow, Record
from stillhouse.phases.teachers import Passage, Teacher
from stillhouse.schemas import canonical
from stillhouse.schemas.digest import Digest
from stillhouse.store.disk.hashing import hash_bytes

_KEY_TAG = b"stillhouse teacher-cache v1\n"
_SHAPE = struct.Struct("<II")


def score(
    records: Sequence[Record],
    teacher: Teacher,
    k: int,
    journal: Journal,
    progress: Progress,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> dict[Digest, CacheRow]:
    """The top k at every answer position of each record, by record id, in the records' order.

    Raises PhaseError.
    """
    keys = [score_key(teacher, record, k) for record in records]
    # By key: two records may differ in what they offer and still read the same, token by token.
    missing = {
        key: record for key, record in zip(keys, records, strict=True) if journal.get(key) is None
    }
    fresh = teacher.score(map(_passage, missing.values()), k)
    rows: dict[Digest, CacheRow] = {}
    begun, tokens = clock(), 0
    for done, (record, key) in enumerate(zip(records, keys, strict=True), start=1):
        kept = journal.get(key)
        if kept is None:
            kept = _packed(next(fresh))
            journal.keep(key, kept)
            tokens += len(record.token_ids)
        rows[record.id] = _unpacked(kept)
        rate = tokens / max(clock() - begun, 1e-9)
        progress("scoring", done, len(records), tokens_per_second=rate)
    return rows


def score_key(teacher: Teacher, record: Record, k: int) -> Digest:
    """The digest of everything that a record's row depends on."""
    content = {
        "teacher": teacher.identity,
        "k": k,
        "temperature": 1,
        "token_ids": list(record.token_ids),
        "answer_start": record.answer_start,
    }
    return hash_bytes(_KEY_TAG + canonical.encode(content)).digest


def cache_key(keys: Iterable[Digest]) -> Digest:
    """The digest of a whole cache: of its rows' keys, in order."""
    return hash_bytes(_KEY_TAG + canonical.encode(list(keys))).digest


def _passage(record: Record) -> Passage:
    return Passage(token_ids=record.token_ids, answer_start=record.answer_start)


def _packed(row: CacheRow) -> bytes:
    """Lay out n and k, then ids (u32), log-probabilities and tail (f32), all little-endian."""
    parts = (
        row.top_ids.astype("<u4"),
        row.top_logprobs.astype("<f4"),
        row.tail.astype("<f4"),
    )
    return _SHAPE.pack(row.n, row.top_ids.shape[1]) + b"".join(p.tobytes() for p in parts)


def _unpacked(data: bytes) -> CacheRow:
    n, k = _SHAPE.unpack_from(data)
    ids = np.frombuffer(data, "<u4", n * k, _SHAPE.size)
    logprobs = np.frombuffer(data, "<f4", n * k, _SHAPE.size + 4 * n * k)
    tail = np.frombuffer(data, "<f4", n, _SHAPE.size + 8 * n * k)
    return CacheRow(
        n=n,
        top_ids=ids.astype(np.int64).reshape(n, k),
        top_logprobs=logprobs.reshape(n, k),
        tail=tail,
    )
