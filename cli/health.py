"""Verbs about the registry itself: make one, check every byte of it, and look at this machine."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli import render
from cli.arguments import Json
from registry.home import FOLDER, VARIABLE, Home, locate

if TYPE_CHECKING:
    from cli.wiring import Session
    from registry.fold import State
    from registry.ledger import Audit
    from schemas.artifact import Form
    from schemas.digest import Digest
    from store.fsck import FsckReport, Problem


def init(context: typer.Context) -> None:
    """Make a registry.

    In .still/ here, or at --registry DIR, or at STILL_REGISTRY.
    """
    from cli.wiring import make_registry

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
    from phases import environment

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


def fsck(context: typer.Context, *, as_json: Json = False) -> None:
    """Check every event and every stored byte."""
    from cli.wiring import open_unchecked
    from store.fsck import fsck as check_store

    session = open_unchecked(locate(context.obj, Path.cwd()))
    audit = _audit(session)
    state = _intact(session, audit)
    report = check_store(session.store, expected=_expected(state), now=time.time())
    hurt = _hurt(session, state, (*report.missing, *report.corrupt))
    if as_json:
        render.json_document(_as_json(audit, report, hurt))
    else:
        _show(audit, report, hurt)
    if audit.fault or not report.ok:
        raise typer.Exit(1)


def _audit(session: Session) -> Audit:
    """Read the whole ledger; one that verifies may still have lost its end."""
    from registry.witness import check_noted
    from schemas.errors import IntegrityError

    audit = session.ledger.audit()
    if audit.fault is None:
        try:
            check_noted(session.home.projection, session.home.log)
        except IntegrityError as error:
            return replace(audit, fault=error)
    return audit


def _intact(session: Session, audit: Audit) -> State:
    """The state as far as the ledger verifies."""
    from registry.fold import State

    intact = islice(session.ledger.read(), audit.events)
    return State().apply_all(intact)


def _expected(state: State) -> list[tuple[Digest, Form]]:
    """Everything that the ledger says is in the store: artifacts and logs."""
    expected: list[tuple[Digest, Form]] = [
        (digest, found[0].form) for digest, found in state.artifacts.items()
    ]
    logs: list[tuple[Digest, Form]] = [(r.log, "blob") for r in state.runs.values() if r.log]
    return expected + logs


def _hurt(
    session: Session, state: State, problems: tuple[Problem, ...]
) -> dict[str, tuple[str, ...]]:
    """For each damaged object, which artifacts need it."""
    from schemas.errors import IntegrityError
    from store.trees import read_tree

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
        }
    )
    for name, problems in (("missing", report.missing), ("corrupt", report.corrupt)):
        for problem in problems:
            render.row(name, problem.what)
            for artifact in hurt[problem.digest]:
                render.row("", f"needed by {artifact}")
    for path in report.foreign:
        render.row("foreign", f"{path} is not an object; it was left alone")
    for path in report.swept_temp:
        render.row("swept", f"{path}, left by a process that died")
    if report.missing or report.corrupt:
        render.note("  Next: publish the same content again, or restore the objects from a copy.")


def _as_json(
    audit: Audit, report: FsckReport, hurt: dict[str, tuple[str, ...]]
) -> dict[str, object]:
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
            "missing": told(report.missing),
            "corrupt": told(report.corrupt),
            "foreign": list(report.foreign),
            "swept": list(report.swept_temp),
        },
    }
