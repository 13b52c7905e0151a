"""Pickles, recognised and never loaded: loading one runs whatever its author wished.

A pickle is known by content, because names lie; the names that loaders unpickle by themselves are
refused by phases/untrusted/folder.py.
"""

from __future__ import annotations

import io
import lzma
import pickletools
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from stillhouse.store.disk.durable import reading

_HEAD = 1 << 16
_MAX_MEMBERS = 10_000
# Protocols 2 to 5 begin with PROTO and their number (PEP 307, 3154, 574).
_PROTOCOLS = tuple(bytes([0x80, number]) for number in range(2, 6))
_OPCODES = frozenset(opcode.code for opcode in pickletools.opcodes)
_NUMPY = b"\x93NUMPY"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
# Opcodes that name a callable, and those that call one: text can look like either, not like both.
_NAMES = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"})
# What zipfile raises on archives that are damaged, encrypted, or packed in unknown ways.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,  # bz2's own
    MemoryError,  # an LZMA dictionary may ask for 4 GiB
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
)
_CALLS = frozenset({"REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"})


def find_pickle(path: Path) -> str | None:
    """Say what pickled thing `path` holds, as the end of a sentence; None if it holds none.

    Looks at the first 64 KiB, and into zip archives. Raises InputError when it cannot be read.
    """
    with reading(path), path.open("rb") as file:
        head = file.read(_HEAD)
        if head.startswith(_ZIP):
            return _in_archive(file)
        return _in_head(head)


def _in_head(head: bytes) -> str | None:
    if head.startswith(_NUMPY):
        # The header is a Python literal whose dtype strings have a capital O for objects.
        return "is an array of pickled objects" if b"O" in _numpy_header(head) else None
    # An opcode follows; a file of weights may begin with the number 0x280 (640) as four bytes.
    if head.startswith(_PROTOCOLS) and head[2:3].decode("latin-1") in _OPCODES:
        return "is a pickle"
    return "is a pickle (protocol 0 or 1)" if _is_old_pickle(head) else None


def _numpy_header(head: bytes) -> bytes:
    wide = head[6:7] != b"\x01"  # NEP 1: versions 2 and 3 have four bytes of length, version 1 two
    start = 12 if wide else 10
    return head[start : start + int.from_bytes(head[8:start], "little")]


def _is_old_pickle(head: bytes) -> bool:
    """Whether loading would come as far as a call, whatever follows it."""
    seen: set[str] = set()
    stack = [0]
    try:
        for opcode, _, _ in pickletools.genops(io.BytesIO(head)):
            if not _applied(opcode, stack):
                break
            seen.add(opcode.name)
    except Exception:  # noqa: BLE001, S110  # no opcode, or cut by _HEAD: what was seen counts
        pass
    return bool(seen & _NAMES) and bool(seen & _CALLS)


def _applied(opcode: pickletools.OpcodeInfo, stack: list[int]) -> bool:
    """Do to `stack` what `opcode` does; False where a loader would give up.

    `stack` holds how many objects lie above its bottom and above each mark.
    """
    wanted = opcode.stack_before
    if pickletools.markobject in wanted:
        wanted = wanted[: wanted.index(pickletools.markobject)]
        if len(stack) == 1:
            return False
        stack.pop()
    elif opcode.name == "POP" and not stack[-1] and len(stack) > 1:
        stack.pop()  # the mark itself
        return True
    if len(wanted) > stack[-1]:
        return False
    stack[-1] -= len(wanted)
    if pickletools.markobject in opcode.stack_after:
        stack.append(0)
    else:
        stack[-1] += len(opcode.stack_after)
    return True


def _in_archive(file: BinaryIO) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > _MAX_MEMBERS:
                return f"is a zip archive with {len(members)} members"
            for member in members:
                with archive.open(member) as content:
                    found = _in_head(content.read(_HEAD))
                if found is not None or member.filename.endswith((".pkl", ".pickle")):
                    return f"is a zip archive with a pickle in {member.filename[:80]!r}"
    except _UNREADABLE as error:
        return f"looks like a zip archive and cannot be read as one ({type(error).__name__})"
    return None
