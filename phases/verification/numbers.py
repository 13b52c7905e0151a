"""The package's outputs against the checkpoint's: how they are made, and how far apart they are.

Rules: only real positions are compared, never padding; logits go by at most 256 positions at a
time, because a vocabulary is large; every figure carries how many positions it rests on, and none
an interval: positions of one text depend on each other, and the texts are few.

Prefill reads whole texts; the keys and values that it hands over are outputs as its logits are, and
compared as they are. Decode is measured twice: from empty states, token by token, and (as
`decode.*`) from states that hold the keys and values that prefill hands over, with other numbers in
the rows behind them, which must not be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from stillhouse.phases.models import Student
from stillhouse.phases.models.static.graphs import StaticPrefill
from stillhouse.phases.numerics import distances as numerics
from stillhouse.phases.verification.models import Model, reference
from stillhouse.phases.verification.texts import Continuation, Tokens
from stillhouse.schemas.contract import Contract
from stillhouse.schemas.report import Metric, metric

STALE = 64.0
"""In the rows behind the position: finite, and large beside keys and values."""

CACHES = ("k_cache", "v_cache")
"""What a prefill hands over besides its logits, [layer, key-value head, token, head size]."""

_ROWS = 256
_TINY = 1e-12
"""Keeps a cache of zeros from dividing by zero."""

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
        kl, worst = torch.cat(self._kl).double().mean(), torch.stack(self._max_abs).max()
        return (
            metric(f"{prefix}.top1_agreement", self._agreed / n, unit="fraction", n=n),
            metric(f"{prefix}.kl", float(kl), unit="nats", n=n),
            metric(f"{prefix}.max_abs", float(worst), unit="logits", n=n),
        )


class CacheComparison:
    """Distances of handed-over keys and values from the checkpoint's: the worst that was seen."""

    def __init__(self) -> None:
        self._positions = 0
        self._max_abs: list[Tensor] = []
        self._relative: list[Tensor] = []

    def add(self, wanted: Tensor, found: Tensor) -> None:
        """Compare two [layer, head, N, D]. Raises ValueError when they are not equally large.

        Relative is |found - wanted| / |wanted| (Euclidean) of each head of each layer by itself:
        their scales differ by orders of magnitude, so that one could hide another's fault.
        """
        if wanted.shape != found.shape:
            raise ValueError(f"a cache {list(found.shape)} beside {list(wanted.shape)}")
        apart = (found - wanted).double()
        self._positions += wanted.shape[2]
        self._max_abs.append(apart.abs().max())
        self._relative.append(
            (apart.norm(dim=(2, 3)) / wanted.double().norm(dim=(2, 3)).clamp_min(_TINY)).max()
        )

    def metrics(self, prefix: str) -> tuple[Metric, ...]:
        """Largest difference, plain and relative; a NaN anywhere stays one."""
        if not self._positions:
            return ()
        n, worst = self._positions, torch.stack(self._max_abs).max()
        relative = torch.stack(self._relative).max()
        return (
            metric(f"{prefix}.max_abs", float(worst), n=n),
            metric(f"{prefix}.relative", float(relative), unit="fraction", n=n),
        )


def compare_prefill(
    student: Student,
    models: Mapping[str, Model],
    texts: Sequence[Tokens],
    contract: Contract,
    tell: Told,
) -> tuple[dict[str, Comparison], dict[str, CacheComparison]]:
    """Each model over each text, filled up on the right to the graph's length."""
    found = {name: Comparison() for name in models}
    handed = {name: CacheComparison() for name in models}
    prefill = StaticPrefill(contract.architecture, student.state_dict(), contract.length)
    for place, tokens in enumerate(texts):
        n = len(tokens)
        wanted = reference(student, tokens)
        padded = torch.tensor([[*tokens, *[0] * (contract.length - n)]], dtype=torch.int32)
        caches = _caches(prefill, padded)
        for turn, (name, model) in enumerate(models.items()):
            outputs, _ = model.predict({"input_ids": padded}, model.memory({}))
            found[name].add(wanted, outputs["logits"][0, :n])
            for cache, right in caches.items():
                handed[name].add(right[:, :, :n], outputs[cache][:, :, :n])
            tell(place * len(models) + turn + 1, len(texts) * len(models))
    return found, handed


def _caches(prefill: StaticPrefill, input_ids: Tensor) -> dict[str, Tensor]:
    """Keys and values as the checkpoint computes them, in fp32."""
    with torch.inference_mode():
        _, *made = prefill.compute(input_ids)
    return dict(zip(CACHES, made, strict=True))


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
    made = _caches(prefill, torch.tensor([context], dtype=torch.int32))
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
        outputs, memory = model.predict(inputs, memory)
        rows.append(outputs["logits"][0])
    return torch.cat(rows)
