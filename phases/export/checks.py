"""What is measured about a graph before and after it is exported.

Before: parity with the checkpoint, causality, and prefill ≡ decode. They are measured on `compute`,
the graph without the fp16 rounding of its edges, so that a real fault is not lost in rounding;
what a state in fp16 costs is a figure of its own. After: the saved archive against the graph, with
the rounding.

All figures are in units of logits (keys and values for causality too).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import ExportedProgram

from stillhouse.phases.models import Student
from stillhouse.phases.models.static.graphs import Caches, StaticDecode, StaticPrefill
from stillhouse.schemas.errors import PhaseError

TOLERANCES = {
    "parity.max_abs": 1e-2,
    "causality.max_abs_change": 1e-4,
    "prefill_decode.max_abs": 1e-2,
    "prefill_decode.fp16_state_max_abs": 2.5e-1,
    "archive.max_abs": 5e-2,
}
"""Parity and prefill ≡ decode: fp32 against fp32 in another order of operations (6e-5 measured on
SmolLM2-135M). Causality: 0, but for the order in which a matrix product may sum. A state in fp16:
2.4e-2 measured there. Archive: one fp16 step at 64; 0 measured."""

DECODE_TOKENS = 16
"""Tokens that a decode graph is checked with, or its capacity when that is less."""

_JUNK = 64.0
"""What rows after the position are filled with: finite, and large beside keys and values."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures by metric name, and the checkpoint's logits [T, V] for the golden tokens."""

    figures: Mapping[str, float]
    reference: Tensor


def measure_prefill(student: Student, graph: StaticPrefill, ids: Sequence[int]) -> Measured:
    """Parity and causality of a prefill graph over exactly its T tokens."""
    with torch.inference_mode():
        reference = _checkpoint(student, ids)
        outputs = graph.compute(_row(ids))
        figures = _parity(outputs[0][0], reference)
        figures["causality.max_abs_change"] = _prefill_causality(graph, ids, outputs)
    return Measured(figures=figures, reference=reference)


def measure_decode(student: Student, graph: StaticDecode, ids: Sequence[int]) -> Measured:
    """Parity, causality and prefill ≡ decode of a decode graph, token by token."""
    with torch.inference_mode():
        reference = _checkpoint(student, ids)
        prefill = StaticPrefill(graph.architecture, student.state_dict(), len(ids))
        whole, *made = prefill.compute(_row(ids))
        narrow = torch.zeros_like(graph.k_cache), torch.zeros_like(graph.v_cache)
        empty = narrow[0].float(), narrow[1].float()
        half = len(ids) // 2
        stepped = _decode(graph, ids, 0, empty)
        handed = _decode(graph, ids, half, _filled(empty, made, half, 0.0))
        stale = _decode(graph, ids, half, _filled(empty, made, half, _JUNK))
        figures = {
            **_parity(stepped, reference),
            "causality.max_abs_change": _max_abs(handed, stale),
            "prefill_decode.max_abs": max(
                _max_abs(stepped, whole[0]), _max_abs(handed, whole[0, half:])
            ),
            "prefill_decode.fp16_state_max_abs": _max_abs(_decode(graph, ids, 0, narrow), whole[0]),
        }
    return Measured(figures=figures, reference=reference)


def measure_archive(
    program: ExportedProgram, graph: StaticPrefill | StaticDecode, ids: Sequence[int]
) -> float:
    """Largest difference between a loaded archive and the graph, in outputs and in state."""
    module = program.module()
    with torch.inference_mode():
        if isinstance(graph, StaticPrefill):
            pairs = zip(module(_row(ids)), graph(_row(ids)), strict=True)
            return max(_max_abs(found, wanted) for found, wanted in pairs)
        return _archived_steps(module, graph, ids)


def demand(figures: Mapping[str, float]) -> None:
    """Raise PhaseError, naming the figure, unless each is within its tolerance (NaN is not)."""
    for name, value in figures.items():
        limit = TOLERANCES.get(name)
        if limit is not None and not value <= limit:
            raise PhaseError(
                f"The exported graph is wrong: {name} is {value:.4g}, more than {limit:g} "
                f"({', '.join(f'{n} {v:.4g}' for n, v in figures.items())}).",
                remedy="This is a fault of the export, or a checkpoint whose numbers run away: "
                "check it with another checkpoint, and report the figures.",
                code=f"export.{name.partition('.')[0]}",
            )


def changed_places(length: int) -> tuple[int, ...]:
    """Which tokens are changed to see that nothing before them changes."""
    return tuple(sorted({1, length // 2, length - 1} - {0})) if length > 1 else ()


def _checkpoint(student: Student, ids: Sequence[int]) -> Tensor:
    logits: Tensor = student(torch.tensor([list(ids)]))
    return logits[0]


def _parity(found: Tensor, reference: Tensor) -> dict[str, float]:
    agreed = (found.argmax(dim=-1) == reference.argmax(dim=-1)).float().mean()
    return {
        "parity.max_abs": _max_abs(found, reference),
        "parity.top1_agreement": float(agreed),
    }


def _prefill_causality(
    graph: StaticPrefill, ids: Sequence[int], outputs: tuple[Tensor, Tensor, Tensor]
) -> float:
    worst, vocabulary = 0.0, graph.architecture.vocab_size
    for place in changed_places(len(ids)):
        other = list(ids)
        other[place] = (other[place] + 1 + vocabulary // 2) % vocabulary
        changed = graph.compute(_row(other))
        for before, after, axis in zip(outputs, changed, (1, 2, 2), strict=True):
            kept = before.narrow(axis, 0, place), after.narrow(axis, 0, place)
            worst = max(worst, _max_abs(*kept))
    return worst


def _decode(graph: StaticDecode, ids: Sequence[int], start: int, caches: Caches) -> Tensor:
    """Logits [len(ids) - start, V], one token at a time, of the tokens from `start` on."""
    rows = []
    for place in range(start, len(ids)):
        logits, *new = graph.compute(_row(ids[place : place + 1]), _position(place), caches)
        caches = new[0], new[1]
        rows.append(logits[0])
    return torch.cat(rows)


def _filled(empty: Caches, made: Sequence[Tensor], tokens: int, rest: float) -> Caches:
    """Make a state of the first `tokens` of prefill's keys and values, with `rest` after them."""

    def fill(state: Tensor, made: Tensor) -> Tensor:
        full = torch.full_like(state, rest)
        full[:, :, :tokens] = made[:, :, :tokens].to(state.dtype)
        return full

    return fill(empty[0], made[0]), fill(empty[1], made[1])


def _archived_steps(
    module: Callable[[Tensor, Tensor], Tensor], graph: StaticDecode, ids: Sequence[int]
) -> float:
    caches: Caches = torch.zeros_like(graph.k_cache), torch.zeros_like(graph.v_cache)
    states = dict(module.named_buffers())  # type: ignore[attr-defined]  # a torch.nn.Module
    worst = 0.0
    for place, token in enumerate(ids[:2]):
        logits, *new = graph.compute(_row([token]), _position(place), caches)
        caches = new[0], new[1]
        worst = max(worst, _max_abs(module(_row([token]), _position(place)), logits.half()))
        worst = max(worst, _max_abs(states["k_cache"], caches[0]))
        worst = max(worst, _max_abs(states["v_cache"], caches[1]))
    return worst


def _max_abs(found: Tensor, wanted: Tensor) -> float:
    """NaN anywhere gives NaN, so it can never pass."""
    if found.numel() == 0:
        return 0.0
    return float((found.float() - wanted.float()).abs().max())


def _row(ids: Sequence[int]) -> Tensor:
    return torch.tensor([list(ids)], dtype=torch.int32)


def _position(place: int) -> Tensor:
    return torch.tensor([place], dtype=torch.int32)
