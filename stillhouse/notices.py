"""The notices that come while plans advance, and the watcher that takes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stillhouse.phases.reactor.oversight import Progress
    from stillhouse.phases.reactor.reactor import Notice, Reactor
    from stillhouse.schemas.canonical import Json
    from stillhouse.schemas.errors import StillError
    from stillhouse.schemas.event import Event


@dataclass(frozen=True, kw_only=True)
class EventLine:
    """A new event, as a line of a JSON stream."""

    event: Event


@dataclass(frozen=True, kw_only=True)
class ProgressLine:
    """Progress of a live run, as a line of a JSON stream."""

    progress: Progress


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Something was dropped into the inbox, and was not taken in."""

    path: Path
    error: StillError

    def to_json(self) -> Json:
        """The error's own keys beside the path."""
        return {"refused": {"path": str(self.path), **self.error.as_dict()}}


class Watcher:
    """Takes what happens while plans advance; this one keeps it to itself."""

    def hear(self, notice: Notice) -> None:
        """Take a new event, or progress of a live run."""

    def refused(self, refusal: Refusal) -> None:
        """Take what was refused, or put off for the first time."""

    def note(self, text: str) -> None:
        """Take what a person should know."""

    def follow(self, reactor: Reactor) -> None:
        """Know whom to ask how plans stand."""

    def draw(self) -> None:
        """Bring what is shown up to date; asked before every wait."""
