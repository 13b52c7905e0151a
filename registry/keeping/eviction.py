"""Eviction: whether an artifact's bytes may be given up, and what goes with them. Pure.

An artifact is refused when no recorded run makes it again, or when a run reads it now. Two more are
refused unless they are forced: what belongs to a release, and what no other run would make byte for
byte.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from stillhouse.registry.keeping.marking import Stock
from stillhouse.registry.keeping.recovery import NotDerivableError, chain
from stillhouse.registry.keeping.retention import releases_of
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import State
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import BusyError, InputError


@dataclass(frozen=True, kw_only=True)
class Eviction:
    """What evicting one artifact takes."""

    runs: tuple[Run, ...]
    """Those that make it again; the last one made it."""
    objects: frozenset[Digest]
    """What nothing else that is there needs."""
    size: int
    """Bytes of these."""


def decide_eviction(
    state: State, stock: Stock, digest: Digest, members: Collection[Digest], *, force: bool
) -> Eviction:
    """What giving up `digest` takes. members: the objects that it consists of.

    Raises InputError when it is gone, can not be made again, or would have to be forced; BusyError
    when a run reads it.
    """
    others = (needed for artifact, needed in stock.needs.items() if artifact != digest)
    objects = frozenset(members).difference(stock.held, state.logs(), *others)
    size = stock.size(objects)
    if digest in state.absent and size == 0:
        raise InputError(
            f"The bytes of {digest[:SHORT]} are gone already, since event {state.absent[digest]}.",
            remedy=f"Have them made again with `still rewind {digest[:SHORT]}`.",
            code="evict.absent",
        )
    runs = _way_back(state, digest)
    _refuse_used(state, digest)
    if not force:
        _refuse_released(state, digest)
        _refuse_measured(state, digest)
    return Eviction(runs=runs, objects=objects, size=size)


def _way_back(state: State, digest: Digest) -> tuple[Run, ...]:
    try:
        return chain(state, digest, state.absent)
    except NotDerivableError as error:
        what = "" if error.digest == digest else f" {error.digest[:SHORT]} is not here, and"
        raise InputError(
            f"{digest[:SHORT]} could not be made again:{what} {error.reason}.",
            remedy="Keep it. What nothing keeps goes by itself, with `still gc`."
            if error.digest == digest
            else f"Bring {error.digest[:SHORT]} back first: `still repair {error.digest[:SHORT]} "
            "--from PATH`.",
            code="evict.not_derivable",
        ) from error


def _refuse_used(state: State, digest: Digest) -> None:
    for run in state.running():
        if any(parent.digest == digest for parent in run.started.inputs):
            raise BusyError(
                f"Run {run.key[:SHORT]} ({run.started.slot}) goes on and reads {digest[:SHORT]}.",
                remedy="Wait until it ends: `still runs`.",
                code="evict.in_use",
            )


def _refuse_released(state: State, digest: Digest) -> None:
    if releases := releases_of(state).get(digest):
        itself = digest in releases
        raise InputError(
            f"{digest[:SHORT]} is a release."
            if itself
            else f"{digest[:SHORT]} belongs to the release {releases[0][:SHORT]}.",
            remedy="Say --force if it is really to go; `still rewind` makes it again.",
            code="evict.released",
        )


def _refuse_measured(state: State, digest: Digest) -> None:
    if state.published(digest, Kind.REPORT):
        raise InputError(
            f"{digest[:SHORT]} is a report: it tells how long its run took, and another run would "
            "not make the same bytes.",
            remedy="Keep it, it is small; or say --force.",
            code="evict.report",
        )
