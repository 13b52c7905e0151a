"""The verb `audit`: whether the ledger is what it was, and all that was made from it agrees.

Works on a damaged ledger, changes nothing, and asks every witness there is: the projection and its
tables, the note beside it, the index, the manifests of releases, and heads that somebody kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.arguments import Json
from stillhouse.cli.views import render
from stillhouse.registry.audit.audit import Examination, Projected, Witness
from stillhouse.registry.audit.touched import Touched
from stillhouse.registry.home import LEDGER, PROJECTION, Home, locate
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError, IntegrityError

if TYPE_CHECKING:
    from stillhouse.registry.audit.retold import Retold
    from stillhouse.schemas.release import Head
    from stillhouse.session import Session

_HEAD = re.compile(r"([1-9]\d*):([0-9a-f]{64})")
_MANIFEST = "deployment_manifest.json"


@dataclass(frozen=True, kw_only=True)
class _Told:
    """Everything that the audit came to."""

    found: Examination
    retold: Retold | None
    """The projection's tables; None when there are none, or its events are wrong already."""
    unread: tuple[Digest, ...]
    """Releases whose manifest cannot be read, so that it could not be asked."""
    touched: Touched | None
    """What the first bad event touches, if there is one."""

    @property
    def ok(self) -> bool:
        """Whether everything that could be asked agrees."""
        return not self.found.findings and not (self.retold and self.retold.differences)

    @property
    def parts(self) -> dict[str, bool]:
        """What there is to ask beside the ledger's own chain -> whether it was compared."""
        projected, retold = self.found.projected, self.retold
        there = projected.state != "absent"
        name = PROJECTION
        parts = {f"events of {name}": projected.state == "read"} if there else {}
        if there:
            parts[f"tables of {name}"] = retold is not None and retold.state == "compared"
        parts |= {w.source: True for w, _ in self.found.witnesses}
        return parts | {f"release {release[:SHORT]}": False for release in self.unread}

    @property
    def bad(self) -> int | None:
        """The first event that is not what it was."""
        differing = self.retold.differences if self.retold else ()
        seqs = [f.seq for f in self.found.findings] + [d.seq for d in differing if d.seq]
        return min(seqs, default=None)


def audit(
    context: typer.Context,
    *,
    head: Annotated[
        list[str] | None,
        typer.Option(
            "--head",
            metavar="SEQ:HASH",
            help="An event's hash that you kept elsewhere; may be given more than once.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Prove that no event was changed, lost or forged.

    The chain of events.log, then everything that remembers it. Tells the first event that is not
    what it was, and which releases rest on it. Ends with 1 when something does not agree.
    """
    from stillhouse.session import open_unchecked

    given = [_given(text) for text in head or ()]
    told = _audit(open_unchecked(locate(context.obj, Path.cwd())), given)
    if as_json:
        render.json_document(_as_json(told))
    else:
        _show(told)
    if not told.ok:
        raise typer.Exit(1)


def _given(text: str) -> Witness:
    found = _HEAD.fullmatch(text)
    if found is None:
        raise InputError(
            f"{text!r} is not the head of a ledger.",
            remedy="Give SEQ:HASH, as `still audit` and a manifest's depends_on tell them.",
            code="audit.bad_head",
        )
    return Witness(source="--head", seq=int(found[1]), hash=found[2])


def _audit(session: Session, given: Sequence[Witness]) -> _Told:
    from stillhouse.registry.audit.audit import examine, read_projection
    from stillhouse.registry.audit.retold import retell

    home = session.home
    projected = read_projection(home.projection)
    heads, unread = _of_manifests(session, projected)
    found = examine(home.log, projected, [*given, *_noted(home), *heads])
    retold = None
    if projected.state == "read" and not found.findings:
        retold = retell(home.projection, home.log, found.offset)
    told = _Told(found=found, retold=retold, unread=unread, touched=None)
    return told if told.bad is None else replace(told, touched=_touched(home, found, told.bad))


def _touched(home: Home, found: Examination, seq: int) -> Touched:
    from stillhouse.registry.audit.audit import read_copies
    from stillhouse.registry.audit.touched import parsed, readable, touched

    copies = read_copies(home.projection, seq) if found.projected.state == "read" else ()
    return touched(seq, [(LEDGER, readable(home.log)), (PROJECTION, parsed(copies))])


def _noted(home: Home) -> Iterator[Witness]:
    """What the note beside the projection and the header of the index remember."""
    from stillhouse.registry.ledger.witness import lock_of, noted
    from stillhouse.registry.lineage.index import DamagedError, Image

    note = noted(home.projection)
    if note is not None and note.seq:
        yield Witness(source=lock_of(home.projection).name, seq=note.seq, hash=note.hash)
    try:
        covered = Image(home.lineage.read_bytes()).position
    except (OSError, DamagedError):
        return
    if covered.seq:
        yield Witness(source=home.lineage.name, seq=covered.seq, hash=covered.hash)


def _of_manifests(
    session: Session, projected: Projected
) -> tuple[list[Witness], tuple[Digest, ...]]:
    """The heads in the manifests of all releases that the log or the projection knows.

    Second: those releases whose manifest cannot be read.
    """
    from stillhouse.registry.audit.touched import readable
    from stillhouse.schemas.events import ReleaseCut

    cut = readable(session.home.log, holding=ReleaseCut.TYPE.encode())
    told = {str(event.data.get("release")) for event in cut if event.type == ReleaseCut.TYPE}
    heads: list[Witness] = []
    unread: list[Digest] = []
    for release in sorted(told | set(projected.releases)):
        try:
            at = _depends_on(session, release)
        except (IntegrityError, ValueError):
            unread.append(release)
        else:
            heads.append(Witness(source=f"release {release[:SHORT]}", seq=at.seq, hash=at.hash))
    return heads, tuple(unread)


def _depends_on(session: Session, release: Digest) -> Head:
    """Raises IntegrityError when the store lacks it, ValueError when it is no manifest."""
    from stillhouse.schemas.release import Manifest
    from stillhouse.store.trees.trees import read_tree

    found = {entry.path: entry.digest for entry in read_tree(session.store, release)}
    if _MANIFEST not in found:
        raise ValueError(f"release {release} holds no manifest")
    return Manifest.model_validate_json(session.store.read(found[_MANIFEST])).depends_on


def _as_json(told: _Told) -> dict[str, object]:
    found = told.found
    return {
        "ok": told.ok,
        "compared": [part for part, compared in told.parts.items() if compared],
        "not_compared": [part for part, compared in told.parts.items() if not compared],
        "ledger": found.audit.to_json(),
        "projection": {
            "state": found.projected.state,
            "detail": found.projected.detail,
            "events": len(found.projected.rows),
            "equal": found.compared,
            "tables": told.retold.state if told.retold else "not compared",
            "differing": [d._asdict() for d in told.retold.differences] if told.retold else [],
        },
        "heads": [
            {"source": w.source, "seq": w.seq, "hash": w.hash, "verdict": verdict}
            for w, verdict in found.witnesses
        ],
        "unread_releases": list(told.unread),
        "findings": [
            {"event": f.seq, "after": f.after, "where": f.where, "what": f.what}
            for f in found.findings
        ],
        "first": told.bad,
        "touches": _touches_json(told.touched) if told.touched else None,
    }


def _touches_json(touched: Touched) -> dict[str, object]:
    return {
        "copies": [{"where": where, "event": event.to_json()} for where, event in touched.copies],
        "artifacts": [{"digest": digest, "kind": kind} for digest, kind in touched.artifacts],
        "runs": list(touched.runs),
        "gates": list(touched.gates),
        "releases": list(touched.releases),
    }


def _show(told: _Told) -> None:
    found = told.found
    head = found.audit.head
    render.facts(
        {
            "ledger": f"{found.audit.events} events, head {head.seq}:{head.hash}",
            "torn": f"{found.audit.torn} bytes of an unacknowledged write"
            if found.audit.torn
            else "",
            "projection": _projection(told),
        }
    )
    for witness, verdict in found.witnesses:
        render.row("head", f"{witness.source} knows event {witness.seq}", verdict)
    for release in told.unread:
        render.row("unread", f"release {render.short(release)}, so its manifest was not asked")
    for finding in found.findings:
        place = (
            f"event {finding.seq}"
            if finding.after == finding.seq - 1
            else f"event {finding.seq}, or one after {finding.after}"
        )
        render.row("bad", place, finding.where, finding.what)
    for name, seq in told.retold.differences if told.retold else ():
        render.row("bad", f"event {seq}" if seq else "", PROJECTION, f"{name} differs")
    if told.touched is not None:
        _show_touched(told.touched)
    _show_verdict(told)


def _projection(told: _Told) -> str:
    projected = told.found.projected
    if projected.state == "held":
        return f"held by {projected.detail}: not compared"
    if projected.state == "unreadable":
        return f"unreadable, and not compared: {projected.detail}"
    if projected.state == "absent":
        return "none"
    tables = f"tables {told.retold.state}" if told.retold else "tables not compared"
    return f"{told.found.compared} of its {len(projected.rows)} events equal the ledger's, {tables}"


def _show_touched(touched: Touched) -> None:
    from stillhouse.cli.screen import here
    from stillhouse.cli.views.events import describe

    for where, event in touched.copies:
        try:
            said = describe(here(), event)
        except (KeyError, TypeError, ValueError):  # its payload was damaged as well
            said = "its payload is not of that type"
        render.row("said", f"{where}, event {event.seq}", event.type, said)
    for digest, kind in touched.artifacts:
        render.row("touches", f"{kind} {render.short(digest)}")
    for run in touched.runs:
        render.row("touches", f"run {render.short(run)}")
    for gate in touched.gates:
        render.row("touches", f"gate {gate}")
    for release in touched.releases:
        render.row("release", f"{render.short(release)} rests on it")


def _show_verdict(told: _Told) -> None:
    missing = [part for part, compared in told.parts.items() if not compared]
    intact = "intact so far as compared" if missing else "intact"
    render.row(intact if told.ok else "broken", "nothing was changed or repaired")
    if missing:
        render.row("not compared", ", ".join(missing))
    if told.ok:
        return
    if told.found.findings and any(f.where == LEDGER for f in told.found.findings):
        remedy = "Restore events.log from a copy, and audit that."
    else:
        remedy = "The ledger is whole: delete registry.duckdb, and it is built anew from it."
    render.note(f"  Next: {remedy}")
