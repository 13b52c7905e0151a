"""Releases in words: a manifest, what a plan lacks for one, a folder, and what verifying found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stillhouse.cli.screen import clean
from stillhouse.phases.deployment.verify import FolderCheck
from stillhouse.schemas.digest import SHORT

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.phases.deployment.verify import ExpiredWaiver
    from stillhouse.release import Release, Unreleased, WrittenRelease
    from stillhouse.verify import ArtifactCheck


def show_manifest(screen: Screen, release: Release, *, as_json: bool) -> None:
    """The manifest: byte by byte as JSON and in a pipe, as tables at a terminal."""
    if as_json or not screen.tty:
        screen.flush()
        screen.out.buffer.write(release.data + b"\n")
        return
    found = release.manifest
    screen.facts(
        {
            "release": release.digest,
            "name": found.name,
            "tier": found.tier,
            "signature": found.signature,
            "plan": found.plan,
            "depends on": f"event {found.depends_on.seq}, {found.depends_on.hash}",
            "files": f"{len(found.files)}, {screen.size(sum(f.size for f in found.files))}",
            "not run": ", ".join(found.not_run),
        }
    )
    screen.line()
    screen.table(
        ("gate", "slot", "verdict", "required", "numbers"),
        (
            (
                gate.gate,
                gate.slot,
                gate.verdict,
                "yes" if gate.required else "no",
                "; ".join(check.text for check in gate.checks),
            )
            for gate in found.gates
        ),
    )
    screen.line()
    claims = ((claim.name, ", ".join(claim.gates)) for claim in found.capabilities)
    screen.table(("claim", "rests on"), claims)
    for limit in found.limits:
        screen.line(f"limit  {clean(limit)}")


def show_unreleased(screen: Screen, found: Unreleased) -> None:
    """Why a plan has no release; nothing of it is an answer."""
    screen.note(f"still: The plan {found.plan[:SHORT]} ({found.name}) has no release.")
    for item in found.missing:
        if item.first:
            screen.note(f"  missing  {clean(item.what)}: {clean(item.why)}")
            if item.remedy:
                screen.note(f"    Next: {clean(item.remedy)}")
    if found.following:
        screen.note(f"  and      {found.following}")
    if not found.wanted:
        screen.note("  missing  its recipe has no [deployment]")
        screen.next(
            "add the section and `still run` it, or take what there is: `still ls --kind "
            "mlpackage`, `still checkout REF DIR`."
        )
    elif not found.missing:
        screen.next("`still run` the recipe; its work is not finished.")


def show_written(screen: Screen, written: WrittenRelease) -> None:
    """Where the folder is."""
    if not screen.tty:
        screen.line(str(written.folder))
        return
    files = f"{written.files} files, {screen.size(written.size)}"
    screen.line(f"Wrote release {written.release[:SHORT]} to {written.folder}: {files}")
    screen.line(f"Check it anywhere, offline: still verify {written.folder}")


def show_check(screen: Screen, found: FolderCheck | ArtifactCheck) -> None:
    """What is not as it was released, then the verdict."""
    for word, paths in (
        ("missing", found.missing),
        ("added", found.added),
        ("changed", found.changed),
        ("fault", found.faults),
    ):
        for path in paths:
            screen.row(word, path)
    folder = isinstance(found, FolderCheck)
    verdict = "intact" if found.ok else f"not as it was {'released' if folder else 'recorded'}"
    screen.row(verdict, found.target, f"{found.checked} files checked")
    if isinstance(found, FolderCheck):
        screen.row("manifest", f"sha256 {found.manifest_sha256}")
    if not found.ok and not folder:
        screen.next(f"`still repair {found.target}`, from a copy or by running again.")
    elif not found.ok:
        screen.next("get it again from where it was released (`still manifest --out DIR`).")


def note_expired(screen: Screen, waivers: Iterable[ExpiredWaiver]) -> None:
    """Tell of waivers that are over, whatever form the answer has."""
    for one in waivers:
        screen.note(
            f"Note: this release rests on a waiver that has expired: {clean(one.gate)} "
            f"({clean(one.slot)}), by {clean(one.author)} until {screen.moment(one.until)}."
        )
