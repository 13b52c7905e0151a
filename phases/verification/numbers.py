"""The package's logits against the checkpoint's: how they are made, and how far apart they are.

Rules: only real positions are compared, never padding; logits go by at most 256 positions at a
time, because a vocabulary is large; every figure carries how many positions it rests on.

Prefill reads whole texts. Decode is measured twice: from empty states, token by token, and (as
`decode.*`) from states that hold the keys and values that prefill hands over, with other numbers in
the rows behind them, which must not be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from phases import numerics
from phases.static.graphs import StaticPrefill
from phases.student import Student
from phases.verification.models import Model, reference
from phases.verification.texts import Continuation, Tokens
from schemas.contract import Contract
from schemas.report import Metric, metric

STALE = 64.0
"""In the rows behind the position: finite, and large beside keys and values."""

_ROWS = 256

Told = Callable[[int, int], None]
"""Told how many predictions are done, of how many."""


class Comparison:
    """Distances from the reference, summed over positions."""

    def __init__(self) -> None:
        self._positions = 0
        self._agreed = 0
        self._kl: list[Tensor] = []
        self._max_abs: list[Tensor] = []

    def add(self, wanted: Tensor, found: Tensor) -> None:
        """Compare two [N, V]. Raises ValueError when they are not equally large."""
        if wanted.shape != found.shape:
            raise ValueError(f"logits {list(found.shape)} beside {list(wanted.shape)}")
        for row in range(0, len(wanted), _ROWS):
            p, q = wanted[row : row + _ROWS], found[row : row + _ROWS]
            self._positions += p.shape[0]
            self._agreed += int(numerics.top1_agreement(p, q).sum())
            self._kl.append(numerics.kl_full(p, q))
            self._max_abs.append((p - q).abs().max())

    def metrics(self, prefix: str) -> tuple[Metric, ...]:
        """Agreement, divergence and largest difference; a NaN anywhere stays one."""
        n = self._positions
        if n == 0:
            return ()
        agreed = numerics.wilson_interval(self._agreed, n)
        kl, worst = torch.cat(self._kl).double().mean(), torch.stack(self._max_abs).max()
        return (
            metric(
                f"{prefix}.top1_agreement",
                self._agreed / n,
                unit="fraction",
                n=n,
                interval=agreed,
            ),
            metric(f"{prefix}.kl", float(kl), unit="nats", n=n),
            metric(f"{prefix}.max_abs", float(worst), unit="logits", n=n),
        )


def compare_prefill(
    student: Student,
    models: Mapping[str, Model],
    texts: Sequence[Tokens],
    length: int,
    tell: Told,
) -> dict[str, Comparison]:
    """Each model over each text, filled up on the right to the graph's length."""
    found = {name: Comparison() for name in models}
    for place, tokens in enumerate(texts):
        wanted = reference(student, tokens)
        padded = torch.tensor([[*tokens, *[0] * (length - len(tokens))]], dtype=torch.int32)
        for turn, (name, model) in enumerate(models.items()):
            logits, _ = model.predict({"input_ids": padded}, model.memory({}))
            found[name].add(wanted, logits[: len(tokens)])
            tell(place * len(models) + turn + 1, len(texts) * len(models))
    return found


def compare_decode(
    student: Student,
    models: Mapping[str, Model],
    tokens: Tokens,
    contract: Contract,
    tell: Told,
) -> dict[str, Comparison]:
    """Each model over one text from empty states."""
    wanted = reference(student, tokens)
    empty = {t.name: torch.zeros(t.shape) for t in contract.states}
    found = {}
    for turn, (name, model) in enumerate(models.items()):
        found[name] = Comparison()
        found[name].add(wanted, _steps(model, tokens, 0, empty))
        tell(turn + 1, len(models))
    return found


def compare_handover(
    student: Student, model: Model, text: Continuation, contract: Contract
) -> Comparison:
    """One model over the second part of a text, after prefill of the first."""
    start = len(text.context)
    wanted = reference(student, (*text.context, *text.decoded))[start:]
    found = Comparison()
    if text.decoded:
        states = handed_over(student, text.context, contract)
        found.add(wanted, _steps(model, text.decoded, start, states))
    return found


def handed_over(student: Student, context: Tokens, contract: Contract) -> dict[str, Tensor]:
    """States as a device has them after prefill: the context's keys and values, stale rows after.

    Named and laid out as the contract's states, [layer, key-value head, token, head dimension].
    """
    prefill = StaticPrefill(contract.architecture, student.state_dict(), len(context))
    with torch.inference_mode():
        _, keys, values = prefill.compute(torch.tensor([context], dtype=torch.int32))
    made = {"k_cache": keys, "v_cache": values}
    states = {}
    for tensor in contract.states:
        states[tensor.name] = torch.full(tensor.shape, STALE)
        states[tensor.name][:, :, : len(context)] = made[tensor.name].half()
    return states


def _steps(model: Model, tokens: Tokens, start: int, states: Mapping[str, Tensor]) -> Tensor:
    """Logits [len(tokens), V] of a text decoded token by token from position `start` on."""
    memory, rows = model.memory(states), []
    for place, token in enumerate(tokens, start):
        inputs = {
            "input_ids": torch.tensor([[token]], dtype=torch.int32),
            "position": torch.tensor([place], dtype=torch.int32),
        }
        logits, memory = model.predict(inputs, memory)
        rows.append(logits)
    return torch.cat(rows)
