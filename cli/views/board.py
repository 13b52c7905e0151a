"""The board: how all plans stand, as a few lines at the bottom of a terminal.

Pure: it takes notices, views and a height, and makes text. Rules: it never has more lines than fit.
What moves comes first, then what is in trouble, then what waits, with its first reason. Plans that
are done are only counted once room is short. Names come from users: they are cleaned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stillhouse.cli.screen import COLOURS, clean
from stillhouse.registry.planning.views import GateView, PlanView, SlotView, Status
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.event import Event

if TYPE_CHECKING:
    from rich.text import Text

    from stillhouse.cli.screen import Screen
    from stillhouse.phases.reactor.oversight import Progress
    from stillhouse.phases.reactor.reactor import Notice

_BAR = 20
"""Characters of a progress bar."""

_SMOOTHING = 0.3
"""Weight of the newest rate in the one that is shown."""

ENDS = frozenset({"run.succeeded", "run.failed", "run.abandoned"})
"""Events after which a run's progress means nothing."""

_ORDER = (Status.RUNNING, Status.FAILED, Status.BLOCKED, Status.READY, Status.WAITING)
_MARKS = {
    Status.FILLED: "✓",
    Status.RUNNING: "▶",
    Status.FAILED: "✗",
    Status.BLOCKED: "✗",
    Status.SKIPPED: "-",
}


@dataclass(kw_only=True)
class Pace:
    """How far a run is, and how fast it gets on. Times are seconds of one clock."""

    note: Progress
    at: float
    rate: float | None = None
    """Units a second; None: not known yet."""

    def move(self, note: Progress, now: float) -> None:
        """A later note; a new label begins a new rate."""
        if note.label != self.note.label or note.done < self.note.done:
            self.rate = None
        elif now > self.at:
            latest = (note.done - self.note.done) / (now - self.at)
            old = latest if self.rate is None else self.rate
            self.rate = _SMOOTHING * latest + (1 - _SMOOTHING) * old
        self.note, self.at = note, now

    @property
    def left(self) -> float | None:
        """Seconds until it is done, at this rate."""
        return (self.note.total - self.note.done) / self.rate if self.rate else None


@dataclass(kw_only=True)
class Board:
    """What is known of live runs, and the lines that are made of it."""

    screen: Screen
    clock: Callable[[], float]
    paces: dict[Digest, Pace] = field(default_factory=dict)
    """Run key -> pace, of live runs only."""

    def note(self, notice: Notice) -> None:
        """Hear it."""
        if isinstance(notice, Event):
            if notice.type in ENDS:
                self.paces.pop(notice.data["run"], None)
        elif (pace := self.paces.get(notice.run)) is not None:
            pace.move(notice, self.clock())
        else:
            self.paces[notice.run] = Pace(note=notice, at=self.clock())

    def lines(self, views: Sequence[PlanView], height: int) -> list[Text]:
        """How these plans stand, in at most `height` lines (at least 2)."""
        whole = [line for view in views for line in self._plan(view, whole=True)]
        if len(whole) <= height:
            return whole
        moving = sorted((v for v in views if not v.done), key=_urgency)
        blocks = [list(self._plan(view, whole=False)) for view in moving]
        return _fitted(blocks, len(views) - len(moving), height)

    def _plan(self, view: PlanView, *, whole: bool) -> Iterator[Text]:
        """A plan's lines: its head, then every slot of one that is not done, or the ones to see."""
        yield _head(self.screen, view)
        if view.done:
            return
        for slot in view.slots if whole else _telling(view.slots):
            yield self._slot(slot)
        for gate in view.closed_gates:
            if gate.judged:
                yield _gate(gate)

    def _slot(self, slot: SlotView) -> Text:
        line = _line(_MARKS.get(slot.status, "·"), slot.slot.id, slot.status)
        pace = self.paces.get(slot.key) if slot.key and slot.status is Status.RUNNING else None
        if pace is not None:
            return line.append_text(_progress(self.screen, pace))
        if slot.status is Status.FILLED:
            seconds = slot.run.seconds if slot.run else None
            took = "" if seconds is None else self.screen.duration(seconds)
            return line.append(took, style="dim")
        return line.append(clean(slot.why), style="dim")


def _urgency(view: PlanView) -> int:
    """Where a plan stands in the list: what moves, what is in trouble, what waits."""
    found = {slot.status for slot in view.slots}
    return next((place for place, status in enumerate(_ORDER) if status in found), len(_ORDER))


def _telling(slots: Sequence[SlotView]) -> Iterator[SlotView]:
    """What goes on, what is in trouble, and of what waits the first."""
    waited = False
    for status in _ORDER:
        for slot in slots:
            if slot.status is status and not (waited and status in (Status.READY, Status.WAITING)):
                waited = status in (Status.READY, Status.WAITING)
                yield slot


def _fitted(blocks: Sequence[list[Text]], done: int, height: int) -> list[Text]:
    """As many lines as fit; the last one counts the plans that are not shown."""
    shown: list[Text] = []
    hidden = 0
    for block in blocks:
        room = height - 1 - len(shown)
        shown += block[: max(0, room)]
        hidden += room <= 0
    return [*shown, _rest(hidden, done)]


def _rest(hidden: int, done: int) -> Text:
    told = [f"{hidden} more" if hidden else "", f"{done} done" if done else ""]
    return _text("  plans: " + " · ".join(part for part in told if part), "dim")


def _head(screen: Screen, view: PlanView) -> Text:
    """The plan's name, and how many slots and gates stand how."""
    line = _text(clean(view.recipe.name), "bold").append(f"  {screen.short(view.plan)}", "dim")
    slots = Counter(str(slot.status) for slot in view.slots)
    line.append(f"  {slots.pop('filled', 0)}/{len(view.slots)} filled")
    for status in ("running", "failed", "blocked", "ready", "waiting", "skipped"):
        if slots[status]:
            line.append(f" · {slots[status]} {status}", COLOURS.get(status, ""))
    for place, (verdict, count) in enumerate(_verdicts(view).items()):
        line.append(", " if place else "  gates: ")
        line.append(f"{count} {verdict}", COLOURS.get(verdict, ""))
    return line.append("  done", "green") if view.done else line


def _verdicts(view: PlanView) -> Mapping[str, int]:
    """How often which verdict fell, of required gates that were judged."""
    judged = (gate for gate in view.gates if gate.required and gate.judged)
    found = Counter("waived" if gate.waiver else str(gate.verdict) for gate in judged)
    return dict(sorted(found.items(), key=lambda item: item[0] != "pass"))


def _gate(gate: GateView) -> Text:
    checks = "; ".join(check.text for check in gate.checks)
    line = _line("✗", gate.gate, str(gate.verdict))
    return line.append(clean(f"{gate.slot}: {checks}"), style="dim")


def _progress(screen: Screen, pace: Pace) -> Text:
    note = pace.note
    parts = [_bar(note.done, note.total), f"{note.done}/{note.total} {note.label}"]
    parts += [f"{pace.rate:.3g}/s"] if pace.rate else []
    parts += [f"{screen.duration(pace.left)} left"] if pace.left is not None else []
    parts += [f"{name} {value:.4g}" for name, value in note.figures.items()]
    return _text(clean("  ".join(parts)), "cyan")


def _bar(done: int, total: int) -> str:
    filled = _BAR * min(done, total) // total if total > 0 else 0
    return "━" * filled + "╌" * (_BAR - filled)


def _line(mark: str, what: str, status: str) -> Text:
    line = _text(f"  {mark} ", COLOURS.get(status, ""))
    line.append(f"{clean(what):<24} ")
    return line.append(f"{status:<8} ", COLOURS.get(status, ""))


def _text(content: str, style: str) -> Text:
    from rich.text import Text

    return Text(content, style=style, no_wrap=True, overflow="ellipsis")
