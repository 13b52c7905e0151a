"""The verb `du`: who holds the bytes of the store, for its own and together with others."""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillhouse.cli.arguments import Json, MaybeRef, session_of
from stillhouse.cli.views import render
from stillhouse.registry.keeping.marking import Share, Stock, shares
from stillhouse.registry.keeping.presence import require_present
from stillhouse.registry.state.references import resolve_reference
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.stock import Stocktaker
from stillhouse.store.objects.paths import TEMPORARY

if TYPE_CHECKING:
    from stillhouse.registry.home import Home
    from stillhouse.registry.state.state import State


class By(StrEnum):
    """What bytes are told by."""

    ARTIFACT = "artifact"
    KIND = "kind"
    TAG = "tag"
    RELEASE = "release"


def du(
    context: typer.Context,
    ref: MaybeRef = None,
    *,
    by: Annotated[By, typer.Option("--by", help="Whose bytes to tell.")] = By.KIND,
    top: Annotated[int, typer.Option("--top", min=1, help="At most so many rows.")] = 20,
    as_json: Json = False,
) -> None:
    """Say who holds the bytes: all, those that only it holds, and those it shares.

    Unique bytes would be free if it went. With REF: of that artifact, beside all others.
    """
    session = session_of(context)
    taker = Stocktaker(session)
    stock = taker.look()
    only = None
    if ref is not None:
        only = resolve_reference(taker.state, ref)
        require_present(taker.state, only)
        by = By.ARTIFACT
    holders = dict(_holders(taker.state, stock, by))
    sizes = {digest: stock.size((digest,)) for digest in stock.objects}
    each, shared = shares(holders, sizes)
    rows = _rows(taker.state, each, by, only)
    summary = _summary(session.home, taker.state, stock, shared)
    if as_json:
        render.json_document({"by": str(by), "holders": rows[:top], **summary})
        return
    render.table(
        ("holder", "total", "unique", "shared", "name"),
        (
            (
                render.short(row["holder"]) if by is By.ARTIFACT else row["holder"],
                *(render.size(row[word]) for word in ("total", "unique", "shared")),
                row["name"],
            )
            for row in rows[:top]
        ),
    )
    _show_summary(summary, left_out=len(rows) - top)


def _holders(state: State, stock: Stock, by: By) -> Iterator[tuple[str, frozenset[Digest]]]:
    """Every holder and its objects; together they hold every object of the store."""
    named: defaultdict[str, set[Digest]] = defaultdict(set)
    releases = _releases(state) if by is By.RELEASE else {}
    for artifact, needed in stock.needs.items():
        for holder in _named(state, artifact, by, releases):
            named[holder] |= needed
    rest = set(stock.objects).difference(*named.values())
    others = {
        f"(no {by})": rest.intersection(frozenset().union(*stock.needs.values())),
        "(logs)": {run.log for run in state.runs.values() if run.log is not None},
        "(given up)": stock.remnants,
    }
    yield from ((holder, frozenset(objects)) for holder, objects in named.items())
    for holder, objects in others.items():
        if found := rest.intersection(objects):
            yield holder, frozenset(found)
        rest -= objects
    if rest:
        yield "(orphans)", frozenset(rest)


def _named(
    state: State, artifact: Digest, by: By, releases: Mapping[Digest, Collection[str]]
) -> Collection[str]:
    """What an artifact is told under."""
    match by:
        case By.ARTIFACT:
            return (artifact,)
        case By.KIND:
            return {str(p.kind) for p in state.artifacts[artifact]}
        case By.TAG:
            return [name for name, digest in state.tags.items() if digest == artifact]
        case By.RELEASE:
            return releases.get(artifact, ())


def _releases(state: State) -> Mapping[Digest, Collection[str]]:
    """Artifact -> the releases that it is, or went into."""
    found: defaultdict[Digest, set[str]] = defaultdict(set)
    for release, _ in state.releases:
        parents = (p.digest for f in state.artifacts.get(release, ()) for p in f.fact.parents)
        for artifact in (release, *parents):
            found[artifact].add(release[:SHORT])
    return found


def _rows(
    state: State, each: Mapping[str, Share], by: By, only: Digest | None
) -> list[dict[str, Any]]:
    """Holders with what they hold, largest first."""
    return [
        {
            "holder": holder,
            "name": _name(state, holder) if by is By.ARTIFACT else "",
            "total": share.total,
            "unique": share.unique,
            "shared": share.shared,
        }
        for holder, share in sorted(each.items(), key=lambda item: (-item[1].total, item[0]))
        if only in (None, holder)
    ]


def _name(state: State, holder: str) -> str:
    found = state.artifacts.get(holder)
    if not found:
        return ""
    fact = found[-1].fact
    return f"{fact.kind} {fact.name or fact.role or ''}".rstrip()


def _summary(home: Home, state: State, stock: Stock, shared: int) -> dict[str, Any]:
    """Figures of the whole store, and of what lies beside it; all in bytes but `until`."""
    from stillhouse.phases.reactor.folders import size_of

    size = stock.size(stock.objects)
    return {
        "store": size,
        "unique": size - shared,
        "shared": shared,
        "condemned": stock.size(stock.condemned.keys() - stock.placed.keys()),
        "until": max(state.condemned.values(), default=None),
        "left_overs": sum(_left_overs(home)),
        "run_folders": size_of(home.runs),
    }


def _left_overs(home: Home) -> Iterator[int]:
    """Bytes of each file that is still being put, or that a dead process left half put."""
    for path in (home.objects / TEMPORARY).rglob("*"):
        with suppress(FileNotFoundError):
            status = path.lstat()
            yield status.st_size if stat.S_ISREG(status.st_mode) else 0


def _show_summary(summary: Mapping[str, Any], *, left_out: int) -> None:
    if left_out > 0:
        render.note(f"  {left_out} more; see them with --top.")
    for word in ("store", "unique", "shared"):
        render.row(word, render.size(summary[word]))
    if summary["condemned"]:
        until = f"swept after {render.moment(summary['until'])}" if summary["until"] else ""
        render.row("condemned", render.size(summary["condemned"]), until)
    if summary["left_overs"]:
        why = "of commands that were killed; `still gc` removes it, or the next publish"
        render.row("left over", render.size(summary["left_overs"]), why)
    if summary["run_folders"]:
        why = "what runs left that have not succeeded; `still gc` removes what is old"
        render.row("run folders", render.size(summary["run_folders"]), why)
