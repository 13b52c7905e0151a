"""What a teacher is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from stillhouse.phases.data.records import CacheRow
from stillhouse.phases.teachers.tokenizer import ChatTokenizer


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A text whose answer the teacher scores."""

    token_ids: tuple[int, ...]
    """Prompt + answer + EOS."""
    answer_start: int
    """Index of the first answer token."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A text that the teacher continues."""

    token_ids: tuple[int, ...]
    seed: int
    """Of this prompt's own random numbers."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen."""

    max_new_tokens: int
    temperature: float = 0.0
    """0 takes the most likely token."""
    top_p: float = 1.0
    """Only the fewest most likely tokens with at least this mass (Holtzman et al. 2020)."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A continuation."""

    token_ids: tuple[int, ...]
    """Without the EOS."""
    finished: bool
    """Whether the teacher ended it; otherwise `max_new_tokens` cut it short."""


class Teacher(Protocol):
    """A model that scores given answers and writes its own.

    Both methods answer lazily and in order, so that a caller can keep each answer before the next
    one is computed, and an implementation may ask several at once.
    """

    @property
    def identity(self) -> str:
        """Everything that its numbers depend on: the model's digest or name, and the precision."""
        ...

    @property
    def tokenizer(self) -> ChatTokenizer:
        """Its tokenizer, with its chat template."""
        ...

    @property
    def vocab_size(self) -> int:
        """How many tokens it gives a probability."""
        ...

    def score(self, passages: Iterable[Passage], k: int) -> Iterator[CacheRow]:
        """The k most likely tokens at each answer position. Raises PhaseError."""
        ...

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Generated]:
        """A continuation of each prompt. Raises PhaseError."""
        ...
