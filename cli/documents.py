"""Recipes and policies as files: one bounded way to read them, one way to tell what is wrong.

Rules: only a regular file is opened, never a link (what lies in the inbox must not lead the daemon
out of it) nor a fifo (nobody may ever write to it); a mebibyte is more than any of them needs;
whatever the text is, the answer is an error that names the file.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from schemas import canonical
from schemas.errors import InputError, RecipeError
from store.durable import reading, shown
from store.sources import refuse_special

LARGEST = 1 << 20
"""Bytes."""

# O_NONBLOCK: what became a fifo since we looked must not hang us.
_SOURCE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

M = TypeVar("M", bound=BaseModel)


def read_document(path: Path) -> bytes:
    """The content of a small regular file. Raises InputError."""
    with reading(path):
        refuse_special(path, path.lstat().st_mode)
        descriptor = os.open(path, _SOURCE)
        with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor, not a path
            refuse_special(path, os.fstat(descriptor).st_mode)
            data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise InputError(
            f"{shown(path)} is larger than {LARGEST >> 20} MiB.",
            remedy="A recipe or policy is a few kilobytes of TOML; give that file.",
            code="file.too_large",
        )
    return data


def parse(model: type[M], data: bytes, *, where: str, what: str) -> M:
    """A `what` (recipe, policy) from TOML, or from the canonical JSON of one.

    Raises RecipeError, naming the line or the field.
    """
    document = _document(data, where=where, what=what)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise RecipeError(
            f"{where} is not a {what}: {explain(error)}.",
            remedy="See docs/design.md and examples/ for the form.",
            code=f"{what}.invalid",
        ) from error


def _document(data: bytes, *, where: str, what: str) -> canonical.Json:
    try:
        if data.lstrip()[:1] == b"{":
            return canonical.decode(data)
        return tomllib.loads(data.decode())
    except InputError as error:
        raise RecipeError(
            f"{where} is not a {what}: {error.message}",
            remedy=error.remedy,
            code=f"{what}.bad_json",
        ) from error
    # Bad syntax, bad UTF-8 and integers of thousands of digits are ValueErrors.
    except (ValueError, RecursionError) as error:
        raise RecipeError(
            f"{where} is not valid TOML: {error}.",
            remedy="Mend that line.",
            code=f"{what}.bad_toml",
        ) from error


def explain(error: ValidationError) -> str:
    """The first fault that pydantic found, as `where: what` (and how many more there are)."""
    faults = error.errors(include_url=False)
    first = faults[0]
    where = ".".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    given = first.get("input")
    if first["type"] in ("enum", "literal_error") and isinstance(given, str):
        what = f"{what}, not {given!r}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return (f"{where}: {what}" if where else what) + more
