"""The limits of one registry: `config.toml`, which `still init` writes with its defaults explained.

Its presence is what makes a folder a registry, so it is written last. Rules: an unknown key, phase
or unit is refused, and the known ones are named. The file names the environment variables that hold
keys. A key itself is refused without being repeated.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from fractions import Fraction
from typing import Any, Literal

from pydantic import ValidationError, field_validator

from stillhouse.registry.home import Home
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.limits import Limits, PhaseLimits

TEXT = """\
# A stillhouse registry. Lines that are missing mean these values.
schema_version = 1

# Runs that may execute at once. One run already uses every core that its recipe's `threads` names.
workers = 1

# What all runs together may set aside, by what their phases name below. Bytes, or "16 GiB".
# memory = "16 GiB"        # default: as much as there is

# How often in a row a run is started by itself: first, and after deaths and transient failures;
# and the seconds before the second attempt, doubled for each further one, up to an hour.
# attempts = 3
# backoff = 1.0

# How long what nothing points at is kept: a number and w, d, h, m or s; at least "1h".
# grace = "14d"

# Environment variables that hold keys: their names only. Their values never get into a log.
# secrets = ["HF_TOKEN"]

# One phase: its runs at once, what one of them may hold (it is ended beyond, and this much is set
# aside for it), and the seconds that one attempt may take. Default: no limit of its own.
# [phases.training]
# workers = 1
# memory = "12 GiB"
# seconds = 86400
"""

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)")
_MOST_BYTES = 2**63 - 1
"""The largest limit that the operating system takes (`setrlimit`)."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"([0-9]{1,6}) ?([a-z])")
_LONGEST = timedelta(days=365_000)
"""A duration beyond it would lead out of the calendar, which ends with the year 9999."""
_LEAST_GRACE = timedelta(hours=1)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_LONG = 16
"""Characters from which a part of a name that no person would have written is taken for a key."""


class Config(Limits):
    """What `config.toml` may say: the limits, how long bytes are kept, and where keys are."""

    schema_version: Literal[1] = 1
    grace: timedelta = timedelta(days=14)
    """How long bytes that nothing points at are kept, and again from condemning to sweeping."""
    secrets: tuple[str, ...] = ()
    """Names of environment variables whose values are kept out of logs."""

    def limits(self) -> Limits:
        """What runs may take."""
        return Limits(**{name: getattr(self, name) for name in Limits.model_fields})

    @field_validator("memory", mode="before")
    @classmethod
    def _memory(cls, value: object) -> object:
        return _in_bytes(value)

    @field_validator("phases", mode="before")
    @classmethod
    def _phases(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {name: _phase(name, table) for name, table in value.items()}

    @field_validator("grace", mode="before")
    @classmethod
    def _grace(cls, value: object) -> timedelta:
        found = value if isinstance(value, timedelta) else duration(str(value))
        if found < _LEAST_GRACE:
            raise ValueError(
                f"{value!r} is too short for a rule; the least is 1h, and `still gc --grace` takes "
                "any for once"
            )
        return found

    @field_validator("secrets")
    @classmethod
    def _secrets(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for place, name in enumerate(names, start=1):
            _check_name(place, name)
        return names


def read_config(home: Home) -> Config:
    """The registry's limits. Raises InputError when the file can not be read."""
    try:
        document = tomllib.loads(home.config.read_text(encoding="utf-8"))
        # As JSON, because strict there means: no number from a text or a truth value.
        found = Config.model_validate_json(json.dumps(document, default=str), strict=True)
    except ValidationError as error:
        raise _invalid(home, error) from error
    except (OSError, ValueError) as error:
        raise _unusable(home, f"{error}") from error
    _check_phases(home, found)
    return found


def duration(text: str) -> timedelta:
    """A duration such as "14d" or "90m"; "0" is none. Raises ValueError."""
    found = _DURATION.fullmatch(text)
    if text == "0":
        return timedelta(0)
    if found is None or found[2] not in _SECONDS:
        raise ValueError(f"{text!r} is no duration; write a number and {_listed(_SECONDS)}")
    length = timedelta(seconds=int(found[1]) * _SECONDS[found[2]])
    if length > _LONGEST:
        raise ValueError(f"{text!r} is longer than {_LONGEST.days}d, the most there can be")
    return length


def _in_bytes(value: object) -> object:
    """A size such as "16 GiB" in bytes; what is no text is left as it is. Raises ValueError."""
    if isinstance(value, int) and value > _MOST_BYTES:
        raise ValueError(f"{value} bytes are more than any machine has")
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value)
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"{value!r} is no size; write bytes, or a number and {_listed(_UNITS)}")
    count = int(Fraction(found[1]) * _UNITS[found[2]])
    if count > _MOST_BYTES:
        raise ValueError(f"{value!r} is more than any machine has")
    return count


def _phase(name: str, table: object) -> object:
    if not isinstance(table, Mapping) or "memory" not in table:
        return table
    try:
        return {**table, "memory": _in_bytes(table["memory"])}
    except ValueError as error:
        raise ValueError(f"{name}.memory: {error}") from error


def _check_name(place: int, name: str) -> None:
    """Raise ValueError when this can not be a variable's name, or is rather a key itself.

    The name is not repeated: it may be the key.
    """
    if _looks_like_a_key(name):
        raise ValueError(
            f"item {place} looks like a key itself; put it into an environment variable, name that "
            "variable here, and have the key replaced: it was written to a file"
        )
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"item {place} is not the name of an environment variable "
            "(letters, digits and _, at most 64, not beginning with a digit)"
        )


def _looks_like_a_key(name: str) -> bool:
    """Whether some long part of it mixes digits or cases, as no word does."""
    parts = re.split(r"[^A-Za-z0-9]+", name)
    return any(
        len(part) >= _LONG
        and (any(c.isdigit() for c in part) or (part != part.lower() and part != part.upper()))
        for part in parts
    )


def _check_phases(home: Home, config: Config) -> None:
    if not config.phases:
        return
    from stillhouse.phases.catalog import CATALOG

    known = [spec.name for spec in CATALOG]
    for name in config.phases:
        if name not in known:
            raise _unusable(
                home, f"there is no phase {name!r}", f"Phases are: {_listed(known)}.", "phase"
            )


def _invalid(home: Home, error: ValidationError) -> InputError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    *where, last = (str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        table = f" in [{'.'.join(where)}]" if where else ""
        fields = PhaseLimits.model_fields if where else Config.model_fields
        remedy = f"Keys{table} are: {_listed(fields)}."
        return _unusable(home, f"there is no key {last!r}{table}", remedy, "key")
    what = first["msg"].removeprefix("Value error, ")
    return _unusable(home, f"`{'.'.join((*where, last))}`: {what}")


def _unusable(home: Home, detail: str, remedy: str = "", unknown: str = "") -> InputError:
    return InputError(
        f"{home.config} can not be used: {detail}.",
        remedy=remedy or "Mend that line, or delete it; a fresh `still init` explains every limit.",
        code=f"config.unknown_{unknown}" if unknown else "config.invalid",
    )


def _listed(names: Mapping[str, Any] | list[str]) -> str:
    return ", ".join(names)
