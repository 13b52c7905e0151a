"""Releases: which one is meant, what keeps a plan from having one, and the folder to deploy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.phases.deployment.verify import ExpiredWaiver, expired_waivers
from stillhouse.registry.keeping.presence import require_present
from stillhouse.registry.planning.missing import Missing
from stillhouse.registry.planning.summary import release_of, summary_of_plan
from stillhouse.registry.state.references import latest_plan, resolve_reference
from stillhouse.schemas import canonical, moment
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.schemas.policy import Tier
from stillhouse.schemas.release import MANIFEST, Manifest
from stillhouse.session import clock
from stillhouse.store.trees.trees import read_tree

if TYPE_CHECKING:
    from stillhouse.registry.planning.views import PlanView
    from stillhouse.registry.state.state import State
    from stillhouse.session import Session
    from stillhouse.store.objects.local import BlobStore


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release, by its manifest."""

    digest: Digest
    data: bytes
    """The manifest, as it was sealed …"""
    manifest: Manifest
    """… and parsed."""
    expired_waivers: tuple[ExpiredWaiver, ...]
    """Those that no later one follows."""

    def to_json(self) -> dict[str, Any]:
        """The manifest."""
        return canonical.decode(self.data)


@dataclass(frozen=True, kw_only=True)
class Unreleased:
    """A plan that has no release."""

    plan: Digest
    release: None = None
    missing: tuple[Missing, ...]
    """Why, first causes first; empty: its work is not finished."""
    name: str
    """What the recipe calls itself."""
    following: str
    """How many gates and slots wait for what is missing first, in words."""
    wanted: bool
    """Whether its recipe asks for a release: it has a [deployment]."""


@dataclass(frozen=True, kw_only=True)
class WrittenRelease:
    """A release as a folder."""

    release: Digest
    folder: Path
    files: int
    expired_waivers: tuple[ExpiredWaiver, ...]
    size: int
    """Bytes of all files."""


def find_release(
    session: Session,
    reference: str | None = None,
    *,
    tier: Tier | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Release | Unreleased:
    """The release that a reference names, or that of the recipe that it names; or why it has none.

    Default: the release that was cut last, else that of the latest plan. `tier`: refuse another
    one. `note` gets what else a person should know of the choice.

    Raises InputError for a wrong kind, a wrong tier or bytes that were given up, IntegrityError for
    a release whose manifest is damaged.
    """
    state = session.state()
    found = _named(state, reference, note)
    if state.published(found, Kind.RECIPE):
        from stillhouse.outlook import Outlook  # only a plan needs it

        view = Outlook(session).view(found)
        release = release_of(view)
        if release is None:
            return _unreleased(view)
        found = release
    _require_tier(state, found, tier)
    require_present(state, found)
    data = read_manifest(session.store, found)
    manifest = Manifest.model_validate_json(data)
    waivers = unrenewed_waivers(state, manifest)
    return Release(digest=found, data=data, manifest=manifest, expired_waivers=waivers)


def write_release(session: Session, release: Release, folder: Path) -> WrittenRelease:
    """Write the deployable folder. Raises InputError when there is something at `folder`."""
    from stillhouse.store.trees.checkout import checkout

    checkout(session.store, release.digest, "tree", folder)
    files = read_tree(session.store, release.digest)
    return WrittenRelease(
        release=release.digest,
        folder=folder,
        files=len(files),
        expired_waivers=release.expired_waivers,
        size=sum(entry.size for entry in files),
    )


def read_manifest(store: BlobStore, release: Digest) -> bytes:
    """The manifest of a stored release. Raises IntegrityError when it is damaged or has none."""
    for entry in read_tree(store, release):
        if entry.path == MANIFEST:
            return store.read(entry.digest)
    raise IntegrityError(
        f"Release {release[:SHORT]} holds no {MANIFEST}.",
        remedy="No run of this program made it; run the recipe again.",
        code="manifest.absent",
    )


def unrenewed_waivers(state: State, manifest: Manifest) -> tuple[ExpiredWaiver, ...]:
    """The waivers of a manifest that are over now, and that no later one in force follows."""
    now = moment.spell(clock())
    over = expired_waivers(manifest, now)
    return tuple(w for w in over if state.waiver(w.gate, w.subject, now) is None)


def _named(state: State, reference: str | None, note: Callable[[str], None]) -> Digest:
    """A release, or the recipe whose release is meant."""
    if reference is None:
        return _latest(state, note) if state.releases else latest_plan(state)
    found = resolve_reference(state, reference)
    if not any(state.published(found, kind) for kind in (Kind.RELEASE, Kind.RECIPE)):
        raise InputError(
            f"{reference} is a {state.artifacts[found][0].kind}, not a release or a recipe.",
            remedy="Name one: `still ls --kind release`, `still ls --kind recipe`.",
            code="manifest.wrong_kind",
        )
    return found


def _latest(state: State, note: Callable[[str], None]) -> Digest:
    """The release that was cut last; a note follows when another plan was asked for since."""
    cut = list(state.releases.values())[-1]
    latest = latest_plan(state)
    if not any(plan == latest for _, plan in state.releases):
        note(
            f"Note: the latest plan, {latest[:SHORT]}, has no release; this one is of plan "
            f"{cut.plan[:SHORT]}. Why: still manifest {latest[:SHORT]}"
        )
    return cut.release


def _unreleased(view: PlanView) -> Unreleased:
    plan = summary_of_plan(view)
    return Unreleased(
        plan=plan.plan,
        missing=plan.missing,
        name=plan.name,
        following=plan.following,
        wanted=any(slot.spec.seals for slot in view.slots),
    )


def _require_tier(state: State, release: Digest, tier: Tier | None) -> None:
    found = sorted({cut.tier for (digest, _), cut in state.releases.items() if digest == release})
    if tier is not None and tier not in found:
        raise InputError(
            f"Release {release[:SHORT]} is of {', '.join(found) or 'no tier'}, not of {tier}.",
            remedy=f'Set tier = "{tier}" in the recipe and `still run` it; the gates that {tier} '
            "requires are then judged on what was measured already.",
            code="manifest.wrong_tier",
        )
