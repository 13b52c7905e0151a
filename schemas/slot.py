"""Slots and shapes: which run of a plan, about which graph.

    slot id   = phase | phase "/" shape        training, export/prefill-128
    shape id  = mode "-" length                prefill-128, decode-512

Rules: a phase that works on all graphs at once has one slot, named like it; any other has one slot
a shape. Plans, events and tables hold ids as text, and code that needs a part parses it here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Mode = Literal["prefill", "decode"]
"""What a graph does: read a whole prompt, or add one token to what it has read."""


@dataclass(frozen=True, kw_only=True)
class SlotId:
    """The name of one slot of a plan."""

    phase: str
    shape: str | None = None
    """The id of the shape that the slot is about; None: it is about no single one."""

    @classmethod
    def parse(cls, text: str) -> SlotId:
        """The parts of an id; `str` of them gives back `text`, also a malformed one."""
        phase, slash, shape = text.partition("/")
        return cls(phase=phase, shape=shape if slash else None)

    def __str__(self) -> str:
        return self.phase if self.shape is None else f"{self.phase}/{self.shape}"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One graph that a recipe asks for."""

    mode: Mode
    length: int
    """Tokens: of the prompt, or what the decode state holds."""
    primary: bool
    """Whether it is the prefill length that must work."""

    @property
    def id(self) -> str:
        """`prefill-128`, `decode-512`."""
        return shape_id(self.mode, self.length)

    @property
    def optional(self) -> bool:
        """Whether the release can do without it."""
        return self.mode == "prefill" and not self.primary

    def slot(self, phase: str) -> str:
        """The id of the slot in which a phase works on it: `export/prefill-128`."""
        return str(SlotId(phase=phase, shape=self.id))


def shape_id(mode: Mode, length: int) -> str:
    """The id of the shape of that many tokens."""
    return f"{mode}-{length}"


def shapes_of(
    prefill: Iterable[int], primary: int, decode_capacity: int | None
) -> tuple[Shape, ...]:
    """Every graph that these lengths ask for: prefill ascending, then decode, if there is one."""
    found = [Shape(mode="prefill", length=T, primary=primary == T) for T in sorted(prefill)]
    if decode_capacity is not None:
        found.append(Shape(mode="decode", length=decode_capacity, primary=False))
    return tuple(found)
