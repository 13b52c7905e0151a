"""The graphs that a recipe asks for, and which of them a release can do without. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stillhouse.schemas.recipe import ExportSection

Mode = Literal["prefill", "decode"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One graph that the recipe asks for."""

    mode: Mode
    length: int
    primary: bool
    """The prefill length that must work."""

    @property
    def id(self) -> str:
        """`prefill-128`, `decode-128`: the variant part of slot ids."""
        return f"{self.mode}-{self.length}"

    @property
    def optional(self) -> bool:
        """Whether the release can do without it."""
        return self.mode == "prefill" and not self.primary


def shapes_of(
    prefill: tuple[int, ...], primary: int, decode_capacity: int | None
) -> tuple[Shape, ...]:
    """Every graph: prefill lengths ascending, then decode."""
    found = [Shape(mode="prefill", length=T, primary=primary == T) for T in sorted(prefill)]
    if decode_capacity is not None:
        found.append(Shape(mode="decode", length=decode_capacity, primary=False))
    return tuple(found)


def shapes_of_export(section: ExportSection) -> tuple[Shape, ...]:
    """Every graph of a recipe's export section."""
    return shapes_of(section.prefill, section.primary, section.decode_capacity)
