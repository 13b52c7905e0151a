"""How far long work over many bytes is, for those that watch it."""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """Takes count of bytes as they are done."""

    of: int | None
    """How many bytes the work is about, once that is known."""

    def add(self, count: int) -> None:
        """So many more bytes are done."""
        ...

    def move(self, done: int) -> None:
        """So many bytes are done in all."""
        ...


class Unseen:
    """Nobody watches."""

    of: int | None = None

    def add(self, count: int) -> None:
        """Tell nobody."""

    def move(self, done: int) -> None:
        """Tell nobody."""
