"""From what was measured on each example to numbers with 95 % intervals.

Means over positions and shares of slots are bootstrapped by example: positions of one text, and
slots of one call, depend on each other. Free answers, one an example, get Wilson's interval.
A number that is not finite stays so, and fails its gate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stillhouse.phases.evaluation.decoding import Written
from stillhouse.phases.evaluation.fidelity import Distance
from stillhouse.phases.numerics.distances import bootstrap_interval, perplexity, wilson_interval
from stillhouse.schemas.report import Metric, metric

_ROWS = 200
"""Most per-item rows in a report, of each sort."""
_CHARACTERS = 240
"""Most characters of a decoded text in a report."""


@dataclass(kw_only=True)
class Measured:
    """Everything that one model was measured on."""

    distances: list[tuple[str, Distance]] = field(default_factory=list)
    """(example, its distance)."""
    slots: list[tuple[str, str, Written]] = field(default_factory=list)
    """(example, argument, what was written)."""
    free: list[tuple[str, Written]] = field(default_factory=list)
    """(example, what was answered)."""


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How intervals of means are drawn."""

    resamples: int
    seed: int


def metrics_of(name: str, measured: Measured, bootstrap: Bootstrap) -> tuple[Metric, ...]:
    """One model's metrics, named `<name>.…`; what was measured on nothing is left out."""
    rows = [d for _, d in measured.distances]
    weights = [d.positions for d in rows]
    found = [
        *_mean(f"{name}.kl", [d.kl for d in rows], weights, bootstrap, unit="nats/token"),
        *_mean(
            f"{name}.top1_agreement",
            [d.top1_agreement for d in rows],
            weights,
            bootstrap,
            unit="fraction",
        ),
        _perplexity(f"{name}.perplexity", [d.nll for d in rows], weights, bootstrap),
        *_slot_accuracy(f"{name}.slot_accuracy", measured.slots, bootstrap),
        *_share(f"{name}.json_validity", [w for _, w in measured.free]),
    ]
    return tuple(found)


def rows_of(measured: Measured) -> dict[str, Any]:
    """The first items of each sort, for people."""
    return {
        "examples": [
            {
                "id": example,
                "positions": d.positions,
                "nll": _plain(d.nll),
                "kl": _plain(d.kl),
                "top1_agreement": _plain(d.top1_agreement),
            }
            for example, d in measured.distances[:_ROWS]
        ],
        "slots": [
            {"id": example, "argument": argument, "right": w.good, "text": w.text[:_CHARACTERS]}
            for example, argument, w in measured.slots[:_ROWS]
        ],
        "free_form": [
            {"id": example, "valid": w.good, "text": w.text[:_CHARACTERS]}
            for example, w in measured.free[:_ROWS]
        ],
    }


def _mean(
    name: str,
    values: Sequence[float | None],
    weights: Sequence[int],
    bootstrap: Bootstrap,
    *,
    unit: str,
) -> tuple[Metric, ...]:
    known = [v for v in values if v is not None]
    if not known:
        return ()
    mean, interval = _with_interval(known, weights, bootstrap)
    return (metric(name, mean, unit=unit, n=sum(weights), interval=interval),)


def _perplexity(
    name: str, nll: Sequence[float], weights: Sequence[int], bootstrap: Bootstrap
) -> Metric:
    n = sum(weights)
    mean, interval = _with_interval(nll, weights, bootstrap)
    ends = None if interval is None else (perplexity(interval[0], 1), perplexity(interval[1], 1))
    return metric(name, perplexity(mean * n, n), n=n, interval=ends)


def _with_interval(
    values: Sequence[float], weights: Sequence[int], bootstrap: Bootstrap
) -> tuple[float, tuple[float, float] | None]:
    """The weighted mean, and its interval when it is finite."""
    mean = sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
    if not math.isfinite(mean):
        return mean, None
    return mean, bootstrap_interval(
        values, weights, resamples=bootstrap.resamples, seed=bootstrap.seed
    )


def _slot_accuracy(
    name: str, slots: Sequence[tuple[str, str, Written]], bootstrap: Bootstrap
) -> tuple[Metric, ...]:
    """The share of right slots; its interval draws examples with all of their slots."""
    by_example: dict[str, list[bool]] = {}
    for example, _, written in slots:
        by_example.setdefault(example, []).append(written.good)
    groups = by_example.values()
    shares, sizes = [sum(g) / len(g) for g in groups], [len(g) for g in groups]
    return _mean(name, shares, sizes, bootstrap, unit="fraction")


def _share(name: str, written: Sequence[Written]) -> tuple[Metric, ...]:
    if not written:
        return ()
    good, n = sum(w.good for w in written), len(written)
    interval = wilson_interval(good, n)
    return (metric(name, good / n, unit="fraction", n=n, interval=interval),)


def _plain(value: float | None) -> float | None:
    """A number that JSON can hold, or None."""
    return None if value is None or not math.isfinite(value) else round(value, 6)
