"""Logs of runs: kept small while they are written, cleaned before they are stored.

A worker appends to `log.<attempt>` and knows nothing of this. When that file is longer than the
limit, its older part goes to `log.<attempt>.1`, and the file starts again. The worker opened it to
append, so it goes on at the new end.

Of the older part, the beginning and the newest bytes are kept. A quarter of the limit shows how a
run began, the rest how it went on. So an attempt never holds more than twice the limit and what it
prints between two looks. What is printed in the instant between reading and cutting is lost, and
counted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stillhouse.schemas.secrets import scrub
from stillhouse.store.disk.durable import writing

LIMIT = 16 * 2**20
"""Bytes of one log, by default."""

_HEADER = 64
"""Bytes of the first line of `log.<attempt>.1`: how long the beginning is, what was left out."""

_LINE = 4096
"""Bytes within which a line is looked for that a cut went through."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is kept of a log, or of its older part: its two ends."""

    head: bytes = b""
    left_out: int = 0
    """Bytes between them."""
    tail: bytes = b""

    @property
    def total(self) -> int:
        """Bytes that were printed."""
        return len(self.head) + self.left_out + len(self.tail)


def rotate(path: Path, limit: int = LIMIT) -> bool:
    """Shorten a log that someone is writing, if it is longer than `limit` bytes; whether it was.

    The file is cut before its older part is written, for the disk may be full of it: a crash in
    between loses that part. Raises StorageError.
    """
    if not path.is_file() or path.stat().st_size <= limit:
        return False
    with writing(path):
        log, seen = _shortened(path, limit)
        unseen = path.stat().st_size - seen
        os.truncate(path, 0)
        _write(_older(path), replace(log, left_out=log.left_out + unseen))
    return True


def whole(path: Path, secrets: Sequence[str] = (), limit: int = LIMIT) -> bytes:
    """What is stored of a log: all of it or, past `limit`, its two ends and what is missing.

    Values of secrets and passwords in URLs are hidden.
    """
    log, _ = _shortened(path, limit)
    if not log.left_out:
        return scrubbed(log.head + log.tail, secrets)
    return before_gap(log.head, secrets) + gap(log.left_out) + after_gap(log.tail, secrets)


def older_part(path: Path) -> Kept | None:
    """What went aside of a log that grew too long; None when nothing did.

    Nor when a power cut left that file without content.
    """
    try:
        data = _older(path).read_bytes()
        header = json.loads(data[:_HEADER])
    except (FileNotFoundError, ValueError):
        return None
    head, tail = data[_HEADER:][: header["head"]], data[_HEADER + header["head"] :]
    return Kept(head=head, left_out=header["left_out"], tail=tail)


def gap(left_out: int) -> bytes:
    """The line that stands where so many bytes are missing."""
    return f"[... {left_out} bytes and the lines cut by that were left out here ...]\n".encode()


def before_gap(text: bytes, secrets: Sequence[str]) -> bytes:
    """What can be shown of what came before a gap, scrubbed.

    Without what may be the first part of a secret, and without the line that this cuts.
    """
    text = scrubbed(text, secrets)
    text = text[: max(0, len(text) - _longest(secrets))]
    end = text.rfind(b"\n", max(0, len(text) - _LINE)) + 1
    return text[:end] if end or len(text) < _LINE else text + b"\n"


def after_gap(text: bytes, secrets: Sequence[str]) -> bytes:
    """What can be shown of what came after a gap, scrubbed.

    Without what may be the last part of a secret, and without the line that this cuts.
    """
    text = scrubbed(text, secrets)[_longest(secrets) :]
    return text[text.find(b"\n", 0, _LINE) + 1 :]


def end_of(path: Path, size: int, secrets: Sequence[str] = ()) -> str:
    """The last `size` characters of a log; nothing when there is none."""
    if not path.is_file():
        return ""
    window = 4 * size + _longest(secrets)  # a character has four bytes at most
    skipped, data = _last(path, 0, window)
    text = scrubbed(data, secrets)
    if skipped:
        text = text[_longest(secrets) :]
    return text.decode("utf-8", errors="replace").strip()[-size:]


def scrubbed(text: bytes, secrets: Iterable[str]) -> bytes:
    """The same bytes without values of secrets; bytes that are no UTF-8 stay as they are."""
    return scrub(text.decode("utf-8", "surrogateescape"), secrets).encode(
        "utf-8", "surrogateescape"
    )


def remove(folder: Path, *, before: int) -> None:
    """Remove the logs of the attempts before this one."""
    for path in folder.glob("log.*"):
        if int(path.name.split(".")[1]) < before:
            path.unlink(missing_ok=True)


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _shortened(path: Path, limit: int) -> tuple[Kept, int]:
    """Both files of a log as one within `limit`, and how many bytes of the live one were seen."""
    room = limit // 4
    older = older_part(path)
    with path.open("rb") as file:
        head = older.head if older else file.read(room)
        begun = file.tell()
    skipped, tail = _last(path, begun, limit - room)
    seen = begun + skipped + len(tail)
    if older is None:
        return Kept(head=head, left_out=skipped, tail=tail), seen
    joined = older.tail + tail
    kept = joined[-(limit - room) :]
    left_out = older.left_out + skipped + len(joined) - len(kept)
    return Kept(head=head, left_out=left_out, tail=kept), seen


def _last(path: Path, begin: int, size: int) -> tuple[int, bytes]:
    """The last `size` bytes of what follows `begin`, and how many before them were skipped."""
    with path.open("rb") as file:
        skipped = max(0, os.fstat(file.fileno()).st_size - size - begin)
        file.seek(begin + skipped)
        return skipped, file.read(size)


def _write(path: Path, log: Kept) -> None:
    header = json.dumps({"head": len(log.head), "left_out": log.left_out}).ljust(_HEADER - 1)
    temp = path.with_suffix(".tmp")
    temp.write_bytes(header.encode() + b"\n" + log.head + log.tail)
    temp.replace(path)


def _longest(secrets: Iterable[str]) -> int:
    return max((len(value.encode()) for value in secrets), default=0)
