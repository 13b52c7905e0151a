"""Greedy decoding with a key-value cache, one text at a time.

Rule: what a session has read can be rewound, so evaluation reads a long prompt once and tries many
continuations of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from stillhouse.phases.models.llama import KeyValues, Student


class Session:
    """One text being read or written by a model."""

    def __init__(self, model: Student, *, capacity: int) -> None:
        self._model = model
        dtype = model.model.embed_tokens.weight.dtype
        self._past = KeyValues(model.config, batch=1, capacity=capacity, dtype=dtype)

    @property
    def length(self) -> int:
        """Tokens read so far."""
        return self._past.length

    @torch.inference_mode()
    def feed(self, token_ids: Sequence[int]) -> Tensor:
        """Read more tokens (at least one); logits [V] of the token after the last of them.

        Raises ValueError when they exceed the capacity.
        """
        hidden = self._model.hidden(torch.tensor([list(token_ids)]), past=self._past)
        return self._model.logits(hidden[0, -1])

    def rewind(self, length: int) -> None:
        """Forget everything after the first `length` tokens."""
        self._past.rewind(length)


def generate(
    model: Student, prompt_ids: Sequence[int], max_new_tokens: int, eos_ids: Collection[int]
) -> list[int]:
    """Continue a prompt greedily: at most `max_new_tokens` ids, the EOS included."""
    session = Session(model, capacity=len(prompt_ids) + max_new_tokens)
    written: list[int] = []
    feed: Sequence[int] = prompt_ids
    while len(written) < max_new_tokens:
        token = int(session.feed(feed).argmax())
        written.append(token)
        if token in eos_ids:
            break
        feed = (token,)
    return written
