"""Lineage: everything that shaped an artifact, everything that it shaped, and the way between two.

Answers come from the adjacency index (`lineage.idx`), together with what the ledger holds beyond
it. That part is read when a Lineage is made. Once it is much, the index is written again.

Rules: an index is used only while the ledger still holds the very event that it was made up to. An
index that does not check is built again from the ledger, silently, and the question is asked again.
Nodes are numbers that stay the same when that happens (see registry/lineage/index.py). So answers
are given as nodes, and only what is shown is looked up: the digest in the index, the rest in the
log.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

from stillhouse.registry.ledger import file as logfile
from stillhouse.registry.ledger import format as chain
from stillhouse.registry.ledger.format import Line
from stillhouse.registry.ledger.ledger import LedgerReader
from stillhouse.registry.lineage import index as adjacency
from stillhouse.registry.lineage.gather import Gatherer, mention
from stillhouse.registry.lineage.index import DamagedError, Growth, Image
from stillhouse.registry.lineage.walks import Paths, Step, shortest
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest

Way = Literal["up", "down"]
"""`up`: to what shaped it. `down`: to what it shaped."""

T = TypeVar("T")

_TAIL = 4096
"""Events beyond the index that are read each time rather than written into it …"""
_SHARE = 128
"""… or as many as the covered ones divided by this, if that is more: writing costs a pass."""
_SHORTEST = 4
"""Characters of a digest prefix that name anything."""
_DIGITS = 64
_LATEST = "@latest"
_HEX = re.compile(r"[0-9a-f]+")
_LINE = 4096
"""Bytes of the log that are read at first for one event; most are shorter."""


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """One step of lineage, seen from one of its ends."""

    node: int
    """The artifact at the other end."""
    role: str
    """What the parent of the two was for."""
    circumstance: bool
    """True: recorded, but it shaped no result."""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """The first publication of a node, as far as it is shown."""

    digest: Digest
    kind: Kind
    name: str | None
    seq: int
    ts: str


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """A shortest way from one artifact to another."""

    way: Way
    """`up`: the other one shaped the first. `down`: the first shaped the other one."""
    arrows: tuple[Arrow, ...]
    """From the first to the other one; none when they are the same."""


class Lineage:
    """The lineage of one ledger, as it was when this was made."""

    def __init__(self, log: Path, index: Path) -> None:
        """Open the index, and read what the ledger holds beyond it.

        Raises IntegrityError or InputError for a ledger that can not be read.
        """
        self._log = log
        self._index = index
        self._graph = self._opened()

    def resolve(self, text: str) -> Digest | None:
        """The artifact that a digest prefix, a tag or `kind@latest` names; None unless it is one.

        `resolve_reference`, which needs the folded state, says why it is none.
        """
        return self._ask(lambda graph: graph.resolve(text))

    def node(self, digest: Digest) -> int:
        """The node of a published artifact. Raises KeyError."""
        node = self._ask(lambda graph: graph.find(bytes.fromhex(digest)))
        if node is None:
            raise KeyError(digest)
        return node

    def digest(self, node: int) -> Digest:
        """Its digest."""
        return self._ask(lambda graph: graph.digest(node).hex())

    def arrows(self, node: int, way: Way) -> tuple[Arrow, ...]:
        """One step in one direction, each arrow once, in the order in which they were recorded."""
        return self._ask(lambda graph: graph.arrows(node, way))

    def levels(self, node: int, way: Way, depth: int | None = None) -> list[list[int]]:
        """The closure: the artifact itself, then those one step away, two steps, … up to `depth`.

        Each artifact is in the level of the shortest way to it; in a level, older ones first.
        """
        return self._ask(lambda graph: graph.levels(node, way, depth))

    def derivation(
        self, node: int, other: int, *, circumstances: bool = False
    ) -> Derivation | None:
        """A shortest way between two artifacts, in whichever direction there is one.

        circumstances: count what was recorded beside a run as having shaped its results.
        """
        ends: tuple[tuple[Way, int, int], ...] = (("up", node, other), ("down", other, node))
        for way, below, above in ends:
            found = self._ask(
                partial(_Graph.way_up, below=below, above=above, circumstances=circumstances)
            )
            if found is not None:
                arrows = found if way == "up" else turned(found, below)
                return Derivation(way=way, arrows=arrows)
        return None

    def publication(self, node: int) -> Publication:
        """What the ledger says of a node where it was first published."""
        return self._ask(lambda graph: self._published(graph, node))

    def _ask(self, question: Callable[[_Graph], T]) -> T:
        try:
            return question(self._graph)
        except DamagedError:
            self._graph = self._caught_up(adjacency.empty())
            return question(self._graph)

    def _opened(self) -> _Graph:
        try:
            return self._caught_up(self._kept())
        except DamagedError:
            return self._caught_up(adjacency.empty())

    def _kept(self) -> Image:
        """The index as it lies there. Raises DamagedError when it is not one of this ledger."""
        image = adjacency.opened(self._index)
        if logfile.hash_before(self._fd, image.position.offset) != image.position.hash:
            raise DamagedError("of another ledger")
        return image

    def _caught_up(self, image: Image) -> _Graph:
        """The image with what the ledger holds beyond it; written again if that is much."""
        reader = LedgerReader(self._log, image.position)
        gatherer = Gatherer(image)
        for lines in reader.chunks():
            gatherer.take(lines)
        seen = reader.position.seq - image.position.seq
        if seen <= max(_TAIL, image.position.seq // _SHARE):
            return _Graph(image, gatherer.growth)
        data = adjacency.grown(image, gatherer.growth, reader.position)
        adjacency.keep(self._index, data)
        image = Image(data)
        return _Graph(image, Gatherer(image).growth)

    @cached_property
    def _fd(self) -> int:
        """The ledger, open for as long as this lives. Raises DamagedError when there is none."""
        try:
            fd = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DamagedError("no ledger") from error
        weakref.finalize(self, os.close, fd)
        return fd

    def _published(self, graph: _Graph, node: int) -> Publication:
        line = self._line(graph.place(node))
        said = mention(line)
        if said is None or said.digest != graph.digest(node):
            raise DamagedError("another event stands there")
        return Publication(
            digest=said.digest.hex(), kind=Kind(said.kind), name=said.name, seq=line.seq, ts=line.ts
        )

    def _line(self, place: int) -> Line:
        """The verified line that begins there. Raises DamagedError when none does."""
        length = _LINE
        while (end := (block := os.pread(self._fd, length, place)).find(b"\n")) < 0:
            if len(block) < length:
                raise DamagedError("beyond the ledger")
            length *= 4
        found = chain.scan_middle(block[: end + 1], place)
        if found.fault:
            raise DamagedError("no event begins there") from found.fault
        return (found.complete + found.torn)[0]


class _Graph:
    """An image and what came after it, as one. Raises DamagedError wherever the image does."""

    def __init__(self, image: Image, growth: Growth) -> None:
        self._image = image
        self._growth = growth
        self._names = growth.names

    @cached_property
    def _up(self) -> Paths:
        growth = self._growth
        return Paths(self._image.up, growth.total, growth.children, growth.parents, growth.labels)

    @cached_property
    def _down(self) -> Paths:
        growth = self._growth
        return Paths(self._image.down, growth.total, growth.parents, growth.children, growth.labels)

    def find(self, digest: bytes) -> int | None:
        """The node of a published digest."""
        node = self._growth.nodes.get(digest)
        if node is None:
            node = self._image.find(digest)
        return None if node in self._names.bare else node

    def digest(self, node: int) -> bytes:
        first = self._growth.first
        return self._image.digest(node) if node < first else self._fresh[node - first]

    @cached_property
    def _fresh(self) -> list[bytes]:
        return list(self._growth.nodes)

    def place(self, node: int) -> int:
        """Where in the log its first publication begins."""
        first = self._growth.first
        if node >= first:
            return self._growth.places[node - first]
        settled = self._growth.settled.get(node)
        return settled[0] if settled else self._image.places[node]

    def resolve(self, text: str) -> Digest | None:
        if text.endswith(_LATEST):
            node = self._names.latest.get(text.removesuffix(_LATEST))
            return None if node is None else self.digest(node).hex()
        if text in self._names.tags:
            return self._names.tags[text]
        if not _HEX.fullmatch(text) or not _SHORTEST <= len(text) <= _DIGITS:
            return None
        found = list(islice(self._beginning(text), 2))
        return self.digest(found[0]).hex() if len(found) == 1 else None

    def _beginning(self, text: str) -> Iterator[int]:
        """Published nodes whose digest begins with `text`."""
        image = self._image
        for rank in range(image.rank(bytes.fromhex(text.ljust(_DIGITS, "0"))), image.nodes):
            node = image.order[rank]
            if not image.digest(node).hex().startswith(text):
                break
            if node not in self._names.bare:
                yield node
        for digest, node in self._growth.nodes.items():
            if digest.hex().startswith(text) and node not in self._names.bare:
                yield node

    def arrows(self, node: int, way: Way) -> tuple[Arrow, ...]:
        paths = self._up if way == "up" else self._down
        steps = dict.fromkeys(paths.steps(node))
        return tuple(self._arrow(step) for step in steps if step.node not in self._names.bare)

    def levels(self, node: int, way: Way, depth: int | None) -> list[list[int]]:
        paths = self._up if way == "up" else self._down
        stop = None if depth is None else depth + 1
        return list(islice(paths.levels(node, self._names.bare), stop))

    def way_up(self, *, below: int, above: int, circumstances: bool) -> tuple[Arrow, ...] | None:
        labels = self._names.labels
        found = shortest(
            below,
            above,
            self._up,
            self._down,
            lambda step: circumstances or not labels[step.label][1],
        )
        return None if found is None else tuple(self._arrow(step) for step in found)

    def _arrow(self, step: Step) -> Arrow:
        role, circumstance = self._names.labels[step.label]
        return Arrow(node=step.node, role=role, circumstance=circumstance)


def turned(arrows: tuple[Arrow, ...], start: int) -> tuple[Arrow, ...]:
    """The same way from its other end: each arrow with the node that it came from."""
    sources = [start, *(arrow.node for arrow in arrows)]
    pairs = zip(sources, arrows, strict=False)
    return tuple(replace(arrow, node=source) for source, arrow in [*pairs][::-1])
