"""What was really published: the written trees, read back and measured.

Rule: nothing is taken over from the making. Duplicates, leaks, private texts, empty and cut answers
and missing cache rows are counted from the files, and leaks by code that the making does not use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stillhouse.phases.data.calls import call_fault, parse_call, skeleton
from stillhouse.phases.data.records import (
    CACHED_SPLITS,
    SPLITS,
    Record,
    Split,
    content_id,
    read_cache,
    read_split,
)
from stillhouse.phases.dataset import privacy
from stillhouse.phases.dataset.sources import content_key
from stillhouse.phases.dataset.splits import shared
from stillhouse.phases.teachers import ChatTokenizer
from stillhouse.schemas.recipe import DatasetSection
from stillhouse.schemas.report import Metric, metric

Splits = Mapping[Split, Sequence[Record]]


def measure(
    dataset: Path, cache: Path, tokenizer: ChatTokenizer, section: DatasetSection
) -> tuple[Metric, ...]:
    """The metrics of the two trees. Raises UntrustedFileError when one does not read back."""
    splits: Splits = {split: read_split(dataset, split) for split in SPLITS}
    records = [record for split in SPLITS for record in splits[split]]
    counts = {
        "schema.errors": sum(_malformed(record, tokenizer) for record in records),
        "duplicates": _duplicates(records),
        "answers.empty": sum(not record.answer.strip() for record in records),
        "answers.truncated": sum(r.token_ids[-1] != tokenizer.eos_token_id for r in records),
        "leakage.content": shared(_contents(splits)),
        "leakage.functions": shared([r.functions for r in splits[s]] for s in SPLITS),
        "cache.missing": _missing(splits, cache),
        **_privacy(records, section),
    }
    return (
        *(metric(name, value, unit="count", n=len(records)) for name, value in counts.items()),
        *_sizes(splits),
    )


def _malformed(record: Record, tokenizer: ChatTokenizer) -> bool:
    """Whether text, tokens and tools of a record contradict each other."""
    start = record.answer_start
    call = parse_call(record.answer) if record.tools else None
    return (
        list(record.token_ids[:start]) != tokenizer.encode(record.prompt)
        or tokenizer.decode(record.token_ids[start:-1]) != record.answer
        or sorted({tool["name"] for tool in record.tools}) != list(record.functions)
        or (record.acceptable is not None and call is None)
        or (call is not None and call_fault(call, record.tools) is not None)
    )


def _duplicates(records: Sequence[Record]) -> int:
    """Records that ask what an earlier one asked."""
    asked = Counter(content_id(r.messages, r.tools, "") for r in records)
    return sum(n - 1 for n in asked.values())


def _contents(splits: Splits) -> Iterator[list[list[str]]]:
    for split in SPLITS:
        yield [[content_key(record.messages)] for record in splits[split]]


def _missing(splits: Splits, cache: Path) -> int:
    """Records of the scored splits whose row is absent or of another length."""
    missing = 0
    for split in CACHED_SPLITS:
        rows = read_cache(cache, split)
        for record in splits[split]:
            row = rows.get(record.id)
            missing += row is None or row.n != record.answer_length
    return missing


def _privacy(records: Sequence[Record], section: DatasetSection) -> dict[str, int]:
    total: Counter[str] = Counter(dict.fromkeys(privacy.KINDS, 0))
    for record in records:
        texts = privacy.strings(record.to_json() | {"id": "", "functions": []})
        total.update(privacy.hits(texts, section.allowed_hosts))
    return {f"privacy.{kind}": n for kind, n in total.items()}


def _sizes(splits: Splits) -> Iterator[Metric]:
    for split in SPLITS:
        records = splits[split]
        calls = [parse_call(r.answer) for r in records if r.tools]
        slots = sum(len(skeleton(call)) for call in calls if call)
        yield metric(f"examples.{split}", len(records), unit="count")
        yield metric(f"tokens.{split}", sum(len(r.token_ids) for r in records), unit="count")
        yield metric(f"slots.{split}", slots, unit="count")
