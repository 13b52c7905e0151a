"""The limits of one registry: `config.toml`, which `still init` writes with its defaults explained.

Its presence is what makes a folder a registry, so it is written last.
"""

from __future__ import annotations

import tomllib
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from registry.home import Home
from schemas.errors import InputError
from schemas.value import Value

TEXT = """\
# A stillhouse registry. Lines that are missing mean these values.
schema_version = 1

# Runs that may execute at once. One run already uses every core that its recipe's `threads` names.
workers = 1
"""


class Config(Value):
    """What `config.toml` may say."""

    schema_version: Literal[1] = 1
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Runs that may execute at once."""


def read_config(home: Home) -> Config:
    """The registry's limits. Raises InputError when the file can not be read."""
    try:
        return Config.model_validate(tomllib.loads(home.config.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise InputError(
            f"{home.config} can not be used: {detail}.",
            remedy="Mend that line, or delete it; a fresh `still init` explains every limit.",
            code="config.invalid",
        ) from error
