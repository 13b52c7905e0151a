"""Verifying: every byte of a release folder or of an artifact is hashed again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stillhouse.phases.deployment.verify import FolderCheck, verify_folder
from stillhouse.registry.keeping.presence import require_present
from stillhouse.registry.state.references import form_of, resolve_reference
from stillhouse.release import read_manifest, unrenewed_waivers
from stillhouse.schemas import moment
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.release import Manifest
from stillhouse.session import clock
from stillhouse.store.disk.durable import present
from stillhouse.store.trees.trees import read_tree

if TYPE_CHECKING:
    from stillhouse.phases.deployment.verify import ExpiredWaiver
    from stillhouse.session import Session
    from stillhouse.store.objects.local import BlobStore


@dataclass(frozen=True, kw_only=True)
class ArtifactCheck:
    """How the stored bytes of an artifact compare with its digests."""

    ok: bool
    target: Digest
    checked: int
    """Files that are what they were."""
    missing: tuple[str, ...]
    """Files of a tree that the store lacks."""
    added: tuple[str, ...] = ()
    changed: tuple[str, ...]
    """Files of a tree that have other bytes."""
    faults: tuple[str, ...] = ()
    expired_waivers: tuple[ExpiredWaiver, ...]
    """Of a release that is intact."""


def verify(target: str, open_: Callable[[], Session]) -> FolderCheck | ArtifactCheck:
    """Verify the folder at `target`, which needs no registry, else the artifact that it names.

    Raises what `verify_folder` and `verify_artifact` raise.
    """
    path = Path(target)
    if present(path) and path.is_dir():
        return verify_folder(path, moment.spell(clock()))
    return verify_artifact(open_(), target)


def verify_artifact(session: Session, reference: str) -> ArtifactCheck:
    """Hash an artifact's objects, down to the files of a tree.

    Raises InputError when there is no such artifact or its bytes were given up, IntegrityError when
    what is damaged is the artifact's own object.
    """
    state, store = session.state(), session.store
    digest = resolve_reference(state, reference)
    require_present(state, digest)
    if form_of(state, digest) == "tree":
        faults = {entry.path: _fault(store, entry.digest) for entry in read_tree(store, digest)}
    else:
        store.verify(digest)
        faults = {"": None}
    checked = sum(fault is None for fault in faults.values())
    ok = checked == len(faults)
    waivers: tuple[ExpiredWaiver, ...] = ()
    if ok and state.published(digest, Kind.RELEASE):
        manifest = Manifest.model_validate_json(read_manifest(store, digest))
        waivers = unrenewed_waivers(state, manifest)
    return ArtifactCheck(
        ok=ok,
        target=digest,
        checked=checked,
        missing=tuple(path for path, fault in faults.items() if fault == "missing"),
        changed=tuple(path for path, fault in faults.items() if fault == "changed"),
        expired_waivers=waivers,
    )


def _fault(store: BlobStore, digest: Digest) -> Literal["missing", "changed"] | None:
    try:
        store.verify(digest)
    except IntegrityError as error:
        return "missing" if error.code == "store.missing" else "changed"
    return None
