"""One text read by one model: once as it stands, then from any point of it onwards.

Rule: nothing is read twice that the key-value cache still holds. The forward pass over the text
already says what the model would write after each of its answer tokens, so a greedy continuation
that agrees with the text costs nothing, and one that leaves it costs only its own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stillhouse.phases.models import KeyValues, Student


class Reading:
    """A prompt with its right answer, as a model reads it."""

    @torch.inference_mode()
    def __init__(
        self, model: Student, token_ids: Sequence[int], answer_start: int, *, spare: int
    ) -> None:
        """Read `token_ids` but the last; `spare` more tokens may be read from any point of them."""
        self._model = model
        self._text = list(token_ids)
        self._start = answer_start
        self._past = KeyValues(
            model.config, batch=1, capacity=len(token_ids) + spare, dtype=model.head().dtype
        )
        self._held: list[int] = []
        hidden = self._feed(self._text[:-1])
        self.logits: Tensor = model.logits(hidden[answer_start - 1 :])
        """[n, V]: row i is about `token_ids[answer_start + i]`."""
        self._predicted: list[int] = self.logits.argmax(-1).tolist()

    def predicted_after(self, token_ids: Sequence[int]) -> int:
        """The most likely token after `token_ids`, which begin like the text or like anything."""
        known = len(token_ids) - self._start
        if known >= 0 and list(token_ids) == self._text[:-1][: len(token_ids)]:
            return self._predicted[known]
        common = _common(token_ids, self._held)
        return self._ask(token_ids, min(common, len(token_ids) - 1))

    @torch.inference_mode()
    def _ask(self, token_ids: Sequence[int], held: int) -> int:
        self._past.rewind(held)
        del self._held[held:]
        hidden = self._feed(token_ids[held:])
        return int(self._model.logits(hidden[-1]).argmax())

    def _feed(self, token_ids: Sequence[int]) -> Tensor:
        """[T, H] of T more tokens."""
        hidden = self._model.hidden(torch.tensor([list(token_ids)]), past=self._past)
        self._held += token_ids
        return hidden[0]


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
