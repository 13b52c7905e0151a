"""The form of `lineage.idx`: every artifact and every arrow of a stretch of the ledger, as arrays.

    header    magic, version, byte order, the place in the ledger that it covers (seq, offset,
              hash), counts, each section's length and CRC-32, and a CRC-32 of all that
    digests   32 bytes a node        places   byte of events.log where its first publication begins
    kinds     1 byte a node          order    nodes sorted by digest, for binary search
    up        start (nodes + 1 numbers), target, label: what shaped each node;
              start[n] .. start[n + 1] are the arrows of n
    down      the same arrows the other way round
    names     JSON: kinds, labels (role, circumstance), the latest of each kind, tags

A node is a digest that some publication names, as its own or as a parent's. Nodes are numbered from
0 in the order of first mention. So a node keeps its number for ever, whichever events follow and
however often the file is rebuilt. Numbers are native, unsigned, 32 bits wide (places: 64).

Rules: derived from the ledger, never trusted beyond it. The header is checked when the file is
opened, a section when it is first used. What does not check is `DamagedError`, and the remedy is
always to build it again. Keeping the file is best effort: without it answers only take longer.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, repeat
from operator import add
from pathlib import Path
from typing import Any, Literal, TypeAlias

from stillhouse.registry.ledger.format import START, Position
from stillhouse.store.disk import locks

NOWHERE = 2**64 - 1
"""The place of a node that was only named as a parent, and never published."""

_DIGEST = 32
_MAGIC = b"stillidx"
_VERSION = 1
_ORDER_MARK = 0x01020304
_FIXED = struct.Struct("=8sIIQQ64sQQ")
_SECTION = struct.Struct("=QI")
_CRC = struct.Struct("=I")
_ALIGN = 8
_ITEMS: Mapping[str, Literal["B", "I", "Q"]] = {
    "digests": "B",
    "places": "Q",
    "kinds": "B",
    "order": "I",
    "up_start": "I",
    "up_target": "I",
    "up_label": "I",
    "down_start": "I",
    "down_target": "I",
    "down_label": "I",
    "names": "B",
}
"""Section -> the type of its items, in the order in which they stand in the file."""
_HEADER = _FIXED.size + len(_ITEMS) * _SECTION.size + _CRC.size

Numbers: TypeAlias = "memoryview | array[int]"


class DamagedError(Exception):
    """The bytes are no index of this version, or not those that were written."""


@dataclass(kw_only=True)
class Names:
    """What is few: words that nodes and arrows refer to by number, and names of nodes."""

    kinds: list[str] = field(default_factory=list)
    labels: list[tuple[str, bool]] = field(default_factory=list)
    """(role, circumstance)."""
    latest: dict[str, int] = field(default_factory=dict)
    """Kind -> the node that was published last as one."""
    tags: dict[str, str] = field(default_factory=dict)
    """Tag -> digest."""
    bare: set[int] = field(default_factory=set)
    """Nodes that were named as parents, and never published."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """Every arrow of an image, in one direction."""

    start: Numbers
    target: Numbers
    label: Numbers


@dataclass(kw_only=True)
class Growth:
    """Nodes and arrows that come after an image, in the order of the ledger."""

    first: int
    """The number of its first new node."""
    names: Names
    """Those of the image, and what came after."""
    nodes: dict[bytes, int] = field(default_factory=dict)
    """New digests -> their numbers, ascending."""
    places: array[int] = field(default_factory=lambda: array("Q"))
    kinds: bytearray = field(default_factory=bytearray)
    """Place and kind of each new node …"""
    settled: dict[int, tuple[int, int]] = field(default_factory=dict)
    """… and of nodes of the image that were published only now."""
    children: array[int] = field(default_factory=lambda: array("I"))
    parents: array[int] = field(default_factory=lambda: array("I"))
    labels: array[int] = field(default_factory=lambda: array("I"))
    """New arrows."""

    @property
    def total(self) -> int:
        """How many nodes there are, with those of the image."""
        return self.first + len(self.nodes)


class Image:
    """One index, as bytes in memory or mapped from a file. Immutable."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        """Raises DamagedError when the header does not check, or the length is another."""
        head = data[:_HEADER]
        if len(head) < _HEADER or _CRC.pack(zlib.crc32(head[: -_CRC.size])) != head[-_CRC.size :]:
            raise DamagedError("header")
        magic, version, mark, seq, offset, digest, self.nodes, self.arrows = _FIXED.unpack_from(
            head
        )
        if (magic, version, mark) != (_MAGIC, _VERSION, _ORDER_MARK):
            raise DamagedError("version")
        self.position = Position(seq=seq, hash=digest.decode("ascii"), offset=offset)
        self._data = memoryview(data)
        self._sections: dict[str, tuple[int, int, int]] = {}
        end = _HEADER
        for place, name in enumerate(_ITEMS):
            length, crc = _SECTION.unpack_from(head, _FIXED.size + place * _SECTION.size)
            begin = _aligned(end)
            end = begin + length
            self._sections[name] = begin, end, crc
        if end != len(data):
            raise DamagedError("length")

    @cached_property
    def up(self) -> Side:
        """From each node to what shaped it. Raises DamagedError, as all below do."""
        return self._side("up")

    @cached_property
    def down(self) -> Side:
        """From each node to what it shaped."""
        return self._side("down")

    @cached_property
    def places(self) -> memoryview:
        """Where in the ledger each node's first publication begins, in bytes."""
        return self._section("places")

    @cached_property
    def kinds(self) -> memoryview:
        """Each node's kind, as a place in `names.kinds`."""
        return self._section("kinds")

    @cached_property
    def names(self) -> Names:
        """The words."""
        found: dict[str, Any] = json.loads(bytes(self._section("names")))
        return Names(
            kinds=found["kinds"],
            labels=[(role, circumstance) for role, circumstance in found["labels"]],
            latest=found["latest"],
            tags=found["tags"],
            bare=set(found["bare"]),
        )

    @cached_property
    def digests(self) -> memoryview:
        """32 bytes for each node."""
        return self._section("digests")

    @cached_property
    def order(self) -> memoryview:
        """Nodes, sorted by digest."""
        return self._section("order")

    def digest(self, node: int) -> bytes:
        """A node's digest."""
        return bytes(self.digests[node * _DIGEST : (node + 1) * _DIGEST])

    def find(self, digest: bytes) -> int | None:
        """The node of a digest."""
        rank = self.rank(digest)
        if rank < self.nodes and self.digest(self.order[rank]) == digest:
            return int(self.order[rank])
        return None

    def rank(self, digest: bytes) -> int:
        """How many nodes have a lesser digest."""
        if not self.nodes:
            return 0
        return bisect_left(self.order, digest, key=self.digest)

    def _side(self, way: str) -> Side:
        return Side(
            start=self._section(f"{way}_start"),
            target=self._section(f"{way}_target"),
            label=self._section(f"{way}_label"),
        )

    def _section(self, name: str) -> memoryview:
        begin, end, crc = self._sections[name]
        found = self._data[begin:end]
        if zlib.crc32(found) != crc:
            raise DamagedError(name)
        return found.cast(_ITEMS[name])


def empty() -> Image:
    """The index of a ledger without events."""
    nothing: dict[str, Any] = dict.fromkeys(_ITEMS, b"")
    nothing |= dict.fromkeys(("up_start", "down_start"), array("I", [0]))
    return Image(_encode(START, 0, 0, nothing | {"names": _names(Names())}))


def grown(image: Image, growth: Growth, position: Position) -> bytes:
    """The index that covers the ledger up to `position`: an image, and what came after it.

    Costs a pass over the image's bytes and a few steps for each new node and arrow.
    """
    sections: dict[str, Any] = {
        "digests": b"".join((image.digests, *growth.nodes)),
        "places": array("Q", image.places.tobytes()) + growth.places,
        "kinds": bytearray(image.kinds) + growth.kinds,
        "order": _merged_order(image, growth.nodes),
        "names": _names(growth.names),
    }
    for node, (place, kind) in growth.settled.items():
        sections["places"][node], sections["kinds"][node] = place, kind
    for way, old, near, far in (
        ("up", image.up, growth.children, growth.parents),
        ("down", image.down, growth.parents, growth.children),
    ):
        side = _merged_side(old, growth.total, near, far, growth.labels)
        sections |= {f"{way}_{part}": numbers for part, numbers in vars(side).items()}
    return _encode(position, growth.total, image.arrows + len(growth.children), sections)


def opened(path: Path) -> Image:
    """The index in a file. Raises DamagedError when there is none that can be read."""
    try:
        with path.open("rb") as file:
            return Image(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # ValueError: an empty file can not be mapped
        raise DamagedError("file") from error


def keep(path: Path, data: bytes) -> bool:
    """Replace the file, unless another process is doing so or the folder can not be written.

    Not synced: what a power cut leaves half written does not check, and is built again.
    """
    temporary = path.with_name(f"{path.name}.new")
    with suppress(OSError), locks.opened(temporary, locks.CREATE) as fd:
        # The last holder of the lock may have renamed the file that was opened.
        if locks.try_acquire(fd) and locks.still_named(fd, temporary):
            os.ftruncate(fd, 0)
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            temporary.replace(path)
            return True
    return False


def _merged_order(image: Image, fresh: Mapping[bytes, int]) -> array[int]:
    if not image.nodes:
        return array("I", map(fresh.__getitem__, sorted(fresh)))
    merged = array("I")
    begin = 0
    for digest in sorted(fresh):
        end = image.rank(digest)
        merged.frombytes(image.order[begin:end].tobytes())
        merged.append(fresh[digest])
        begin = end
    merged.frombytes(image.order[begin:].tobytes())
    return merged


def _merged_side(
    old: Side, nodes: int, near: array[int], far: array[int], labels: array[int]
) -> Side:
    """The arrows of `old` and the new ones, which stand last at each node."""
    new = [0] * (nodes + 1)
    for node in near:
        new[node + 1] += 1
    before = list(accumulate(new))  # how many new arrows the nodes before each one have
    ends = array("I", old.start.tobytes())
    ends.extend(repeat(ends[-1], nodes + 1 - len(ends)))
    side = Side(
        start=array("I", map(add, ends, before)),
        target=array("I", bytes(4 * (len(old.target) + len(far)))),
        label=array("I", bytes(4 * (len(old.target) + len(far)))),
    )
    _copy_runs(old, side, [*sorted(set(near)), nodes], ends, before)
    free = list(map(add, ends[1:], before))  # where each node's next new arrow goes
    for node, other, label in zip(near, far, labels, strict=True):
        place = free[node]
        free[node] = place + 1
        side.target[place] = other
        side.label[place] = label
    return side


def _copy_runs(
    old: Side, side: Side, touched: list[int], ends: array[int], before: list[int]
) -> None:
    """Copy the old arrows: in one piece from each node with new ones to the next of them."""
    pairs = [
        (memoryview(had), memoryview(has))
        for had, has in ((old.target, side.target), (old.label, side.label))
    ]
    begin = 0
    for node in touched:
        end = ends[node + 1] if node + 1 < len(ends) else ends[-1]
        if end > begin:
            for had, has in pairs:
                has[begin + before[node] : end + before[node]] = had[begin:end]
        begin = end


def _names(names: Names) -> bytes:
    return json.dumps(vars(names) | {"bare": sorted(names.bare)}).encode()


def _encode(position: Position, nodes: int, arrows: int, sections: Mapping[str, Any]) -> bytes:
    """Header and sections; each begins at a multiple of eight bytes."""
    told: list[bytes] = []
    parts: list[Any] = []
    end = _HEADER
    for name in _ITEMS:
        part = memoryview(sections[name]).cast("B")
        told.append(_SECTION.pack(len(part), zlib.crc32(part)))
        parts += [bytes(_aligned(end) - end), part]
        end = _aligned(end) + len(part)
    fixed = _FIXED.pack(
        _MAGIC,
        _VERSION,
        _ORDER_MARK,
        position.seq,
        position.offset,
        position.hash.encode("ascii"),
        nodes,
        arrows,
    )
    head = fixed + b"".join(told)
    return b"".join((head, _CRC.pack(zlib.crc32(head)), *parts))


def _aligned(end: int) -> int:
    return -(-end // _ALIGN) * _ALIGN
