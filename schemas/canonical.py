"""The only object-to-bytes encoder: RFC 8785 (JSON Canonicalization Scheme).

RFC 8785 refuses NaN, infinities and integers beyond 2**53, so a non-finite metric is recorded as
`null` plus a `nonfinite` name (see schemas/report.py) and big integers travel as strings.
"""

from __future__ import annotations

import json
from typing import Any

import rfc8785

from schemas.errors import InputError

Json = dict[str, Any]
"""A JSON object. The one place where values are of any type."""


def encode(value: object) -> bytes:
    """Canonical UTF-8 bytes of a JSON-like value.

    Raises InputError when the value has no canonical form (NaN, huge integer, foreign type).
    """
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]  # its own JSON alias is narrower than ours
    except rfc8785.CanonicalizationError as error:
        raise InputError(
            f"This value has no canonical JSON form: {error}.",
            remedy="Use finite numbers, integers below 2**53, text, lists and objects.",
            code="canonical.unencodable",
        ) from error


def decode(data: bytes) -> Json:
    """The JSON object in `data`; duplicate keys and non-finite numbers are refused.

    Raises InputError when `data` is not one UTF-8 JSON object.
    """
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"This is not valid JSON: {error}.",
            remedy="Give one UTF-8 JSON object without duplicate keys, NaN or Infinity.",
            code="canonical.undecodable",
        ) from error
    if not isinstance(value, dict):
        raise InputError(
            f"Expected a JSON object, found {type(value).__name__}.",
            remedy="Give one UTF-8 JSON object.",
            code="canonical.not_object",
        )
    return value


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _refuse_constant(name: str) -> Any:  # noqa: ANN401  # json's own hook signature
    raise ValueError(f"{name} is not JSON")
