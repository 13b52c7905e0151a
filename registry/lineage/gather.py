"""What the ledger says about lineage: from verified lines to nodes and arrows. Opens nothing.

Rules: a line is read without building its models, since a rebuild reads millions. A line without
the plain form of its event goes to `payload_of`, which upcasts it or says what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

from pydantic_core import from_json

from stillhouse.registry.ledger.format import Line
from stillhouse.registry.lineage.index import NOWHERE, Growth, Image, Names
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.events import ArtifactPublished, TagMoved
from stillhouse.schemas.upcast import payload_of

T = TypeVar("T")

_KINDS = frozenset(str(kind) for kind in Kind)
_DIGEST = 32


class Mention(NamedTuple):
    """One publication, as far as lineage goes."""

    digest: bytes
    kind: str
    name: str | None
    parents: list[tuple[bytes, str, bool]]
    """(digest, role, circumstance)."""


def mention(line: Line) -> Mention | None:
    """What a line publishes; None when it is another event.

    Raises what `payload_of` raises.
    """
    if line.type != ArtifactPublished.TYPE:
        return None
    if ArtifactPublished.reads(line.v):
        try:
            return _plain(from_json(line.body)["data"])
        except (KeyError, TypeError, ValueError):
            pass  # not of the plain form: `payload_of` says why
    fact = payload_of(line.event())
    assert isinstance(fact, ArtifactPublished)  # noqa: S101  # its type was looked at
    return _plain(fact.to_json())


def _plain(data: dict[str, Any]) -> Mention:
    """Raises KeyError, TypeError or ValueError for data of another form."""
    kind, parents = data["kind"], data["parents"]
    if kind not in _KINDS:
        raise ValueError(kind)
    return Mention(
        _bytes(data["digest"]),
        kind,
        data.get("name"),
        [(_bytes(p["digest"]), p["role"], p["circumstance"]) for p in parents],
    )


def _bytes(digest: str) -> bytes:
    found = bytes.fromhex(digest)
    if len(found) != _DIGEST:
        raise ValueError(digest)
    return found


class Gatherer:
    """Takes lines in, and holds what they add to an image."""

    def __init__(self, image: Image) -> None:
        """Raises DamagedError."""
        self._image = image
        known = image.names
        names = Names(
            kinds=[*known.kinds],
            labels=[*known.labels],
            latest={**known.latest},
            tags={**known.tags},
            bare={*known.bare},
        )
        self.growth = Growth(first=image.nodes, names=names)
        self._nodes: dict[bytes, int] = {}
        """Nodes of the image that were named again."""
        self._kinds = {kind: place for place, kind in enumerate(names.kinds)}
        self._labels = {label: place for place, label in enumerate(names.labels)}

    def take(self, lines: Iterable[Line]) -> None:
        """Take in what comes next. Raises what `mention` raises, and DamagedError."""
        for line in lines:
            if line.type == TagMoved.TYPE:
                fact = payload_of(line.event())
                assert isinstance(fact, TagMoved)  # noqa: S101  # its type was looked at
                self.growth.names.tags[fact.name] = fact.digest
            elif said := mention(line):
                self._publish(said, line.offset)

    def _publish(self, said: Mention, place: int) -> None:
        growth = self.growth
        node = self._node(said.digest)
        self._settle(node, place, _number(self._kinds, growth.names.kinds, said.kind))
        growth.names.latest[said.kind] = node
        for digest, role, circumstance in said.parents:
            growth.children.append(node)
            growth.parents.append(self._node(digest))
            label = _number(self._labels, growth.names.labels, (role, circumstance))
            growth.labels.append(label)

    def _node(self, digest: bytes) -> int:
        growth = self.growth
        known = growth.nodes.get(digest)
        if known is None:
            known = self._nodes.get(digest)
        if known is None:
            known = self._image.find(digest)
            if known is None:
                known = growth.nodes[digest] = growth.total
                growth.places.append(NOWHERE)
                growth.kinds.append(0)
                growth.names.bare.add(known)
            else:
                self._nodes[digest] = known
        return known

    def _settle(self, node: int, place: int, kind: int) -> None:
        """Note where a node was first published, unless it was before."""
        growth = self.growth
        if node not in growth.names.bare:
            return
        growth.names.bare.remove(node)
        if node >= growth.first:
            growth.places[node - growth.first], growth.kinds[node - growth.first] = place, kind
        else:
            growth.settled[node] = place, kind


def _number(known: dict[T, int], words: list[T], word: T) -> int:
    """The place of a word in a list, where it is put if it is new."""
    number = known.get(word)
    if number is None:
        number = known[word] = len(words)
        words.append(word)
    return number
