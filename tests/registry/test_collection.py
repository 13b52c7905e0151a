"""What a garbage collection decides, what overtakes it, and that its totals are the whole store."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from stillhouse.registry.keeping.collection import Decision, decide
from stillhouse.registry.keeping.marking import Seen, Stock
from stillhouse.registry.keeping.summary import fates, kept_artifacts, orphans, totals
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.events import (
    ArtifactPublished,
    BytesCondemned,
    BytesReprieved,
    BytesSwept,
    Payload,
    RunRetried,
    TagMoved,
)
from stillhouse.schemas.moment import parse, spell

from .plan_world import NOW, World, digest

GRACE = timedelta(days=14)
LATER = parse(NOW) + timedelta(days=15)
AGES_AGO = Seen(10, 0)
"""Ten bytes, written or condemned long before the grace."""


def _world() -> tuple[World, Digest, Digest]:
    """Two artifacts: one that a tag keeps, and one that nothing does."""
    world = World()
    kept, loose = (world._publish(Kind.SOURCE, data) for data in (b"kept", b"loose"))
    world.record(TagMoved(name="mine", digest=kept))
    return world, kept, loose


def _stock(*placed: Digest, condemned: tuple[Digest, ...] = (), needs: Any = None) -> Stock:
    artifacts = (*placed, *condemned)
    return Stock(
        oldest_lease=None,
        held=frozenset(),
        needs={a: frozenset({a}) for a in artifacts} if needs is None else needs,
        remnants=frozenset(),
        placed=dict.fromkeys(placed, AGES_AGO),
        condemned=dict.fromkeys(condemned, AGES_AGO),
    )


def _decided(world: World, stock: Stock) -> Decision:
    return decide(world.state, stock, {}, at=LATER, grace=GRACE)


def _fates(found: Decision) -> dict[Digest, str]:
    return {each.digest: each.fate for each in fates(found)}


def test_what_nothing_keeps_is_condemned_then_waits_then_is_swept() -> None:
    world, kept, loose = _world()
    found = _decided(world, _stock(kept, loose))
    assert _fates(found) == {loose: "condemn"}
    (condemned,) = found.payloads()
    assert isinstance(condemned, BytesCondemned)
    assert (condemned.artifacts, condemned.size) == ((loose,), 10)
    assert condemned.until == spell(LATER + GRACE)
    world.record(condemned)
    waiting = _decided(world, _stock(kept, condemned=(loose,)))
    assert (_fates(waiting), waiting.payloads()) == ({loose: "condemned"}, ())
    world.state.condemned[loose] = spell(LATER)
    swept = _decided(world, _stock(kept, condemned=(loose,)))
    assert _fates(swept) == {loose: "sweep"}
    assert [type(each) for each in swept.payloads()] == [BytesSwept]


def test_what_is_condemned_and_kept_again_comes_back() -> None:
    world, kept, loose = _world()
    world.record(BytesCondemned(artifacts=(kept,), objects=1, size=10, until=spell(LATER)))
    found = _decided(world, _stock(loose, condemned=(kept,)))
    assert _fates(found)[kept] == "reprieve"
    assert found.marks.restored == {kept}
    assert isinstance(found.payloads()[0], BytesReprieved)


def test_a_decision_is_told_the_same_once_it_is_recorded() -> None:
    """The state goes on following the ledger while old folders are removed."""
    world, kept, loose = _world()
    found = _decided(world, _stock(kept, loose))
    world.record(*found.payloads())
    assert world.state.condemned
    assert _fates(found) == {loose: "condemn"}


def test_a_kept_folder_whose_list_can_not_be_read_stops_everything() -> None:
    world, kept, loose = _world()
    fault = IntegrityError("It is cut.", remedy="Mend it.", code="tree.malformed")
    stock = _stock(kept, loose)
    assert decide(world.state, stock, {loose: fault}, at=LATER, grace=GRACE).condemned == (loose,)
    with pytest.raises(IntegrityError) as caught:
        decide(world.state, stock, {kept: fault}, at=LATER, grace=GRACE)
    assert caught.value.code == "gc.unreadable_tree"


def _published(name: str, *parents: Digest) -> ArtifactPublished:
    return ArtifactPublished(
        digest=digest(name),
        kind=Kind.SOURCE,
        form="blob",
        size=1,
        origin="imported",
        parents=tuple(Parent(role="source", digest=parent) for parent in parents),
    )


def _overtakes(found: Decision, payload: Payload, *, touching: bool = False) -> bool:
    world = World()
    world.record(payload)
    (event,) = world.events
    return found.overtaken_by(event, lambda *_: touching)


def test_only_what_may_need_what_goes_overtakes_a_decision() -> None:
    world, kept, loose = _world()
    found = _decided(world, _stock(kept, loose))
    assert not _overtakes(found, TagMoved(name="a", digest=kept))
    assert not _overtakes(found, TagMoved(name="a", digest=digest("new")))
    assert not _overtakes(found, _published("new", kept))
    assert _overtakes(found, TagMoved(name="a", digest=loose))
    assert _overtakes(found, _published("loose again", loose))
    assert _overtakes(found, _published("new"), touching=True)
    assert _overtakes(found, RunRetried(run=digest("run")))


def test_thousands_are_told_in_several_events_and_their_totals_once() -> None:
    world, kept, _ = _world()
    many = {digest(f"orphan {n}") for n in range(1700)}
    stock = replace(_stock(kept), placed=dict.fromkeys((kept, *many), AGES_AGO))
    told = [each for each in _decided(world, stock).payloads() if isinstance(each, BytesCondemned)]
    assert [len(each.orphans) for each in told] == [800, 800, 100]
    assert [each.objects for each in told] == [1700, 0, 0]
    assert [each.size for each in told] == [17000, 0, 0]


def test_totals_count_every_byte_once_and_orphans_have_no_artifact() -> None:
    world, kept, loose = _world()
    common, orphan, waiting = digest("common"), digest("orphan"), digest("waiting")
    needs = {kept: frozenset({kept, common}), loose: frozenset({loose, common})}
    stock = _stock(kept, loose, common, orphan, condemned=(waiting,), needs=needs)
    found = _decided(world, replace(stock, oldest_lease=0))
    assert sum(each.bytes for each in totals(found)) == stock.size(stock.objects)
    reasons = {each.reason: (each.artifacts, each.bytes) for each in totals(found)}
    assert reasons["kept: a tag names it"] == (1, 20)
    assert reasons["condemned now"] == (1, 20)
    assert reasons["condemned before"] == (0, 10)
    assert [each.digest for each in orphans(found, found.marks.doomed)] == [orphan]
    (only,) = kept_artifacts(found)
    assert (only.digest, only.bytes, only.reason) == (kept, 20, "tagged")
    assert only.why == "a tag names it: mine"
