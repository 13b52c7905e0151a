"""Recipes and policies as files: one bounded way to read them, one way to report their faults.

Rules: only a regular file is opened. A link is not: what lies in the inbox must not lead the daemon
out of it. A fifo is not: nobody may ever write to it. A mebibyte is more than any of them needs.
Every fault of the text is an error that names the file.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from stillhouse.schemas import canonical
from stillhouse.schemas.errors import InputError, RecipeError
from stillhouse.store.disk.durable import reading, shown
from stillhouse.store.objects.sources import refuse_special

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

LARGEST = 1 << 20
"""Bytes."""
_TOLD = 20
"""Faults of one document that are named."""
_UNKNOWN = "extra_forbidden"

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
            f"{where} is not a {what}: {explain(error, model)}.",
            remedy="See docs/phases.md and examples/ for the form.",
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


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """What pydantic found wrong with a `model`, as `where: what`: unknown keys, then the rest.

    A key that is required and one that is unknown are often the same one, mistyped.
    """
    faults = error.errors(include_url=False)
    faults.sort(key=lambda fault: fault["type"] != _UNKNOWN)
    told = [_fault(fault, model) for fault in faults[:_TOLD]]
    more = [f"and {len(faults) - _TOLD} more"] if len(faults) > _TOLD else []
    return "; ".join(told + more)


def _fault(fault: ErrorDetails, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    what = fault["msg"].removeprefix("Value error, ")
    given = fault.get("input")
    if fault["type"] in ("enum", "literal_error") and isinstance(given, str):
        what = f"{what}, not {given!r}"
    if fault["type"] == _UNKNOWN:
        known = _keys(model, fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        what = "there is no such key" + (f" (did you mean {near[0]}?)" if near else "")
    return f"{where}: {what}" if where else what


def _keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The keys that a table within a `model` may have, as far as its type tells."""
    models = [model]
    for part in path:
        fields = [one.model_fields.get(str(part)) for one in models]
        # A place in a list, a key of a dictionary and a choice of a union name no field.
        if any(fields):
            models = [inner for field in fields if field for inner in _models(field.annotation)]
    return [name for one in models for name in one.model_fields]


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """The models within an annotation: `tuple[Source, ...] | None` has Source."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
