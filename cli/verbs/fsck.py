"""Verbs about the registry itself: make one, check every byte of it, and look at this machine."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.arguments import Json
from stillhouse.cli.views import render
from stillhouse.cli.views.progress import bar
from stillhouse.registry.home import FOLDER, VARIABLE, Home, locate
from stillhouse.schemas.errors import InputError

if TYPE_CHECKING:
    from stillhouse.registry.ledger.ledger import Audit
    from stillhouse.registry.state.state import State
    from stillhouse.schemas.artifact import Form
    from stillhouse.schemas.digest import Digest
    from stillhouse.session import Session
    from stillhouse.store.check.fsck import FsckReport, Problem

_ALL = 100.0
"""Percent."""


def init(context: typer.Context) -> None:
    """Make a registry.

    In .still/ here, or at --registry DIR, or at STILL_REGISTRY.
    """
    from stillhouse.session import make_registry

    named = context.obj or os.environ.get(VARIABLE)
    home = Home(Path(named) if named else Path.cwd() / FOLDER)
    made = make_registry(home)
    if render.at_terminal():
        what = "Made a registry at" if made else "There is a registry already at"
        render.line(f"{what} {home.root}")
        return
    render.line(str(home.root))


def doctor(*, as_json: Json = False) -> None:
    """Look at this machine.

    What is tested, what only warns, what is refused or missing, and why.
    """
    from stillhouse.phases import environment

    probed = environment.probe()
    found = environment.findings(probed)
    if as_json:
        listed = [
            {
                "level": f.level,
                "package": f.package,
                "version": f.version,
                "reason": f.reason,
                "remedy": f.remedy,
            }
            for f in found
        ]
        render.json_document({"environment": probed.to_json(), "findings": listed})
    else:
        rows = [(f.level, f.package, f.version, f.reason, f.remedy) for f in found]
        render.table(("level", "package", "version", "reason", "what to do"), rows)
    if any(f.level in ("refused", "missing") for f in found):
        raise typer.Exit(1)


def fsck(
    context: typer.Context,
    *,
    metadata: Annotated[
        bool, typer.Option("--metadata", help="Look at names, sizes and modes only: seconds.")
    ] = False,
    sample: Annotated[
        str | None,
        typer.Option("--sample", metavar="P%", help="Read this share of the bytes, at random."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted check stopped.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every event and every stored byte."""
    from stillhouse.session import open_unchecked
    from stillhouse.store.check.fsck import fsck as check_store

    share = _share(metadata=metadata, sample=sample, resume=resume)
    session = open_unchecked(locate(context.obj, Path.cwd()))
    audit = _audit(session)
    state = _intact(session, audit)
    with bar("checking") as drawn:

        def tell(*, objects: int, size: int, of: int) -> None:  # noqa: ARG001  # as fsck tells it
            drawn.of = of
            drawn.move(size)

        report = check_store(
            session.store,
            expected=_expected(state),
            now=time.time(),
            share=share,
            bookmark=session.home.fsck_state,
            resume=resume,
            progress=tell,
        )
    hurt = _hurt(session, state, (*report.missing, *report.corrupt, *report.exposed))
    if as_json:
        render.json_document(_as_json(audit, report, hurt))
    else:
        _show(audit, report, hurt)
    if audit.fault or not report.ok:
        raise typer.Exit(1)


def _share(*, metadata: bool, sample: str | None, resume: bool) -> float:
    """The share of all bytes that shall be read, 0 to 1. Raises InputError."""
    if metadata + (sample is not None) + resume > 1:
        raise InputError(
            "--metadata, --sample and --resume exclude each other.",
            remedy="Give one of them: --resume goes on with a full check.",
            code="fsck.conflict",
        )
    if metadata:
        return 0.0
    if sample is None:
        return 1.0
    try:
        percent = float(sample.removesuffix("%"))
    except ValueError:
        percent = 0.0
    if not 0 < percent < _ALL:
        raise InputError(
            f"--sample {sample!r} is not a share of the bytes.",
            remedy="Write it as --sample 5%: more than 0, less than 100.",
            code="fsck.bad_sample",
        )
    return percent / _ALL


def _audit(session: Session) -> Audit:
    """Read the whole ledger; one that verifies may still have lost its end."""
    from stillhouse.registry.ledger.witness import check_noted
    from stillhouse.schemas.errors import IntegrityError

    audit = session.ledger.audit()
    if audit.fault is None:
        try:
            check_noted(session.home.projection, session.home.log)
        except IntegrityError as error:
            return replace(audit, fault=error)
    return audit


def _intact(session: Session, audit: Audit) -> State:
    """The state as far as the ledger verifies."""
    from stillhouse.registry.state.state import State

    intact = islice(session.ledger.read(), audit.events)
    return State().apply_all(intact)


def _expected(state: State) -> list[tuple[Digest, Form]]:
    """Everything that the ledger says is in the store: artifacts and logs."""
    expected: list[tuple[Digest, Form]] = [
        (digest, found[0].form)
        for digest, found in state.artifacts.items()
        if digest not in state.absent
    ]
    logs: list[tuple[Digest, Form]] = [(r.log, "blob") for r in state.runs.values() if r.log]
    return expected + logs


def _hurt(
    session: Session, state: State, problems: tuple[Problem, ...]
) -> dict[str, tuple[str, ...]]:
    """For each damaged object, which artifacts need it."""
    from stillhouse.schemas.errors import IntegrityError
    from stillhouse.store.trees.trees import read_tree

    wanted = {problem.digest for problem in problems}
    needing: dict[str, list[str]] = {digest: [] for digest in wanted}
    if not wanted:
        return {}
    for digest, found in state.artifacts.items():
        fact = found[0].fact
        members = {digest}
        if fact.form == "tree":
            with suppress(IntegrityError):  # then the tree itself is among the problems
                members |= {entry.digest for entry in read_tree(session.store, digest)}
        for member in members & wanted:
            needing[member].append(
                f"{fact.kind} {fact.name or ''} {digest[:12]}".replace("  ", " ")
            )
    return {digest: tuple(names) for digest, names in needing.items()}


def _show(audit: Audit, report: FsckReport, hurt: dict[str, tuple[str, ...]]) -> None:
    ledger = str(audit.fault) if audit.fault else "intact"
    render.facts(
        {
            "ledger": f"{audit.events} events, {ledger}",
            "torn": f"{audit.torn} bytes of an unacknowledged write" if audit.torn else "",
            "store": f"{report.checked} objects, {render.size(report.bytes)}",
            "read": _read(report),
            "condemned": f"{report.condemned} objects" if report.condemned else "",
            "linked": f"{report.linked} objects have a second name" if report.linked else "",
        }
    )
    for name, problems in (
        ("missing", report.missing),
        ("corrupt", report.corrupt),
        ("exposed", report.exposed),
    ):
        for problem in problems:
            render.row(name, problem.what)
            for artifact in hurt[problem.digest]:
                render.row("", f"needed by {artifact}")
    for path in report.foreign:
        render.row("foreign", f"{path} is not an object; it was left alone")
    for path in report.swept_temp:
        render.row("swept", f"{path}, left by a process that died")
    if report.missing or report.corrupt:
        render.note(
            "  Next: `still repair REF` brings an artifact back, from a copy or by its run."
        )
    elif report.exposed and report.how != "full":
        render.note("  Next: `still fsck` reads them and tells whether they were edited.")


def _read(report: FsckReport) -> str:
    if report.how == "metadata":
        return "nothing: names, sizes and modes only"
    read = f"{report.verified} objects, {render.size(report.verified_bytes)}"
    if report.bound is not None:
        return f"{read}: with 95 % confidence less than {report.bound:.3%} of the bytes is damaged"
    if report.resumed_after is not None:
        return f"{read}, those up to {render.short(report.resumed_after)} by an earlier check"
    return read


def _as_json(
    audit: Audit, report: FsckReport, hurt: dict[str, tuple[str, ...]]
) -> dict[str, object]:
    from stillhouse.store.check.sampling import CONFIDENCE

    def told(problems: tuple[Problem, ...]) -> list[dict[str, object]]:
        return [
            {"digest": p.digest, "what": p.what, "artifacts": list(hurt[p.digest])}
            for p in problems
        ]

    return {
        "ok": report.ok and audit.fault is None,
        "ledger": {
            "events": audit.events,
            "head": {"seq": audit.head.seq, "hash": audit.head.hash},
            "torn_bytes": audit.torn,
            "fault": audit.fault.as_dict() if audit.fault else None,
        },
        "store": {
            "objects": report.checked,
            "bytes": report.bytes,
            "how": report.how,
            "verified": report.verified,
            "verified_bytes": report.verified_bytes,
            "damaged_below": report.bound,
            "confidence": None if report.bound is None else CONFIDENCE,
            "resumed_after": report.resumed_after,
            "condemned": report.condemned,
            "linked": report.linked,
            "missing": told(report.missing),
            "corrupt": told(report.corrupt),
            "exposed": told(report.exposed),
            "foreign": list(report.foreign),
            "swept": list(report.swept_temp),
        },
    }
