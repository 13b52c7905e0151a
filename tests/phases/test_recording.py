"""What a run hands on unchanged was not made by it: nothing comes from itself."""

from __future__ import annotations

from stillhouse.phases.reactor import recording
from stillhouse.phases.workers.job import Failure, Outcome
from stillhouse.registry.state.runs import Run
from stillhouse.registry.state.state import State
from stillhouse.schemas.artifact import Kind, Parent, Product
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.event import GENESIS, Actor, Event
from stillhouse.schemas.events import ArtifactPublished, RunFailed, RunStarted, RunSucceeded
from stillhouse.store.disk.hashing import hash_bytes

GIVEN = hash_bytes(b"weights").digest
MADE = hash_bytes(b"rows").digest


def _state() -> State:
    fact = ArtifactPublished(
        digest=GIVEN, kind=Kind.TEACHER, form="tree", size=1, origin="imported"
    )
    event = Event(
        seq=1,
        prev=GENESIS,
        ts="2026-11-22T10:00:00.000000Z",
        type=fact.TYPE,
        v=1,
        actor=Actor(user="u", host="h"),
        batch="1/1",
        data=fact.to_json(),
    )
    return State().apply_all([event])


def _run() -> Run:
    started = RunStarted(
        run=hash_bytes(b"key").digest,
        phase="dataset",
        phase_version=1,
        plan=hash_bytes(b"plan").digest,
        slot="dataset",
        attempt=1,
        inputs=(Parent(role="teacher", digest=GIVEN),),
        params={},
        tools={},
    )
    return Run(key=started.run, started=started, attempts=1, seq=2, started_seq=2, ts="")


def _ended(handed_on_as: Kind) -> tuple[list[ArtifactPublished], RunSucceeded]:
    products = tuple(
        Product(role=role, kind=kind, digest=digest, form="tree", size=1)
        for role, kind, digest in (
            ("dataset", Kind.DATASET, MADE),
            ("teacher_model", handed_on_as, GIVEN),
        )
    )
    run = _run()
    outcome = Outcome(run=run.key, attempt=1, status="succeeded", products=products, seconds=1.0)
    *made, success = recording.ended(_state(), run, outcome, None)
    assert isinstance(success, RunSucceeded)
    assert all(isinstance(one, ArtifactPublished) for one in made)
    return [one for one in made if isinstance(one, ArtifactPublished)], success


def test_an_input_that_is_handed_on_fills_its_role_and_is_not_published_again() -> None:
    made, success = _ended(Kind.TEACHER)
    assert [one.digest for one in made] == [MADE]
    assert {o.role: o.digest for o in success.outputs} == {"dataset": MADE, "teacher_model": GIVEN}


def test_handed_on_as_another_kind_it_is_published_without_itself_as_a_parent() -> None:
    made, _ = _ended(Kind.CHECKPOINT)
    (_, other) = made
    assert (other.digest, other.kind, other.parents) == (GIVEN, Kind.CHECKPOINT, ())
    assert [p.digest for p in made[0].parents] == [GIVEN]


def test_a_start_without_ground_is_a_run_that_failed_before_its_worker() -> None:
    start = _run().started
    error = IntegrityError("No event published it.", remedy="Check.", code="manifest.unknown")
    told, failed = recording.refused(start, Failure.model_validate(error.as_dict()))
    assert told == start
    assert isinstance(failed, RunFailed)
    assert (failed.code, failed.message, failed.remedy) == (error.code, error.message, error.remedy)
    assert (failed.run, failed.attempt, failed.seconds) == (start.run, 1, 0.0)
    bare, again = recording.unstartable(start.model_copy(update={"params": {"a": 1}}), "too long.")
    assert isinstance(bare, RunStarted)
    assert (bare.params, again.TYPE) == ({}, RunFailed.TYPE)
