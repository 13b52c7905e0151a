"""Retention: which artifacts' bytes are kept, and the first reason for each. Pure.

Some roots are what people point at: tags and releases. Some are what is being worked on: running
runs, and plans that were asked for lately. Some are young: published or brought back lately.
Everything that shaped a kept artifact is kept with it, so that a release can always be explained
and made again. All else may be condemned.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import State
from stillhouse.schemas import moment
from stillhouse.schemas.digest import SHORT, Digest


class Keep(StrEnum):
    """Why bytes are kept: a closed set."""

    TAGGED = "a tag names it"
    RELEASED = "it is a release"
    RUNNING = "a run that goes on needs it"
    ASKED_FOR = "a plan that was asked for lately holds it"
    YOUNG = "it is younger than the grace period"
    SHAPED = "something that is kept was made from it"
    JUDGED = "a verdict on something that is kept rests on it"

    @property
    def code(self) -> str:
        """Its name for scripts: `asked_for`. Texts may be reworded, codes may not."""
        return self.name.lower()


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The first reason for keeping one artifact."""

    reason: Keep
    detail: str
    """The tag, the release, the run, the plan, the time, or the artifact that was made from it or
    judged by it."""


def retention(state: State, now: str, grace: timedelta) -> dict[Digest, Kept]:
    """Every artifact that is kept at `now` (RFC 3339 UTC), with the first reason.

    What is in `state.artifacts` and not here may be condemned. Reasons count in the order of Keep.
    """
    since = moment.spell(moment.parse(now) - grace)
    kept: dict[Digest, Kept] = {}
    for digest, reason, detail in _roots(state, since):
        if digest in state.artifacts:
            kept.setdefault(digest, Kept(reason=reason, detail=detail))
    evidence = _evidence(state)
    waiting = list(kept)
    while waiting:
        child = waiting.pop()
        behind = [(parent, Keep.SHAPED) for parent in _parents(state, child)]
        behind += [(report, Keep.JUDGED) for report in evidence.get(child, ())]
        for digest, reason in behind:
            if digest not in kept and digest in state.artifacts:
                kept[digest] = Kept(reason=reason, detail=child[:SHORT])
                waiting.append(digest)
    return kept


def kept_logs(state: State, kept: Iterable[Digest], since: str) -> frozenset[Digest]:
    """The logs of what is kept, and of runs that ended at or after `since` (RFC 3339 UTC)."""
    wanted = set(kept)
    return frozenset(
        run.log
        for run in state.runs.values()
        if run.log is not None
        and (run.ended_ts >= since or not wanted.isdisjoint(run.outputs.values()))
    )


def releases_of(state: State) -> Mapping[Digest, Sequence[Digest]]:
    """Artifact -> the releases that it is, or was made into, in the order of their cuts."""
    found: defaultdict[Digest, list[Digest]] = defaultdict(list)
    for release in dict.fromkeys(release for release, _ in state.releases):
        for artifact in {release, *_parents(state, release)}:
            found[artifact].append(release)
    return found


def _roots(state: State, since: str) -> Iterator[tuple[Digest, Keep, str]]:
    for name, digest in state.tags.items():
        yield digest, Keep.TAGGED, name
    for release, plan in state.releases:
        yield release, Keep.RELEASED, release[:SHORT]
        yield plan, Keep.RELEASED, release[:SHORT]
        yield state.recipe(plan).policy, Keep.RELEASED, release[:SHORT]
    for run in state.running():
        for digest in _held_by(run):
            yield digest, Keep.RUNNING, run.key[:SHORT]
    for digest, plan in _asked_for(state, since):
        yield digest, Keep.ASKED_FOR, plan[:SHORT]
    for digest, publications in state.artifacts.items():
        latest = max(publications[-1].ts, state.restored_at.get(digest, ""))
        if latest >= since:
            yield digest, Keep.YOUNG, latest


def _held_by(run: Run) -> Iterable[Digest]:
    return (parent.digest for parent in run.started.inputs)


def _asked_for(state: State, since: str) -> Iterator[tuple[Digest, Digest]]:
    """(artifact, plan): recipe, policy and what fills the slots, of plans asked for lately."""
    at_work = {run.started.plan for run in state.running()}  # however long ago it was asked for
    lately = {
        p
        for p, asked in state.asked_at.items()
        if state.wants(p) and (asked >= since or p in at_work)
    }
    for plan in sorted(lately):
        yield plan, plan
        yield state.recipe(plan).policy, plan
    for (plan, _), run in state.filled.items():
        if plan in lately:
            for digest in state.runs[run].outputs.values():
                yield digest, plan


def _evidence(state: State) -> dict[Digest, list[Digest]]:
    """Artifact -> the reports and policies that it was judged by."""
    found: dict[Digest, list[Digest]] = {}
    for _, subject, evidence, policy in state.verdicts:
        found.setdefault(subject, []).extend((evidence, policy))
    return found


def _parents(state: State, digest: Digest) -> Iterator[Digest]:
    for found in state.artifacts.get(digest, ()):
        yield from (parent.digest for parent in found.fact.parents)
