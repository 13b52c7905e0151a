"""Verbs about releases: `manifest` (what it claims, and the deployable folder) and `verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillhouse.cli.arguments import Json, MaybeRef, session_of
from stillhouse.cli.views import render
from stillhouse.registry.keeping.presence import require_present
from stillhouse.registry.planning.missing import first_causes, following
from stillhouse.registry.planning.summary import release_of, summary_of_plan
from stillhouse.registry.state.references import form_of, latest_plan, resolve_reference
from stillhouse.schemas import moment
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.schemas.plain import plain
from stillhouse.schemas.policy import Tier
from stillhouse.session import clock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stillhouse.registry.planning.views import PlanView
    from stillhouse.registry.state.state import State
    from stillhouse.schemas.release import GateRow
    from stillhouse.session import Session
    from stillhouse.store.trees.trees import Entry

_MANIFEST = "deployment_manifest.json"


def manifest(
    context: typer.Context,
    ref: MaybeRef = None,
    *,
    tier: Annotated[Tier | None, typer.Option("--tier", help="Refuse any other tier.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write the deployable folder here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print or write out a release.

    Its manifest, or with --out the deployable folder. REF: a release, or a recipe whose release
    is meant; default: the latest release.
    """
    session = session_of(context)
    state = session.state()
    release = _release(session, state, ref, as_json=as_json)
    _require_tier(state, release, tier)
    data = _manifest_bytes(session, release)
    expired = _expired(_waived(data), state)
    _note_expired(expired)
    if out is not None:
        _write_out(session, release, out, expired, as_json=as_json)
        return
    if as_json or not render.at_terminal():
        sys.stdout.flush()
        sys.stdout.buffer.write(data + b"\n")
    else:
        _show(release, data)


def _release(session: Session, state: State, ref: str | None, *, as_json: bool) -> Digest:
    """The release that REF means. Tells what is missing and ends with 1 when the plan has none."""
    if ref is None:
        if state.releases:
            return _latest(state)
        plan = latest_plan(state)
    else:
        found = resolve_reference(state, ref)
        if state.published(found, Kind.RELEASE):
            return found
        if not state.published(found, Kind.RECIPE):
            raise InputError(
                f"{ref} is a {state.artifacts[found][0].kind}, not a release or a recipe.",
                remedy="Name one: `still ls --kind release`, `still ls --kind recipe`.",
                code="manifest.wrong_kind",
            )
        plan = found
    view = session.reactor().view(plan)
    release = release_of(view)
    if release is None:
        _tell_missing(view, as_json=as_json)
        raise typer.Exit(1)
    return release


def _latest(state: State) -> Digest:
    """The release that was cut last; whoever asked for another plan since is told."""
    cut = list(state.releases.values())[-1]
    latest = latest_plan(state)
    if not any(plan == latest for _, plan in state.releases):
        render.note(
            f"Note: the latest plan, {latest[:SHORT]}, has no release; this one is of plan "
            f"{cut.plan[:SHORT]}. Why: still manifest {latest[:SHORT]}"
        )
    return cut.release


def _tell_missing(view: PlanView, *, as_json: bool) -> None:
    missing = plain(summary_of_plan(view).missing)
    if as_json:
        render.json_document({"plan": view.plan, "release": None, "missing": missing})
        return
    render.note(f"still: The plan {view.plan[:SHORT]} ({view.recipe.name}) has no release.")
    for item in first_causes(view):
        render.note(f"  missing  {render.clean(item.what)}: {render.clean(item.why)}")
        if item.remedy:
            render.note(f"    Next: {render.clean(item.remedy)}")
    if waiting := following(view):
        render.note(f"  and      {waiting}")
    if not missing:
        render.note("  Next: `still run` the recipe; its work is not finished.")


def _require_tier(state: State, release: Digest, tier: Tier | None) -> None:
    found = sorted({cut.tier for (digest, _), cut in state.releases.items() if digest == release})
    if tier is not None and tier not in found:
        raise InputError(
            f"Release {release[:SHORT]} is of {', '.join(found) or 'no tier'}, not of {tier}.",
            remedy=f'Set tier = "{tier}" in the recipe and `still run` it; the gates that {tier} '
            "requires are then judged on what was measured already.",
            code="manifest.wrong_tier",
        )


def _write_out(
    session: Session, release: Digest, out: Path, expired: list[dict[str, str]], *, as_json: bool
) -> None:
    from stillhouse.store.trees.checkout import checkout
    from stillhouse.store.trees.trees import read_tree

    checkout(session.store, release, "tree", out)
    files = read_tree(session.store, release)
    if as_json:
        told = {"release": release, "folder": str(out), "files": len(files)}
        render.json_document(told | {"expired_waivers": expired})
    elif render.at_terminal():
        total = render.size(sum(entry.size for entry in files))
        render.line(f"Wrote release {release[:SHORT]} to {out}: {len(files)} files, {total}")
        render.line(f"Check it anywhere, offline: still verify {out}")
    else:
        render.line(str(out))


def _manifest_bytes(session: Session, release: Digest) -> bytes:
    from stillhouse.store.trees.trees import read_tree

    require_present(session.state(), release)
    for entry in read_tree(session.store, release):
        if entry.path == _MANIFEST:
            return session.store.read(entry.digest)
    raise IntegrityError(
        f"Release {release[:SHORT]} holds no {_MANIFEST}.",
        remedy="No run of this program made it; run the recipe again.",
        code="manifest.absent",
    )


# -- waivers that are over ----------------------------------------------------------------------


def _waived(data: bytes) -> tuple[GateRow, ...]:
    """The gates that a manifest says were let through by a waiver."""
    from stillhouse.schemas.release import Manifest

    return tuple(row for row in Manifest.model_validate_json(data).gates if row.waiver)


def _expired(rows: Iterable[GateRow], state: State | None = None) -> list[dict[str, str]]:
    """The waivers among these that are over now, and that no later one of the registry follows."""
    now = moment.spell(clock())
    return [
        {
            "gate": row.gate,
            "slot": row.slot,
            "subject": row.subject,
            "author": row.waiver.author,
            "until": row.waiver.until,
        }
        for row in rows
        if row.waiver and row.waiver.until <= now
        if state is None or state.waiver(row.gate, row.subject, now) is None
    ]


def _note_expired(expired: list[dict[str, str]]) -> None:
    for one in expired:
        render.note(
            f"Note: this release rests on a waiver that has expired: {render.clean(one['gate'])} "
            f"({render.clean(one['slot'])}), by {render.clean(one['author'])} until "
            f"{render.moment(one['until'])}."
        )


# -- what is shown ------------------------------------------------------------------------------


def _show(release: Digest, data: bytes) -> None:
    from stillhouse.schemas.release import Manifest

    found = Manifest.model_validate_json(data)
    render.facts(
        {
            "release": release,
            "name": found.name,
            "tier": found.tier,
            "signature": found.signature,
            "plan": found.plan,
            "depends on": f"event {found.depends_on.seq}, {found.depends_on.hash}",
            "files": f"{len(found.files)}, {render.size(sum(f.size for f in found.files))}",
            "not run": ", ".join(found.not_run),
        }
    )
    render.line()
    render.table(
        ("gate", "slot", "verdict", "required", "numbers"),
        (
            (g.gate, g.slot, g.verdict, "yes" if g.required else "no", _numbers(g.checks))
            for g in found.gates
        ),
    )
    render.line()
    render.table(("claim", "rests on"), ((c.name, ", ".join(c.gates)) for c in found.capabilities))
    for limit in found.limits:
        render.line(f"limit  {render.clean(limit)}")


def _numbers(checks: tuple[Any, ...]) -> str:
    return "; ".join(check.text for check in checks)


def verify(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="DIR|REF", help="A deployable folder, or an artifact.")
    ],
    *,
    as_json: Json = False,
) -> None:
    """Re-hash a release folder or artifact.

    A folder needs no registry; every missing, added or changed file is named.
    """
    from stillhouse.store.disk.durable import present

    path = Path(target)
    found = (
        _verify_folder(path)
        if present(path) and path.is_dir()
        else _verify_artifact(context, target)
    )
    if as_json:
        render.json_document(found)
    else:
        _show_verified(found)
    _note_expired(found["expired_waivers"])
    if not found["ok"]:
        raise typer.Exit(1)


def _verify_folder(folder: Path) -> dict[str, Any]:
    from stillhouse.phases.deployment.verify import verify_folder

    report = verify_folder(folder)
    return {
        "ok": report.ok,
        "target": str(folder),
        "name": report.name,
        "checked": report.checked,
        "missing": list(report.missing),
        "added": list(report.added),
        "changed": list(report.changed),
        "faults": list(report.faults),
        "manifest": report.manifest,
        "manifest_sha256": report.manifest_sha256,
        "expired_waivers": _expired(report.waived),
    }


def _verify_artifact(context: typer.Context, ref: str) -> dict[str, Any]:
    """Hash an artifact's objects, down to the files of a tree."""
    from stillhouse.store.trees.trees import read_tree

    session = session_of(context)
    state = session.state()
    digest = resolve_reference(state, ref)
    require_present(state, digest)
    missing: list[str] = []
    changed: list[str] = []
    checked = 0
    if form_of(state, digest) == "tree":
        members = {entry.path: entry for entry in read_tree(session.store, digest)}
        for path, entry in members.items():
            checked += _check(session, entry, path, missing, changed)
    else:
        session.store.verify(digest)
        checked = 1
    ok = not missing and not changed
    claims = ok and state.published(digest, Kind.RELEASE) is not None
    return {
        "ok": ok,
        "target": digest,
        "checked": checked,
        "missing": missing,
        "added": [],
        "changed": changed,
        "faults": [],
        "expired_waivers": (
            _expired(_waived(_manifest_bytes(session, digest)), state) if claims else []
        ),
    }


def _check(
    session: Session, entry: Entry, path: str, missing: list[str], changed: list[str]
) -> int:
    try:
        session.store.verify(entry.digest)
    except IntegrityError as error:
        (missing if error.code == "store.missing" else changed).append(path)
        return 0
    return 1


def _show_verified(found: dict[str, Any]) -> None:
    for word in ("missing", "added", "changed"):
        for path in found[word]:
            render.row(word, path)
    for fault in found["faults"]:
        render.row("fault", fault)
    verdict = "intact" if found["ok"] else "not as it was released"
    render.row(verdict, found["target"], f"{found['checked']} files checked")
    if "manifest_sha256" in found:
        render.row("manifest", f"sha256 {found['manifest_sha256']}")
    if not found["ok"]:
        render.note("  Next: get it again from where it was released (`still manifest --out DIR`).")
