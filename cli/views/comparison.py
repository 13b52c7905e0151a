"""Comparisons in rows: what differs, nearest cause first; a metric through time. Old, then new."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse.cli.screen import number
from stillhouse.schemas.digest import is_digest

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.compare import BlameList
    from stillhouse.registry.compare.comparison import Comparison
    from stillhouse.registry.compare.history import Blame
    from stillhouse.registry.compare.measurements import MetricPair
    from stillhouse.registry.compare.origins import Change
    from stillhouse.schemas.report import Metric


def show_comparison(screen: Screen, found: Comparison) -> None:
    """Causes, what was beside them, what follows, metrics and gates; one row each."""
    if found.identical:
        screen.line("identical")
        return
    sides = (f"{side.kind} {screen.short(side.digest)}" for side in (found.a, found.b))
    screen.row("compared", *sides)
    for word, changes in (
        ("cause", found.causes),
        ("beside", found.circumstances),
        ("follows", found.consequences),
    ):
        for change in changes:
            _show_change(screen, word, change)
    _show_metrics(screen, [pair for pair in found.metrics if pair.differs])
    for gate in found.gates:
        if gate.differs:
            words = _was(gate.before or "not judged", gate.after or "not judged")
            screen.row("gate", gate.slot, gate.gate, words)


def show_blame(screen: Screen, found: BlameList) -> None:
    """Each measurement, the one that changed the metric marked; then why."""
    for series in found.series:
        _show_series(screen, series)


def _show_series(screen: Screen, series: Blame) -> None:
    for one in series.history:
        screen.row(
            "changed" if one.event == series.changed_by else "",
            series.slot,
            _measured(one.metric),
            f"event {one.event}",
            screen.moment(one.ts),
            f"{one.actor.user}@{one.actor.host}",
            f"run {screen.short(one.run)}",
            *(f"plan {screen.short(plan)}" for plan in one.plans[:1]),
            *(f"release {screen.short(release)}" for release in one.releases[:1]),
        )
    if series.changed_by is None:
        first = series.history[0]
        words = f"{first.metric.name} since event {first.event}, its first value"
        screen.row("unchanged", series.slot, words)
    elif series.because:
        _show_change(screen, "because", series.because)


def _show_change(screen: Screen, word: str, change: Change) -> None:
    name = f"{change.what} {change.name}".rstrip()
    before, after = (
        screen.short(text) if is_digest(text) else text for text in (change.before, change.after)
    )
    screen.row(word, change.distance, " < ".join(change.path), name, _was(before, after))


def _show_metrics(screen: Screen, differing: list[MetricPair]) -> None:
    for pair in differing:
        if pair.moved:
            change = "" if pair.change is None else f"{pair.change:+.6g}"
            words = _was(_measured(pair.before), _measured(pair.after))
            screen.row("metric", pair.slot, pair.name, words, change)
    if unmoved := sum(not pair.moved for pair in differing):
        screen.row("metric", "", f"{unmoved} more", "whose interval alone moved: see --json")


def _measured(metric: Metric | None) -> str:
    """A value with its interval and its n, as far as there are any."""
    if metric is None:
        return "not measured"
    value = number(metric.value) or str(metric.nonfinite)
    if metric.low is not None and metric.high is not None:
        value += f" [{number(metric.low)}, {number(metric.high)}]"
    return value if metric.n is None else f"{value} (n = {metric.n})"


def _was(before: str, after: str) -> str:
    return f"was {before}, then {after}"
