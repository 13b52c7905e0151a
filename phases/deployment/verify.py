"""Checking a deployable folder offline: every file re-hashed, every difference named.

Rules: the folder is untrusted: no path of the manifest may leave it, symbolic links are never
followed, a manifest that is not one is refused before any of its paths is used; no heavy library
and no registry is needed. An unsigned manifest proves that the folder is whole, not who made it:
its own digest, which the report carries, is what to compare with the registry.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from stillhouse.schemas import canonical
from stillhouse.schemas.digest import Digest, Sha256
from stillhouse.schemas.errors import InputError, UntrustedFileError
from stillhouse.schemas.policy import Verdict
from stillhouse.schemas.release import (
    MANIFEST,
    RUNTIME_CONFIG,
    Manifest,
    ReleasedFile,
    RuntimeConfig,
)
from stillhouse.schemas.slot import SlotId
from stillhouse.store.disk.durable import reading, shown
from stillhouse.store.disk.hashing import hash_bytes, hash_file
from stillhouse.store.trees.names import component_fault, path_faults

_LARGEST_MANIFEST = 64 << 20
"""Bytes; a manifest has a few hundred per file and per run."""
_DEEPEST = 64
"""Folders within each other; a package has four."""


@dataclass(frozen=True, kw_only=True)
class ExpiredWaiver:
    """A waiver that a release rests on, and that is over."""

    gate: str
    slot: str
    subject: Digest
    author: str
    until: str
    """RFC 3339 UTC."""


@dataclass(frozen=True, kw_only=True)
class FolderCheck:
    """How a folder compares with its manifest."""

    ok: bool
    """Whether the folder is exactly what a consistent manifest lists."""
    target: Path
    name: str
    checked: int
    """Listed files that were found and hashed."""
    missing: tuple[str, ...]
    """Listed, but not there."""
    added: tuple[str, ...]
    """There, but not listed; links and special files are never listed."""
    changed: tuple[str, ...]
    """There, with other bytes, or not an ordinary file."""
    faults: tuple[str, ...]
    """Where the manifest contradicts itself, in words."""
    manifest: Digest
    """BLAKE3 of the manifest's bytes …"""
    manifest_sha256: Sha256
    """… and its SHA-256: what to compare with the registry's release."""
    expired_waivers: tuple[ExpiredWaiver, ...]
    """Those of the manifest; a registry may have renewed them since."""


def verify_folder(folder: Path, now: str) -> FolderCheck:
    """Re-hash every file of a deployable folder and compare it with its manifest.

    now: RFC 3339 UTC, by which waivers expire.

    Raises InputError when there is no folder or no manifest, or a file cannot be read;
    UntrustedFileError when the manifest is malformed or names a path outside of the folder, or when
    folders lie in each other deeper than any release's.
    """
    data = _manifest_bytes(folder)
    manifest = _parse(data)
    found = dict(_walk(folder))
    found.pop(MANIFEST, None)
    listed = {file.path: file for file in manifest.files}
    present = [path for path in listed if path in found]
    missing = _sorted(path for path in listed if path not in found)
    added = _sorted(path for path in found if path not in listed)
    changed = _sorted(
        path for path in present if not (found[path] and _same(folder / path, listed[path]))
    )
    faults = tuple(_faults(manifest, data, folder / RUNTIME_CONFIG))
    own = hash_bytes(data, sha256=True)
    assert own.sha256 is not None  # noqa: S101  # it was asked for
    return FolderCheck(
        ok=not (missing or added or changed or faults),
        target=folder,
        name=manifest.name,
        checked=sum(found[path] for path in present),
        missing=missing,
        added=added,
        changed=changed,
        faults=faults,
        manifest=own.digest,
        manifest_sha256=own.sha256,
        expired_waivers=expired_waivers(manifest, now),
    )


def expired_waivers(manifest: Manifest, now: str) -> tuple[ExpiredWaiver, ...]:
    """The waivers of a manifest that are over at `now` (RFC 3339 UTC)."""
    return tuple(
        ExpiredWaiver(
            gate=row.gate,
            slot=row.slot,
            subject=row.subject,
            author=row.waiver.author,
            until=row.waiver.until,
        )
        for row in manifest.gates
        if row.waiver and row.waiver.until <= now
    )


def _sorted(paths: Iterator[str]) -> tuple[str, ...]:
    return tuple(shown(path) for path in sorted(paths, key=os.fsencode))


# --- the folder -----------------------------------------------------------------------------------


def _walk(folder: Path) -> Iterator[tuple[str, bool]]:
    """(relative path, whether it is an ordinary file) of everything but folders."""
    waiting = [("", folder, 0)]
    while waiting:
        prefix, here, depth = waiting.pop()
        if depth > _DEEPEST:
            raise UntrustedFileError(
                f"{shown(folder)} holds folders more than {_DEEPEST} deep: no release does.",
                remedy="Get the folder again from where it was released.",
                code="verify.too_deep",
            )
        with reading(here):
            children = list(os.scandir(here))
        for child in children:
            with reading(Path(child.path)):
                mode = child.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                waiting.append((f"{prefix}{child.name}/", Path(child.path), depth + 1))
            else:
                yield f"{prefix}{child.name}", stat.S_ISREG(mode)


def _same(path: Path, listed: ReleasedFile) -> bool:
    with reading(path):
        found = hash_file(path, sha256=True)
    return (found.size, found.digest, found.sha256) == (listed.size, listed.blake3, listed.sha256)


# --- the manifest ---------------------------------------------------------------------------------


def _manifest_bytes(folder: Path) -> bytes:
    path = folder / MANIFEST
    if not path.is_file() and not path.is_symlink():
        raise InputError(
            f"{shown(folder)} holds no {MANIFEST}.",
            remedy="Name a folder that `still manifest --out` wrote, or a release's digest or tag.",
            code="verify.no_manifest",
        )
    with reading(path):
        status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_MANIFEST:
        raise _refused("it is not an ordinary file of a manifest's size")
    with reading(path):
        return path.read_bytes()


def _parse(data: bytes) -> Manifest:
    try:
        manifest = Manifest.model_validate(canonical.decode(data))
    except ValidationError as error:
        first = error.errors()[0]
        raise _refused(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except InputError as error:
        raise _refused(error.message.rstrip(".")) from error
    for fault in _path_faults([file.path for file in manifest.files]):
        raise _refused(fault)
    return manifest


def _path_faults(paths: Sequence[str]) -> Iterator[str]:
    """What keeps these paths from naming distinct files inside of the folder."""
    for path in paths:
        for component in path.split("/"):
            if fault := component_fault(component):
                yield f"the path {path[:120]!r} has a part that {fault}"
    if MANIFEST in paths:
        yield "it lists itself"
    yield from path_faults(paths)


def _refused(why: str) -> UntrustedFileError:
    return UntrustedFileError(
        f"{MANIFEST} is not a manifest that can be trusted: {why}.",
        remedy="Get the folder again from where it was released.",
        code="verify.bad_manifest",
    )


def _faults(manifest: Manifest, data: bytes, runtime_config: Path) -> Iterator[str]:
    """Where a well-formed manifest contradicts itself or its runtime config."""
    if canonical.encode(manifest.to_json()) != data:
        yield f"{MANIFEST} is not in canonical form"
    files = {file.path for file in manifest.files}
    if RUNTIME_CONFIG not in files:
        yield f"{RUNTIME_CONFIG} is not listed"
    yield from _artifact_faults(manifest)
    yield from _capability_faults(manifest)
    if runtime_config.is_file() and not runtime_config.is_symlink():
        yield from _config_faults(manifest, runtime_config, files)


def _artifact_faults(manifest: Manifest) -> Iterator[str]:
    known = Counter(a.digest for a in manifest.artifacts)
    owners = {f.artifact for f in manifest.files if f.artifact}
    for digest in sorted(owners - set(known)):
        yield f"files belong to the artifact {digest}, which is not listed"
    for artifact in manifest.artifacts:
        if artifact.released and artifact.digest not in owners:
            yield f"{artifact.role} is called released, but none of its files is listed"


def _capability_faults(manifest: Manifest) -> Iterator[str]:
    """Claims that the manifest's own verdicts on what is released do not carry."""
    left_out = {s.id for s in manifest.shapes if s.status != "released"}
    gates = [g for g in manifest.gates if SlotId.parse(g.slot).shape not in left_out]
    for claim in manifest.capabilities:
        rows = [g for g in gates if g.gate in claim.gates]
        bad = {g.gate for g in rows if g.verdict is not Verdict.PASS}
        for gate in sorted(bad | set(claim.gates) - {g.gate for g in rows}):
            yield f"the capability {claim.name} rests on {gate}, which did not pass"
        if not bad and {g.subject for g in rows} != set(claim.subjects):
            yield f"the capability {claim.name} names other subjects than its gates passed on"


def _config_faults(manifest: Manifest, path: Path, files: set[str]) -> Iterator[str]:
    try:
        with reading(path):
            config = RuntimeConfig.model_validate(canonical.decode(path.read_bytes()))
    except (ValidationError, InputError):
        yield f"{RUNTIME_CONFIG} is not a runtime config"
        return
    if (config.name, config.caws_tier) != (manifest.name, manifest.tier):
        yield f"{RUNTIME_CONFIG} is of another release"
    for model in config.models:
        if not any(file.startswith(f"{model.path}/") for file in files):
            yield f"{RUNTIME_CONFIG} names {shown(model.path)}, of which no file is listed"
        if model.contract not in files:
            yield f"{RUNTIME_CONFIG} names {shown(model.contract)}, which is not listed"
