"""Where two things begin to differ: what is the cause, what followed, over any history."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.registry.compare import origins
from stillhouse.registry.compare.comparison import compare
from stillhouse.registry.compare.subjects import Subject, find_subject
from stillhouse.registry.state.state import State
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.event import GENESIS, Actor, Event
from stillhouse.schemas.events import ArtifactPublished, Payload, RunStarted, RunSucceeded

NOW = "2026-11-22T11:00:00.000000Z"


def key(number: int) -> str:
    return f"{number:02x}" * 32


def folded(payloads: list[Payload]) -> State:
    return State().apply_all(
        Event(
            seq=seq,
            prev=GENESIS,
            ts="2026-11-22T10:00:00.000000Z",
            type=payload.TYPE,
            v=payload.VERSION,
            actor=Actor(user="ada", host="h"),
            batch="1/1",
            data=payload.to_json(),
        )
        for seq, payload in enumerate(payloads, start=1)
    )


def run(number: int, inputs: list[tuple[str, int]], **more: Any) -> list[Payload]:
    """A run that made the artifact of its own number."""
    parents = tuple(Parent(role=role, digest=key(of)) for role, of in inputs)
    common: dict[str, Any] = {
        "run": key(100 + number),
        "phase": "p",
        "plan": key(99),
        "slot": "p",
        "attempt": 1,
    }
    started: dict[str, Any] = {"phase_version": 1, "params": {}, "tools": {}}
    fact = ArtifactPublished(
        digest=key(number),
        kind=Kind.DATASET,
        form="blob",
        size=1,
        origin="run",
        run=key(100 + number),
        role="made",
        parents=parents,
    )
    outputs = (Parent(role="made", digest=key(number)),)
    return [
        RunStarted(**common, inputs=parents, **started | more),
        fact,
        RunSucceeded(**common, outputs=outputs, seconds=1),
    ]


def source(number: int) -> list[Payload]:
    return [
        ArtifactPublished(
            digest=key(number), kind=Kind.SOURCE, form="blob", size=1, origin="imported"
        )
    ]


def walked(state: State, one: int, other: int) -> origins.Walk:
    return origins.walk(state, Subject(digest=key(one)), Subject(digest=key(other)))


def told(changes: list[origins.Change]) -> list[tuple[Any, ...]]:
    return [(c.path, c.what, c.name, c.before, c.after) for c in changes]


def test_causes_come_nearest_first_and_equal_inputs_are_not_entered() -> None:
    state = folded(
        [
            *source(1),
            *source(2),
            *source(3),
            *run(11, [("a", 1), ("b", 3)], tools={"torch": "1"}),
            *run(12, [("a", 2), ("b", 3)], tools={"torch": "2"}),
            *run(21, [("x", 11), ("y", 3)], params={"n": {"k": 1, "l": 5}}),
            *run(22, [("x", 12), ("y", 3)], params={"n": {"k": 2, "l": 5}}, phase_version=2),
        ]
    )
    found = walked(state, 21, 22)
    assert told(found.causes) == [
        ((), "phase", "version", "1", "2"),
        ((), "parameter", "n.k", "1", "2"),
        (("x",), "tool", "torch", "1", "2"),
        (("x", "a"), "content", "source", key(1), key(2)),
    ]
    assert told(found.consequences) == [(("x",), "input", "x", key(11), key(12))]


def test_inputs_of_one_role_are_paired_without_those_that_both_have() -> None:
    state = folded(
        [
            *[payload for n in range(1, 6) for payload in source(n)],
            *run(11, [("s", 1), ("s", 2), ("s", 3)]),
            *run(12, [("s", 3), ("s", 1), ("s", 4), ("s", 5)]),
        ]
    )
    assert told(walked(state, 11, 12).causes) == [
        ((), "input", "s", "absent", key(5)),
        (("s",), "content", "source", key(2), key(4)),
    ]


def test_what_was_imported_on_one_side_only_is_the_cause() -> None:
    state = folded(
        [*source(1), *source(9), *run(2, [("s", 9)]), *run(3, [("x", 1)]), *run(4, [("x", 2)])]
    )
    assert told(walked(state, 3, 4).causes) == [(("x",), "origin", "", "imported", "run of p")]


HISTORY = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), max_size=3),
        st.integers(0, 2),
    ),
    min_size=2,
    max_size=9,
)


@given(HISTORY)
@settings(max_examples=150, deadline=None)
def test_there_is_a_cause_exactly_when_two_things_differ_and_it_reads_backwards(
    history: list[tuple[list[tuple[str, int]], int]],
) -> None:
    payloads = source(0)
    for number, (inputs, steps) in enumerate(history, start=1):
        behind = [(role, of % number) for role, of in inputs]
        payloads += run(number, behind, params={"steps": steps})
    state = folded(payloads)
    last = len(history)
    for other in range(last + 1):
        forth, back = walked(state, other, last), walked(state, last, other)
        assert bool(forth.causes) == (other != last)
        swapped = {(c.path, c.what, c.name, c.after, c.before) for c in forth.causes}
        assert swapped == {(c.path, c.what, c.name, c.before, c.after) for c in back.causes}
        distances = [c.distance for c in forth.causes]
        assert distances == sorted(distances)


# -- what is compared ---------------------------------------------------------------------------


def test_an_artifact_is_meant_before_a_run_whose_key_begins_alike() -> None:
    state = folded([*source(0), *run(1, [("s", 0)]), *source(101)])
    assert key(101) in state.runs, "the run and the artifact of that number have one name"
    assert find_subject(state, key(101)[:6]) == Subject(digest=key(101))
    without = folded([*source(0), *run(1, [("s", 0)])])
    assert find_subject(without, key(101)[:6]).run == without.runs[key(101)]


def test_a_run_and_an_artifact_are_not_compared() -> None:
    state = folded([*source(0), *run(1, [("s", 0)])])
    with pytest.raises(InputError, match="one is a run") as refused:
        compare(state, key(101), key(1), NOW)
    assert refused.value.code == "diff.unlike"
    assert compare(state, key(101), key(101), NOW).identical
