"""What a disk may show after a power cut: a model of a file system that promises little.

A history is a list of operations on numbered nodes (files and folders; 0 is the root). Until a
barrier covers it, each operation may be lost on its own, in any order. Barriers are those of
fsync(2), fdatasync(2) and syncfs(2), taken strictly: fsync of a file covers its bytes, length and
mode, but no name; fsync of a folder covers the names in it, but not its own name in its parent;
sync_file_range(2) and O_DIRECT cover nothing. What is still promised, as by every journal:

- a rename happens whole or not at all, and is covered with either of its folders;
- a name comes into a folder only after the folder has come into being, and into a slot only after
  what was there before has gone: else the operation is lost too. But a folder that was synced while
  its own name was not may be found nowhere, with all that was moved into it;
- bytes that were never written read as zeros: no one finds other people's bytes.

Of a write that no barrier covers any blocks of 512 or 4096 bytes (aligned in the file) may be
there, with the file as long as it was, as long as it should be, or cut anywhere between.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

ROOT = 0

Kind = Literal["file", "folder"]


class Create(NamedTuple):
    """A new file or folder, under its first name."""

    folder: int
    name: str
    node: int
    kind: Kind
    mode: int


class Link(NamedTuple):
    """Another name for a file."""

    folder: int
    name: str
    node: int


class Remove(NamedTuple):
    """A name goes: unlink, rmdir."""

    folder: int
    name: str
    node: int


class Rename(NamedTuple):
    """A name moves, perhaps over another."""

    source: int
    old: str
    folder: int
    name: str
    node: int


class Write(NamedTuple):
    """Bytes at an offset; the file grows as needed."""

    node: int
    offset: int
    data: bytes


class Resize(NamedTuple):
    """ftruncate(2)."""

    node: int
    size: int


class Chmod(NamedTuple):
    """Another mode."""

    node: int
    mode: int


class Sync(NamedTuple):
    """fsync of one file or folder has returned."""

    node: int
    data_only: bool = False
    """fdatasync: not the mode."""


class SyncAll(NamedTuple):
    """syncfs has returned."""


class Told(NamedTuple):
    """No operation: what the code promised at this point (checking.py)."""

    what: str
    value: Any


Operation = Create | Link | Remove | Rename | Write | Resize | Chmod | Sync | SyncAll | Told
_Naming = Create | Link | Remove | Rename


class Torn(NamedTuple):
    """What is left of one write."""

    block: int
    """Bytes, 512 or 4096."""
    kept: frozenset[int]
    """Which of the blocks that it touches are there."""
    grown: int | None
    """Up to where (bytes of this write) the file is as long as it should be; None: as it was."""


Fate = bool | Torn
"""Whether an operation survived, or what is left of it."""


@dataclass(frozen=True)
class Node:
    """A file or folder, as it is on the disk."""

    kind: Kind
    mode: int
    data: bytes = b""
    number: int = ROOT
    """Two names of one file have one number."""


Tree = dict[str, Node]
"""What a disk shows: by path below the root, parents first."""


@dataclass
class Image:
    """All nodes and names, reachable or not."""

    nodes: dict[int, Node]
    names: dict[int, dict[str, int]]

    def tree(self) -> Tree:
        """What can be reached from the root."""
        return dict(self._below(ROOT, ""))

    def _below(self, folder: int, prefix: str) -> Iterator[tuple[str, Node]]:
        for name, number in sorted(self.names.get(folder, {}).items()):
            node = self.nodes[number]
            yield prefix + name, node
            if node.kind == "folder":
                yield from self._below(number, f"{prefix}{name}/")


class History:
    """What was done to a disk that held `base`, all of it durable, and what may be left of it."""

    def __init__(self, base: Image, operations: Sequence[Operation]) -> None:
        self.base = base
        self.operations = tuple(operations)
        self._covered_at = _covered_at(self.operations)
        self._needs = _needs(self.operations)
        self._rebuilt: dict[tuple[int, tuple[tuple[int, Fate], ...]], Node] = {}

    def unsafe(self, cut: int) -> tuple[int, ...]:
        """The operations before `cut` that no barrier before it covers."""
        return tuple(
            place
            for place, operation in enumerate(self.operations[:cut])
            if self._covered_at[place] >= cut and not isinstance(operation, Sync | SyncAll | Told)
        )

    def tree(self, cut: int, fates: Mapping[int, Fate]) -> Tree:
        """What the disk shows when the power went before operation `cut`.

        `fates` says what became of unsafe operations; those that it leaves out survived.
        """
        lost = self._lost(cut, fates)
        names = {folder: dict(entries) for folder, entries in self.base.names.items()}
        changes: dict[int, list[int]] = {}
        for place, operation in enumerate(self.operations[:cut]):
            if isinstance(operation, Write | Resize | Chmod):
                changes.setdefault(operation.node, []).append(place)
            elif isinstance(operation, Create | Link | Remove | Rename) and place not in lost:
                _apply(operation, names)
        born = {op.node: op for op in self.operations[:cut] if isinstance(op, Create)}
        reached = self.base.nodes.keys() | born.keys()
        nodes = {
            number: self._node(number, born.get(number), changes.get(number, ()), fates)
            for number in reached
        }
        return Image(nodes, names).tree()

    def _lost(self, cut: int, fates: Mapping[int, Fate]) -> set[int]:
        """The naming operations that did not happen, and those that cannot have without them."""
        lost: set[int] = set()
        for place in range(cut):
            if not isinstance(self.operations[place], Create | Link | Remove | Rename):
                continue
            covered = self._covered_at[place] < cut
            needed = any(before in lost for before in self._needs.get(place, ()))
            if fates.get(place) is False or (needed and not covered):
                lost.add(place)
        return lost

    def _node(
        self, number: int, born: Create | None, changes: Sequence[int], fates: Mapping[int, Fate]
    ) -> Node:
        if born is None and not changes:
            return self.base.nodes[number]
        key = number, tuple((place, fates.get(place, True)) for place in changes)
        if key not in self._rebuilt:
            first = Node(born.kind, born.mode, b"", number) if born else self.base.nodes[number]
            self._rebuilt[key] = self._changed(first, key[1])
        return self._rebuilt[key]

    def _changed(self, node: Node, changes: Sequence[tuple[int, Fate]]) -> Node:
        data, mode = bytearray(node.data), node.mode
        for place, fate in changes:
            operation = self.operations[place]
            if isinstance(operation, Write):
                _write(data, operation, fate)
            elif fate is False:
                continue
            elif isinstance(operation, Resize):
                del data[operation.size :]
                data.extend(bytes(operation.size - len(data)))
            elif isinstance(operation, Chmod):
                mode = operation.mode
        return Node(node.kind, mode, bytes(data), node.number)


# -- which states are tried ------------------------------------------------------------------------


def extremes(history: History, cut: int) -> Iterator[dict[int, Fate]]:
    """Nothing unsynced survived; all; names and lengths only; names only; bytes only."""
    unsafe = history.unsafe(cut)
    yield dict.fromkeys(unsafe, False)
    if not unsafe:
        return
    yield {}
    writes = [place for place in unsafe if isinstance(history.operations[place], Write)]
    yield {place: Torn(4096, frozenset(), _length(history, place)) for place in writes}
    yield dict.fromkeys(writes, False)
    yield {place: False for place in unsafe if place not in writes}


def chosen(history: History, cut: int, chance: Random, count: int) -> Iterator[dict[int, Fate]]:
    """Some of the other states, in four manners: one lost, one left, in order up to one, any."""
    unsafe = history.unsafe(cut)
    for _ in range(count if unsafe else 0):
        one = chance.choice(unsafe)
        manner = chance.choice(("one lost", "one left", "in order", "any", "any"))
        share = chance.choice((0.2, 0.5, 0.8))
        fates: dict[int, Fate] = {}
        for place in unsafe:
            survives = {
                "one lost": place != one,
                "one left": False,
                "in order": place < one,
                "any": chance.random() < share,
            }[manner]
            if not survives:
                fates[place] = False
            if place == one or (manner == "any" and chance.random() < 0.5):
                fates.pop(place, None)
                fate = _any_fate(history, place, chance, lost=manner == "one lost")
                if fate is not True:
                    fates[place] = fate
        yield fates


def _any_fate(history: History, place: int, chance: Random, *, lost: bool) -> Fate:
    operation = history.operations[place]
    if not isinstance(operation, Write):
        return not lost
    return chance.choice((not lost, _torn(operation, chance), _torn(operation, chance)))


def _torn(operation: Write, chance: Random) -> Torn:
    block = chance.choice((512, 4096))
    size = len(operation.data)
    blocks = range(operation.offset // block, (operation.offset + size) // block + 1)
    edge = chance.choice(blocks)
    kept = chance.choice(
        (
            frozenset(blocks) - {edge},
            frozenset(range(blocks[0], edge)),
            frozenset(range(edge, blocks[-1] + 1)),
            frozenset(number for number in blocks if chance.random() < 0.5),
            frozenset[int](),
        )
    )
    cut = min(max(edge * block - operation.offset, 0), size)
    return Torn(block, kept, chance.choice((size, size, cut, None)))


def _length(history: History, place: int) -> int:
    operation = history.operations[place]
    assert isinstance(operation, Write)
    return len(operation.data)


# -- how operations act ----------------------------------------------------------------------------


def _apply(operation: _Naming, names: dict[int, dict[str, int]]) -> None:
    if isinstance(operation, Remove):
        _take(names, operation.folder, operation.name, operation.node)
        return
    if isinstance(operation, Rename):
        _take(names, operation.source, operation.old, operation.node)
    names.setdefault(operation.folder, {})[operation.name] = operation.node


def _take(names: dict[int, dict[str, int]], folder: int, name: str, node: int) -> None:
    if names.get(folder, {}).get(name) == node:
        del names[folder][name]


def _write(data: bytearray, operation: Write, fate: Fate) -> None:
    if fate is False:
        return
    start, end = operation.offset, operation.offset + len(operation.data)
    if fate is True:
        data.extend(bytes(max(0, start - len(data))))
        data[start:end] = operation.data
        return
    assert isinstance(fate, Torn)
    if fate.grown is not None:
        data.extend(bytes(max(0, start + fate.grown - len(data))))
    for block in fate.kept:
        low = max(start, block * fate.block)
        high = min(end, (block + 1) * fate.block, len(data))
        if low < high:
            data[low:high] = operation.data[low - start : high - start]


def _covered_at(operations: Sequence[Operation]) -> list[float]:
    """For each operation the place of the first barrier that covers it; infinite without one."""
    covered = [inf] * len(operations)
    open_places: list[int] = []
    for place, operation in enumerate(operations):
        if isinstance(operation, Sync | SyncAll):
            left = []
            for before in open_places:
                if _covers(operation, operations[before]):
                    covered[before] = place
                else:
                    left.append(before)
            open_places = left
        elif not isinstance(operation, Told):
            open_places.append(place)
    return covered


def _covers(barrier: Sync | SyncAll, operation: Operation) -> bool:
    if isinstance(barrier, SyncAll):
        return True
    if isinstance(operation, Write | Resize):
        return operation.node == barrier.node
    if isinstance(operation, Chmod):
        return operation.node == barrier.node and not barrier.data_only
    return barrier.node in _folders(operation)


def _folders(operation: Operation) -> tuple[int, ...]:
    if isinstance(operation, Rename):
        return operation.source, operation.folder
    return (operation.folder,) if isinstance(operation, Create | Link | Remove) else ()


def _needs(operations: Sequence[Operation]) -> dict[int, list[int]]:
    """For each naming operation those without which it cannot have happened."""
    born: dict[int, int] = {}
    freed: dict[tuple[int, str], int] = {}
    needs: dict[int, list[int]] = {}
    for place, operation in enumerate(operations):
        if isinstance(operation, Create | Link | Rename):
            slot = operation.folder, operation.name
            found = (born.get(operation.folder), freed.get(slot))
            needs[place] = [before for before in found if before is not None]
        if isinstance(operation, Create):
            born[operation.node] = place
        elif isinstance(operation, Remove):
            freed[operation.folder, operation.name] = place
        elif isinstance(operation, Rename):
            freed[operation.source, operation.old] = place
    return needs


# -- to and from real folders ----------------------------------------------------------------------


def read_tree(root: Path) -> Tree:
    """What a real folder shows, in the form of the model; nodes are numbered by first name."""
    numbers: dict[int, int] = {}
    found: Tree = {}
    for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).parts):
        status = path.lstat()
        number = numbers.setdefault(status.st_ino, len(numbers) + 1)
        mode = stat.S_IMODE(status.st_mode)
        name = str(path.relative_to(root))
        if stat.S_ISDIR(status.st_mode):
            found[name] = Node("folder", mode, b"", number)
        else:
            found[name] = Node("file", mode, path.read_bytes(), number)
    return found


def renumbered(tree: Tree) -> Tree:
    """The same with nodes numbered by first name, so that two trees can be compared."""
    numbers: dict[int, int] = {}
    ordered = sorted(tree.items(), key=lambda item: Path(item[0]).parts)
    return {
        path: Node(
            node.kind, node.mode, node.data, numbers.setdefault(node.number, len(numbers) + 1)
        )
        for path, node in ordered
    }


def lay_out(tree: Tree, root: Path) -> None:
    """Make a real folder that shows `tree`."""
    root.mkdir()
    made: dict[int, str] = {}
    for path, node in tree.items():
        place = f"{root}/{path}"
        if node.kind == "folder":
            os.mkdir(place, node.mode)  # noqa: PTH102  # for each of very many
        elif node.number in made:
            os.link(made[node.number], place)
        else:
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(descriptor, node.data)
            os.fchmod(descriptor, node.mode)
            os.close(descriptor)
            made[node.number] = place
