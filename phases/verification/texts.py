"""The tokens that a package is run on: real held-out text, or else the contract's golden tokens.

Rules: the longest texts are taken, because overflow and drift show late in a text; the choice
depends on the data set alone, so that it is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stillhouse.phases.data.records import Record, read_header, read_split
from stillhouse.schemas.contract import Contract
from stillhouse.schemas.errors import PhaseError

Tokens = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """A text in two parts: what prefill has read, and what is then decoded token by token."""

    context: Tokens
    decoded: Tokens


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What there is to read."""

    source: str
    """`held_out` or `golden`."""
    records: tuple[Tokens, ...]
    """Whole texts, longest first; equally long ones in file order."""
    answers: tuple[int, ...]
    """Where each record's answer begins."""

    def for_prefill(self, length: int, count: int) -> tuple[Tokens, ...]:
        """At most `count` texts, cut to the graph's `length`."""
        return tuple(tokens[:length] for tokens in self.records[:count])

    def for_decode(self, capacity: int, steps: int) -> Tokens:
        """The beginning of the longest text: at most `steps` tokens, decoded from empty states."""
        return self.records[0][: min(capacity, steps)]

    def continuation(self, capacity: int, steps: int) -> Continuation:
        """The longest text where its answer begins, so far as the states have room for it."""
        tokens = self.records[0]
        room = max(1, min(capacity, len(tokens)) - steps)
        start = max(1, min(self.answers[0], room))
        return Continuation(
            context=tokens[:start], decoded=tokens[start : min(start + steps, capacity)]
        )


def texts_of(dataset: Path | None, contract: Contract) -> Texts:
    """Held-out text when there is any, else the golden tokens.

    Raises PhaseError when the data set was made with another tokenizer than the checkpoint's, and
    what reading a data set does.
    """
    records = _held_out(dataset, contract) if dataset is not None else []
    if not records:
        golden = contract.golden.token_ids
        return Texts(source="golden", records=(golden,), answers=(len(golden) // 2,))
    longest = sorted(records, key=lambda record: -len(record.token_ids))
    return Texts(
        source="held_out",
        records=tuple(record.token_ids for record in longest),
        answers=tuple(record.answer_start for record in longest),
    )


def _held_out(dataset: Path, contract: Contract) -> Sequence[Record]:
    tokenizer = read_header(dataset).tokenizer
    if contract.tokenizer is not None and tokenizer != contract.tokenizer:
        raise PhaseError(
            f"The data set was made with tokenizer {tokenizer[:12]}, the checkpoint has "
            f"{contract.tokenizer[:12]}.",
            remedy="Verify with a data set that was made for this checkpoint's tokenizer.",
            code="verification.tokenizer",
        )
    return read_split(dataset, "held_out")
