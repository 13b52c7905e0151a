"""The only object-to-bytes encoder: RFC 8785 (JSON Canonicalization Scheme).

RFC 8785 refuses NaN, infinities and integers beyond 2**53. So a non-finite metric is recorded as
`null` plus a `nonfinite` name (see schemas/report.py), and big integers travel as strings.
"""

from __future__ import annotations

import json
from typing import Any

import rfc8785

from stillhouse.schemas.errors import InputError

Json = dict[str, Any]
"""A JSON object. The one place where values are of any type."""


_LARGEST = 2**53 - 1
"""The largest integer that RFC 8785 has a form for."""

_SMALLEST = 1e-4
"""The least fraction that Python writes without an exponent; ECMAScript goes on to 1e-6."""

_write = json.JSONEncoder(
    sort_keys=True,
    separators=(",", ":"),
    ensure_ascii=False,
    allow_nan=False,
    check_circular=False,  # what `_plain` gives has no cycle
).encode


def encode(value: object) -> bytes:
    """Canonical UTF-8 bytes of a JSON-like value.

    Raises InputError when the value has no canonical form (NaN, huge integer, foreign type).
    """
    try:
        # Most values are written alike by the standard library, and that is ten times as fast.
        return _write(_plain(value)).encode()
    except (_OddError, RecursionError, UnicodeEncodeError):
        return _encode_odd(value)


class _OddError(Exception):
    """The standard library might write this value otherwise than RFC 8785, or not refuse it."""


def _plain(value: Any) -> Any:  # noqa: ANN401  # any value is what it is asked about
    """The same value, such that the standard library writes it in canonical form.

    Text is escaped alike by both. Keys must be ASCII: the two sort others differently. A whole
    number must be an integer, a fraction one that both write as plain digits; the digits are then
    the same, the fewest that tell it from its neighbours. Raises _OddError for all else.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is dict and all(type(key) is str and key.isascii() for key in value):
        return {key: _plain(inner) for key, inner in value.items()}
    if kind is list or kind is tuple:
        return [_plain(inner) for inner in value]
    if (kind is int or kind is float) and abs(value) <= _LARGEST:
        if kind is int or value.is_integer():
            return int(value)
        if abs(value) >= _SMALLEST:
            return value
    raise _OddError


def _encode_odd(value: object) -> bytes:
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]  # its own JSON alias is narrower than ours
    except (ValueError, RecursionError) as error:
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
