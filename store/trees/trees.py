"""Trees: a folder as one blob, so that a folder has a digest.

A tree is UTF-8 text. Its first line is the tag `stillhouse tree v1`. Then comes one line for each
file, sorted by the bytes of its path. Every line, also the last, ends with LF:

    MODE SP SIZE SP DIGEST SP PATH LF

    MODE    `x` if the owner may execute the file, else `-`
    SIZE    bytes of the file, decimal, no leading zeros
    DIGEST  64 lower-case hex characters, the BLAKE3 digest of the file
    PATH    relative, components separated by `/`; may contain spaces; nothing is escaped, because
            control characters (newline and tab among them) and backslashes are refused

Rules for paths: store/trees/names.py. Only files are recorded: empty folders, owners, times and
other mode bits are not. One set of files has exactly one encoding. A reader refuses any other, so
`parse_tree(tree_bytes(entries)) == entries` and back.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from stillhouse.schemas.artifact import FileFact
from stillhouse.schemas.digest import is_digest
from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.store.disk.durable import shown
from stillhouse.store.disk.streaming import Tell
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.objects.sources import refuse_changed
from stillhouse.store.objects.staging import Stored
from stillhouse.store.objects.statcache import Memory, StatCache
from stillhouse.store.trees.names import component_fault, path_faults
from stillhouse.store.trees.scan import Found, look_again, scan

HEADER = b"stillhouse tree v1\n"

_LINE = re.compile(r"([x-]) (0|[1-9][0-9]{0,18}) ([0-9a-f]{64}) (.+)")


class Entry(NamedTuple):
    """One file of a tree. A tuple, because there are many."""

    path: str
    """Relative POSIX path, NFC."""
    size: int
    """Bytes."""
    digest: str
    executable: bool = False


@dataclass(frozen=True, kw_only=True)
class StoredTree:
    """A folder that the store has taken."""

    digest: str
    """Of the tree blob; names the folder."""
    size: int
    """Bytes of the tree blob itself."""
    payload: int
    """Bytes of all files together."""
    entries: tuple[Entry, ...]
    files: tuple[FileFact, ...]
    """The same files with their SHA-256, if it was asked for; else empty."""


def tree_bytes(entries: Iterable[Entry]) -> bytes:
    """Return the canonical bytes of these files, given in any order.

    Raises ValueError when a path breaks the rules above or two of them clash.
    """
    ordered = sorted(entries, key=lambda entry: entry.path.encode())
    fault = next(_faults(ordered), None)
    if fault is not None:
        raise ValueError(fault)
    return _encoded(ordered)


def parse_tree(data: bytes) -> tuple[Entry, ...]:
    """Return the files that a tree blob lists. Raises IntegrityError `tree.malformed`."""
    if not data.startswith(HEADER) or not data.endswith(b"\n"):
        raise malformed("it does not begin with the tag line, or its last line is cut short")
    try:
        text = data[len(HEADER) :].decode()
    except UnicodeDecodeError as error:
        raise malformed("it is not UTF-8") from error
    entries = tuple(_parse_line(line) for line in text.split("\n")[:-1])
    paths = [entry.path.encode() for entry in entries]
    if any(left >= right for left, right in pairwise(paths)):
        raise malformed("its paths are not in order")
    fault = next(_faults(entries), None)
    if fault is not None:
        raise malformed(fault)
    return entries


def put_tree(
    store: BlobStore,
    folder: Path,
    *,
    sha256: bool = False,
    cache: StatCache | None = None,
    found: Sequence[Found] | None = None,
    tell: Tell = lambda _: None,
) -> StoredTree:
    """Store every file below `folder`, then the tree that lists them, durably and all at once.

    `cache` spares reading files that did not change since they were recorded there; `found` is the
    scan of the folder, if there was one; `tell` hears how many more bytes were taken in. Raises
    InputError, with nothing written to the store, when the folder is empty or a link, holds a link
    or special file or a name that the rules above refuse, or changes meanwhile; StorageError and
    IntegrityError as BlobStore does.
    """
    found = scan(folder) if found is None else found
    with store.batch(tell) as batch:
        memory = Memory(cache, folder, batch)
        stored = [
            memory.take(file.source, file.path, sha256=sha256, status=file.status) for file in found
        ]
        if not memory.nothing_new(len(found)):
            _refuse_moved(found, look_again(folder))
        entries = tuple(_entry(file, blob) for file, blob in zip(found, stored, strict=True))
        tree = memory.take_tree(_encoded(entries))  # the scan has checked the names
        batch.commit()
        memory.keep()
    return StoredTree(
        digest=tree.digest,
        size=tree.size,
        payload=sum(entry.size for entry in entries),
        entries=entries,
        files=tuple(_facts(entries, stored)) if sha256 else (),
    )


def read_tree(store: BlobStore, digest: str) -> tuple[Entry, ...]:
    """Return the files of a stored tree, verified against its digest and the rules above.

    Raises IntegrityError (`store.missing`, `store.corrupt`, `tree.malformed`).
    """
    with store.open(digest) as blob:
        if blob.read(len(HEADER)) != HEADER:  # before reading gigabytes of something else
            raise malformed(f"object {digest} has no tag line")
    return parse_tree(store.read(digest))


def malformed(what: str) -> IntegrityError:
    """Make the error for a tree blob that is not in canonical form."""
    return IntegrityError(
        f"This is not a tree: {what}.",
        remedy="Do not use it; publish the folder again, and run `still fsck`.",
        code="tree.malformed",
    )


def _refuse_moved(before: Sequence[Found], after: Mapping[str, os.stat_result]) -> None:
    moved = {file.source for file in before} ^ after.keys()
    if moved:
        raise InputError(
            f"{shown(min(moved))} appeared or vanished while its folder was being read.",
            remedy="Wait until nothing writes there, then try again; nothing was recorded.",
            code="file.changed",
        )
    for file in before:
        refuse_changed(file.source, file.status, after[file.source])


def _entry(file: Found, stored: Stored) -> Entry:
    executable = bool(file.status.st_mode & stat.S_IXUSR)
    return Entry(path=file.path, size=stored.size, digest=stored.digest, executable=executable)


def _facts(entries: Iterable[Entry], stored: Iterable[Stored]) -> Iterator[FileFact]:
    for entry, blob in zip(entries, stored, strict=True):
        assert blob.sha256 is not None  # noqa: S101  # asked for by our only caller
        yield FileFact(path=entry.path, size=entry.size, digest=entry.digest, sha256=blob.sha256)


def _encoded(ordered: Iterable[Entry]) -> bytes:
    lines = [f"{'x' if e.executable else '-'} {e.size} {e.digest} {e.path}\n" for e in ordered]
    return HEADER + "".join(lines).encode()


def _parse_line(line: str) -> Entry:
    match = _LINE.fullmatch(line)
    if match is None:
        raise malformed(f"a line reads {line[:120]!r}")
    mode, size, digest, path = match.groups()
    return Entry(path=path, size=int(size), digest=digest, executable=mode == "x")


def _faults(entries: Sequence[Entry]) -> Iterator[str]:
    """Say what is wrong with these files, if anything; shared by writer and reader."""
    for entry in entries:
        if entry.size < 0 or not is_digest(entry.digest):
            yield f"{entry.path!r} has the size {entry.size} and the digest {entry.digest!r}"
    for entry in entries:
        for component in entry.path.split("/"):
            fault = component_fault(component)
            if fault is not None:
                yield f"the name {component!r} in {entry.path[:120]!r} {fault}"
    yield from path_faults([entry.path for entry in entries])
