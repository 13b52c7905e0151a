"""The fixed tokens that every export is checked with.

A text of our own, in the two kinds of language that the students read (sentences and JSON), run
through the checkpoint's tokenizer. A checkpoint without one gets synthetic ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

from stillhouse.schemas.errors import PhaseError

TEXT = """The kettle was still warm when the ferry left the harbour at a quarter past seven.
Nobody had asked for 3 tickets to Lisbon, yet there they were, folded under the lamp.
Which of these two roads is shorter, and which one is safer after dark?
{"name": "book_table", "arguments": {"city": "Oslo", "people": 4, "outdoor": false}}
[{"unit": "celsius", "values": [21.5, 19.0, -3.25]}, {"unit": null, "values": []}]
def area(width, height): return width * height
"""


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Token ids, and where they come from."""

    ids: tuple[int, ...]
    text: Literal["built_in", "synthetic"]


def golden_tokens(tokenizer: Path, *, vocab_size: int, length: int) -> Golden:
    """Exactly `length` ids: of TEXT, over again when it is too short, or synthetic ones.

    Raises PhaseError when the tokenizer cannot be read, or names ids that the model does not have.
    """
    if not tokenizer.is_file():
        return Golden(ids=_synthetic(vocab_size, length), text="synthetic")
    ids = _encode(tokenizer)
    if not ids or max(ids) >= vocab_size:
        raise PhaseError(
            f"The checkpoint's tokenizer.json gives token id {max(ids, default=None)} for plain "
            f"text; the model has {vocab_size} tokens.",
            remedy="Publish the checkpoint with the tokenizer that it was trained with.",
            code="export.tokenizer",
        )
    return Golden(ids=tuple(islice(cycle(ids), length)), text="built_in")


def _encode(tokenizer: Path) -> list[int]:
    from tokenizers import Tokenizer

    try:
        ids: list[int] = Tokenizer.from_file(str(tokenizer)).encode(TEXT).ids
    except Exception as error:  # the library raises bare Exception, whatever is wrong
        raise PhaseError(
            f"The checkpoint's tokenizer.json cannot be read: {error}.",
            remedy="Publish the checkpoint with the tokenizer that it was trained with.",
            code="export.tokenizer",
        ) from error
    return ids


def _synthetic(vocab_size: int, length: int) -> tuple[int, ...]:
    """Ids of a linear congruential sequence (Numerical Recipes' constants): the same anywhere."""
    ids, state = [], 1
    for _ in range(length):
        state = (1664525 * state + 1013904223) % 2**32
        ids.append((state >> 8) % vocab_size)
    return tuple(ids)
