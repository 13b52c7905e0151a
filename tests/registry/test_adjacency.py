"""The adjacency index as bytes: how it grows, and how its file is replaced."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.registry.ledger import format as chain
from stillhouse.registry.ledger.format import START, Line
from stillhouse.registry.lineage import index as adjacency
from stillhouse.registry.lineage.gather import Gatherer
from stillhouse.registry.lineage.index import DamagedError, Image
from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.schemas.event import GENESIS, Actor, Event
from stillhouse.schemas.events import ArtifactPublished, TagMoved

KINDS = ("dataset", "report", "checkpoint")


def digest(number: int) -> str:
    return f"{(number * 7919) % 9973:08x}" * 8


def lines_of(datas: list[tuple[str, dict[str, Any]]], v: int = 1) -> list[Line]:
    """A ledger of these events, in memory."""
    block, prev = b"", GENESIS
    for seq, (kind, data) in enumerate(datas, start=1):
        event = Event(
            seq=seq,
            prev=prev,
            ts="2026-11-22T10:00:00.000000Z",
            type=kind,
            v=v,
            actor=Actor(user="ada", host="h"),
            batch="1/1",
            data=data,
        )
        line, prev = chain.encode_line(event)
        block += line
    found = chain.scan(block, START)
    assert found.fault is None
    return found.complete


def published(of: int, *parents: tuple[int, str], kind: str = "dataset") -> dict[str, Any]:
    return {
        "digest": digest(of),
        "kind": kind,
        "form": "blob",
        "size": 1,
        "origin": "imported",
        "parents": [
            {"role": role, "digest": digest(p), "circumstance": role == "c"} for p, role in parents
        ],
    }


def grown(image: Image, lines: list[Line]) -> bytes:
    gatherer = Gatherer(image)
    gatherer.take(lines)
    return adjacency.grown(image, gatherer.growth, lines[-1].after)


EVENTS = st.lists(
    st.one_of(
        st.builds(
            lambda of, parents, kind: (
                ArtifactPublished.TYPE,
                published(of, *parents, kind=kind),
            ),
            st.integers(0, 30),
            st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), max_size=4),
            st.sampled_from(KINDS),
        ),
        st.builds(
            lambda name, of: (TagMoved.TYPE, {"name": name, "digest": digest(of)}),
            st.sampled_from(["t", "u"]),
            st.integers(0, 30),
        ),
        st.just(("something.new", {"digest": 3})),
    ),
    min_size=1,
    max_size=40,
)


@given(EVENTS, st.sets(st.integers(1, 39)))
@settings(max_examples=120, deadline=None)
def test_an_index_that_grew_in_steps_is_the_one_built_at_once(
    events: list[tuple[str, dict[str, Any]]], cuts: set[int]
) -> None:
    lines = lines_of(events)
    image = adjacency.empty()
    ends = [*sorted(cut for cut in cuts if cut < len(lines)), len(lines)]
    for begin, end in zip([0, *ends], ends, strict=False):
        image = Image(grown(image, lines[begin:end]))
    at_once = grown(adjacency.empty(), lines)
    stepwise = adjacency.empty()
    for line in lines:
        stepwise = Image(grown(stepwise, [line]))
    assert image.position == stepwise.position == lines[-1].after
    assert parts(image) == parts(stepwise) == parts(Image(at_once))


def parts(image: Image) -> list[Any]:
    sides = [bytes(numbers) for side in (image.up, image.down) for numbers in vars(side).values()]
    ranked = [image.digest(node) for node in image.order]
    assert ranked == sorted(ranked)
    assert all(image.find(image.digest(node)) == node for node in range(image.nodes))
    return [sides, bytes(image.digests), bytes(image.places), bytes(image.kinds), image.names]


def test_a_publication_of_another_form_is_told_like_everywhere_else() -> None:
    bad = published(1) | {"kind": "novel"}
    with pytest.raises(IntegrityError, match="does not have the form"):
        Gatherer(adjacency.empty()).take(lines_of([(ArtifactPublished.TYPE, bad)]))
    short = published(1) | {"digest": "ab"}
    with pytest.raises(IntegrityError, match="does not have the form"):
        Gatherer(adjacency.empty()).take(lines_of([(ArtifactPublished.TYPE, short)]))
    with pytest.raises(InputError, match="Upgrade"):
        Gatherer(adjacency.empty()).take(lines_of([(ArtifactPublished.TYPE, published(1))], v=2))


def test_fields_that_were_left_out_have_their_defaults() -> None:
    bare = {k: v for k, v in published(1).items() if k != "parents"}
    lone = published(2) | {"parents": [{"role": "a", "digest": digest(1)}]}
    events = [(ArtifactPublished.TYPE, bare), (ArtifactPublished.TYPE, lone)]
    image = Image(grown(adjacency.empty(), lines_of(events)))
    assert [*image.up.target] == [0]
    assert image.names.labels == [("a", False)]


def test_a_file_that_is_no_index_is_damaged(tmp_path: Path) -> None:
    for name, data in (("none", None), ("empty", b""), ("short", b"stillidx"), ("x", b"x" * 999)):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(DamagedError):
            adjacency.opened(tmp_path / name)


def test_whoever_is_killed_while_keeping_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "lineage.idx"
    events = [(ArtifactPublished.TYPE, published(n, (n - 1, "a"))) for n in range(300)]
    images = [grown(adjacency.empty(), lines_of(events[:size])) for size in (1, 150, 300)]
    assert adjacency.keep(path, images[0])
    alive = [spawn(path, images) for _ in range(3)]
    try:
        for _ in range(40):
            time.sleep(random.random() * 0.01)
            os.kill(alive[0], signal.SIGKILL)
            os.waitpid(alive.pop(0), 0)
            alive.append(spawn(path, images))
            assert path.read_bytes() in images
    finally:
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert adjacency.keep(path, images[2])
    assert path.read_bytes() == images[2]


def spawn(path: Path, images: list[bytes]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        while True:
            adjacency.keep(path, random.choice(images))
    finally:  # a forked child must never return into its parent's code
        os._exit(1)
