"""The release folder: inputs of the run laid out by name, and a row for each file.

Rules: nothing is copied that can be linked (packages are hundreds of megabytes, and the store
hashes whatever it takes in); the folder is made anew on each attempt; what a checkpoint's config
says is read here and nowhere else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stillhouse.phases.contract import Context, Input
from stillhouse.phases.deployment.assembly import (
    TOKENIZER,
    contract_path,
    export_path,
    package_path,
)
from stillhouse.phases.deployment.request import Checkpoint, Graph, Request, eos_of
from stillhouse.schemas import canonical
from stillhouse.schemas.contract import Contract
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError, PhaseError
from stillhouse.schemas.release import ReleasedFile
from stillhouse.schemas.slot import Shape
from stillhouse.store.disk.durable import writing
from stillhouse.store.disk.hashing import hash_file

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)
"""Files of a checkpoint that a runtime needs beside the packages; those that exist are released."""


def graphs_of(context: Context, request: Request) -> tuple[Graph, ...]:
    """The shapes of which package, archive and contract all reached this run.

    Raises PhaseError when a contract cannot be read.
    """
    found = []
    for shape in request.shapes:
        parts = [
            context.maybe(f"{role}/{shape.id}") for role in ("mlpackage", "export", "contract")
        ]
        if any(part is None for part in parts):
            continue
        package, export, contract = (part for part in parts if part is not None)
        found.append(
            Graph(
                shape=shape,
                mlpackage=package.digest,
                export=export.digest,
                contract=contract.digest,
                promises=_contract(contract),
            )
        )
    return tuple(found)


def checkpoint_of(source: Input) -> Checkpoint:
    """What the runtime config needs of a checkpoint. Raises PhaseError when it does not say so."""
    config = _json(source.path / "config.json")
    generation = source.path / "generation_config.json"
    extra = _json(generation) if generation.exists() else {}
    vocabulary = config.get("vocab_size")
    if not isinstance(vocabulary, int):
        raise _unreadable(source.path / "config.json", "it has no vocab_size")
    return Checkpoint(
        digest=source.digest,
        vocab_size=vocabulary,
        eos_token_ids=eos_of(config, extra),
        has_tokenizer=(source.path / "tokenizer.json").exists(),
    )


def lay_out(context: Context, graphs: Sequence[Graph], folder: Path) -> tuple[ReleasedFile, ...]:
    """Link everything that is released into `folder`, and say what each file is.

    Raises StorageError when the disk refuses.
    """
    shutil.rmtree(folder, ignore_errors=True)
    rows = []
    wanted = list(_sources(context, graphs))
    for done, (path, source, artifact) in enumerate(wanted):
        context.progress("files", done, len(wanted))
        with writing(folder):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(source.resolve(strict=True), target)
            rows.append(_row(path, target, artifact))
    context.progress("files", len(wanted), len(wanted))
    return tuple(rows)


def _sources(context: Context, graphs: Sequence[Graph]) -> Iterator[tuple[str, Path, Digest]]:
    """(path in the release, file, artifact) of everything that is released."""
    for graph in graphs:
        yield from _of_shape(context, graph.shape)
    checkpoint = context.one("checkpoint")
    for name in TOKENIZER_FILES:
        if (checkpoint.path / name).exists():
            yield f"{TOKENIZER}/{name}", checkpoint.path / name, checkpoint.digest


def _of_shape(context: Context, shape: Shape) -> Iterator[tuple[str, Path, Digest]]:
    package = context.one(f"mlpackage/{shape.id}")
    for file in sorted(p for p in package.path.rglob("*") if p.is_file()):
        inner = file.relative_to(package.path).as_posix()
        yield f"{package_path(shape)}/{inner}", file, package.digest
    export, contract = context.one(f"export/{shape.id}"), context.one(f"contract/{shape.id}")
    yield export_path(shape), export.path, export.digest
    yield contract_path(shape), contract.path, contract.digest


def _link(source: Path, target: Path) -> None:
    """Another name for the same bytes; a copy where the file system does not give one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _row(path: str, file: Path, artifact: Digest) -> ReleasedFile:
    found = hash_file(file, sha256=True)
    assert found.sha256 is not None  # noqa: S101  # it was asked for
    return ReleasedFile(
        path=path, size=found.size, blake3=found.digest, sha256=found.sha256, artifact=artifact
    )


def _contract(source: Input) -> Contract:
    try:
        return Contract.model_validate(canonical.decode(source.path.read_bytes()))
    except (ValidationError, InputError) as error:
        raise _unreadable(source.path, "it is not a contract") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        return canonical.decode(path.read_bytes())
    except (OSError, InputError) as error:
        raise _unreadable(path, "it is not one JSON object") from error


def _unreadable(path: Path, why: str) -> PhaseError:
    return PhaseError(
        f"{path.name} of an input cannot be used: {why}.",
        remedy="Run `still fsck`; if the store is intact, make that artifact again.",
        code="deployment.unreadable_input",
    )
