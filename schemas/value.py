"""The base of every value: frozen, keyword-only, unknown fields refused."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """An immutable value; two with equal fields are equal."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=False)

    def to_json(self) -> dict[str, Any]:
        """JSON-like dictionary, fit for schemas.canonical.encode; unset optionals are left out."""
        return self.model_dump(mode="json", exclude_none=True)

    def as_given(self) -> dict[str, Any]:
        """The JSON-like dictionary that it was read from, without defaults that were not in it."""
        return self.model_dump(mode="json", exclude_unset=True)
