"""The rows of every release again, from the verified ledger as it was when each was sealed. Pure.

A release of rule 2 must tell exactly these. One of rule 1 was told by equal bytes: what it tells
beyond these rows never shaped it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from stillhouse.registry.ledger.format import Line
from stillhouse.registry.planning.sealing import rows_at_start
from stillhouse.registry.state.runs import Success
from stillhouse.registry.state.state import State
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import StillError
from stillhouse.schemas.plan import PhaseSpec
from stillhouse.schemas.release import Manifest
from stillhouse.schemas.rows import ReleaseRows

_ALIKE = ("capabilities", "files", "gates", "name", "plan", "policy", "recipe", "shapes", "tier")
"""Parts that every rule tells alike."""


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """One release of one plan, and what the ledger said when it was sealed."""

    release: Digest
    plan: Digest
    success: Success | None
    """Of the run that sealed it; None: no run of the plan made it."""
    rows: ReleaseRows | None
    """None: what the ledger says makes no release."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An artifact that a manifest names."""

    kind: str
    digest: Digest
    name: str | None


@dataclass(frozen=True, kw_only=True)
class ManifestReport:
    """A sealed manifest, held against the verified ledger."""

    release: Digest
    plan: Digest
    rule: int
    differing: tuple[str, ...]
    """Its parts that are not what the ledger says; of rule 1 only what later rules left alone."""
    overclaimed: tuple[Claim, ...]
    """What it names and never shaped it; rule 1 told equal bytes of other plans as well."""


def compare(found: Sealed, manifest: Manifest, again: Manifest | None) -> ManifestReport:
    """Hold a manifest against the one that the ledger gives; None: it gives none."""
    differing: tuple[str, ...] = ("all",)
    if again is not None:
        one, other = manifest.to_json(), again.to_json()
        names = one.keys() | other.keys()
        differing = tuple(sorted(name for name in names if one.get(name) != other.get(name)))
    if manifest.rule == 1:
        differing = tuple(name for name in differing if name in _ALIKE)
    known = {a.digest for a in found.rows.artifacts} if found.rows else ()
    return ManifestReport(
        release=found.release,
        plan=found.plan,
        rule=manifest.rule,
        differing=differing,
        overclaimed=tuple(
            Claim(kind=a.kind, digest=a.digest, name=a.name)
            for a in manifest.artifacts
            if manifest.rule == 1 and known and a.digest not in known
        ),
    )


def sealed(state: State, lines: Iterable[Line], catalog: Sequence[PhaseSpec]) -> Iterator[Sealed]:
    """Every release that was cut, in the order in which their runs began.

    state: the whole ledger. lines: the ledger again, from its beginning.
    """
    found = [(_maker(state, *cut), *cut) for cut in state.releases]
    then, hashes, rest = State(), {}, iter(lines)
    found.sort(key=lambda each: each[0].started_seq if each[0] else 0)
    for success, release, plan in found:
        while success is not None and then.seq < success.started_seq - 1:
            line = next(rest)
            hashes[line.seq] = line.hash
            then.take(line)
        rows = None if success is None else _rows(then, catalog, success, hashes.__getitem__)
        yield Sealed(release=release, plan=plan, success=success, rows=rows)


def _maker(state: State, release: Digest, plan: Digest) -> Success | None:
    for fill in reversed(state.fills.get(plan, ())):
        if release in fill.success.outputs.values():
            return fill.success
    return None


def _rows(
    then: State,
    catalog: Sequence[PhaseSpec],
    success: Success,
    hash_of: Callable[[int], str],
) -> ReleaseRows | None:
    try:
        return rows_at_start(then, catalog, success.started, hash_of)
    except (StillError, AttributeError, KeyError, TypeError, ValueError):
        return None  # parameters that no deployment run has, in a ledger of somebody else
