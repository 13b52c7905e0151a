"""Usage: whose the bytes of the store are, by artifact, kind, tag or release. Pure.

Rules: every object has a holder, so the rows add up to the store. What no artifact needs is held by
`(logs)`, `(given up)` or `(orphans)`. What an artifact without a tag or release needs is held by
`(no tag)` or `(no release)`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from stillhouse.registry.keeping.marking import Share, Stock, shares
from stillhouse.registry.keeping.retention import releases_of
from stillhouse.registry.state.state import State
from stillhouse.schemas.digest import SHORT, Digest


class By(StrEnum):
    """What bytes are grouped by."""

    ARTIFACT = "artifact"
    KIND = "kind"
    TAG = "tag"
    RELEASE = "release"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """What holds objects, and how many bytes these have."""

    holder: str
    """An artifact's digest, a kind, a tag, the beginning of a release's digest, or `(…)`."""
    name: str
    """Kind and name of an artifact; else empty."""
    total: int
    unique: int
    """Bytes that would be free without it."""
    shared: int
    """Bytes that something else holds as well."""


def holders(state: State, stock: Stock, by: By) -> tuple[tuple[Holder, ...], int]:
    """Every holder, the largest first, and the bytes that several of them hold, counted once."""
    sizes = {digest: stock.size((digest,)) for digest in stock.objects}
    each, shared = shares(dict(_held(state, stock, by)), sizes)
    largest = sorted(each.items(), key=lambda item: (-item[1].total, item[0]))
    return tuple(_holder(state, holder, share, by) for holder, share in largest), shared


def _holder(state: State, holder: str, share: Share, by: By) -> Holder:
    return Holder(
        holder=holder,
        name=_name(state, holder) if by is By.ARTIFACT else "",
        total=share.total,
        unique=share.unique,
        shared=share.shared,
    )


def _name(state: State, holder: str) -> str:
    found = state.artifacts.get(holder)
    if not found:
        return ""
    fact = found[-1].fact
    return f"{fact.kind} {fact.name or fact.role or ''}".rstrip()


def _held(state: State, stock: Stock, by: By) -> Iterator[tuple[str, frozenset[Digest]]]:
    """Every holder and its objects; together they hold every object of the store."""
    named: defaultdict[str, set[Digest]] = defaultdict(set)
    releases = releases_of(state) if by is By.RELEASE else {}
    for artifact, needed in stock.needs.items():
        for holder in _holders_of(state, artifact, by, releases):
            named[holder] |= needed
    rest = set(stock.objects).difference(*named.values())
    others = {
        f"(no {by})": rest.intersection(frozenset().union(*stock.needs.values())),
        "(logs)": state.logs(),
        "(given up)": stock.remnants,
    }
    yield from ((holder, frozenset(objects)) for holder, objects in named.items())
    for holder, objects in others.items():
        if found := rest.intersection(objects):
            yield holder, frozenset(found)
        rest -= objects
    if rest:
        yield "(orphans)", frozenset(rest)


def _holders_of(
    state: State, artifact: Digest, by: By, releases: Mapping[Digest, Collection[Digest]]
) -> Collection[str]:
    match by:
        case By.ARTIFACT:
            return (artifact,)
        case By.KIND:
            return {str(p.kind) for p in state.artifacts[artifact]}
        case By.TAG:
            return state.tags_of(artifact)
        case By.RELEASE:
            return [release[:SHORT] for release in releases.get(artifact, ())]
