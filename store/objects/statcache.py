"""What is known of files that did not change since they were read: their digests, by status.

Owns `stat.cache/`. docs/store.md has its form and the rules by which a file is recorded and
believed. The rules in short: record a file only if any later write must give it other times than it
has. Believe a record only if every figure is the same. A cache that does not check is no cache, and
one that cannot be written is none either: it only ever saves work.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from stillhouse.store.disk import kernel
from stillhouse.store.disk.hashing import hash_bytes
from stillhouse.store.objects.sources import open_source, signature
from stillhouse.store.objects.staging import Batch, Stored

MAX_ROOTS = 512
"""Published paths that are remembered."""
MAX_BYTES = 256 << 20
"""Of all records together."""
MAX_AGE = 90 * 86_400
"""Seconds after which a path that was not published again is forgotten."""

_HEADER = b"stillhouse stat-cache v2 "
_HEAD = struct.Struct("<QI36s")  # the moment, how many records, the boot
_RECORD = struct.Struct("<QQIQqq32s32s")
_NO_SUM = bytes(32)
_TREE = "/"
"""Stands for the tree itself: no file below a root is called that."""
_SECOND = 1_000_000_000
_FINE = 20_000_000
"""Nanoseconds: two of the longest tick that Linux is built with (100 a second)."""
_COARSE = 2 * _SECOND
"""Nanoseconds: FAT keeps times to two seconds, others to one."""
# File systems whose times come from this machine's clock, and whose status is never a cached copy.
_LOCAL = frozenset(
    (
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "zfs"),
        *("tmpfs", "ramfs", "vfat", "exfat", "ntfs3", "jfs"),
    )
)


class Known(NamedTuple):
    """One file as it was when it was read."""

    signature: tuple[int, int, int, int, int, int]
    """Device, inode, mode, size, mtime, ctime; times in ns."""
    digest: str
    sha256: str | None


class Recalled(NamedTuple):
    """What a cache knows of one published path."""

    known: dict[str, Known]
    """By relative path."""
    durable_ns: int
    """When it was recorded: all its objects had durable names then (Batch)."""
    sure: bool
    """Whether it may be believed; if not, it only tells which files were met before."""


_NOTHING = Recalled({}, 0, sure=False)


class StatCache:
    """The records below one folder, which need not exist."""

    def __init__(self, folder: Path, *, believe: bool = True) -> None:
        self.folder = folder
        self._believe = believe

    def load(self, root: Path, *, now_ns: int) -> Recalled:
        """What is known below `root`; not sure when the clock was set back, or after a reboot."""
        path = self._path(root)
        try:
            data = path.read_bytes()
            os.utime(path)  # used today
        except OSError:
            return _NOTHING
        boot, found = _decoded(data)
        # After a power cut a source may have lost bytes that were read, and none of its times.
        same_boot = bool(boot) and boot == kernel.boot()
        sure = self._believe and same_boot and found.durable_ns <= now_ns
        return found._replace(sure=sure)

    def save(self, root: Path, known: Mapping[str, Known], *, now_ns: int) -> None:
        """Replace what is known below `root`, and forget what is old or too much."""
        path = self._path(root)
        new = path.with_name(f"{path.name}.{os.getpid()}")
        with suppress(OSError):  # what was published is safe; only the next time takes longer
            self.folder.mkdir(exist_ok=True)
            new.write_bytes(_encoded(known, now_ns))
            new.replace(path)
            self._trim(now_ns)

    def _path(self, root: Path) -> Path:
        return self.folder / hash_bytes(os.fsencode(root.absolute())).digest[:32]

    def _trim(self, now_ns: int) -> None:
        kept = 0
        found = [(entry.stat(), entry.path) for entry in os.scandir(self.folder)]
        for place, (status, path) in enumerate(sorted(found, key=_latest_first)):
            kept += status.st_size
            old = now_ns - status.st_mtime_ns > MAX_AGE * _SECOND
            if old or place >= MAX_ROOTS or kept > MAX_BYTES:
                Path(path).unlink()


class Memory:
    """Takes files into a batch, reading only those that are not known. Without a cache, all."""

    def __init__(self, cache: StatCache | None, root: Path, batch: Batch) -> None:
        self._cache = cache
        self._root = root
        self._batch = batch
        began = batch.began_ns
        self._recalled = cache.load(root, now_ns=began) if cache else _NOTHING
        self._before = self._recalled.known
        self._after: dict[str, Known] = {}
        self._read = 0
        self._local: dict[int, bool] = {}

    def take(
        self, source: Path | str, path: str, *, sha256: bool, status: os.stat_result | None = None
    ) -> Stored:
        """Stage one file; `path` is what it is called below the root. Raises as Batch does.

        `status` is that of the file, not followed, if it has been looked at.
        """
        known = self._before.get(path)
        if known is not None and self._believed(known, source, status, sha256=sha256):
            self._after[path] = known
            self._batch.tell(known.signature[3])
            size, kept = known.signature[3], known.sha256 if sha256 else None
            return Stored(digest=known.digest, size=size, sha256=kept)
        self._read += 1
        reader = open_source(source)
        try:
            before = os.fstat(reader)
            steady = self._cache is not None and self._steady(reader, before)
            met = known is not None and known.signature[3] == before.st_size
            stored = self._batch.add_open(source, reader, before, sha256=sha256, met=met)
        finally:
            os.close(reader)
        if steady:
            self._after[path] = Known(signature(before), stored.digest, stored.sha256)
        return stored

    def take_tree(self, data: bytes) -> Stored:
        """Stage the tree of all files taken; one that is known is in the store, durably."""
        found = hash_bytes(data)
        known = self._before.get(_TREE)
        if self._cache is not None:
            self._after[_TREE] = Known((0, 0, 0, found.size, 0, 0), found.digest, None)
        if known and known.digest == found.digest and self._held(found.digest, found.size):
            return Stored(digest=found.digest, size=found.size)
        return self._batch.add_bytes(data)

    def nothing_new(self, files: int) -> bool:
        """Whether these are just the files that were published last, none changed since.

        Then there was a moment, that publication's, at which they all were as they are recorded.
        """
        return self._read == 0 and files == len(self._before.keys() - {_TREE})

    def keep(self) -> None:
        """Record what was learnt; to be called once it is committed."""
        news = self._after != self._before or self._batch.relied or not self._recalled.sure
        if self._cache is not None and news:
            self._cache.save(self._root, self._after, now_ns=self._batch.durable_ns)

    def _believed(
        self, known: Known, source: Path | str, status: os.stat_result | None, *, sha256: bool
    ) -> bool:
        if not self._recalled.sure or (sha256 and known.sha256 is None):
            return False
        if status is None:
            with suppress(OSError):  # opening it will tell
                status = os.lstat(source)
        return (
            status is not None
            and signature(status) == known.signature
            and self._held(known.digest, known.signature[3])
        )

    def _held(self, digest: str, size: int) -> bool:
        recalled = self._recalled
        return recalled.sure and self._batch.holds(digest, size, durable_ns=recalled.durable_ns)

    def _steady(self, reader: int, status: os.stat_result) -> bool:
        """Whether any later write must give the file other times than it has now."""
        began = self._batch.began_ns
        same_clock = status.st_dev == self._batch.device and began % 1_000_000
        slack = _FINE if same_clock else _COARSE
        return (
            max(status.st_mtime_ns, status.st_ctime_ns) + slack < began
            and self._is_local(status.st_dev)
            and kernel.nobody_writes(reader)
        )

    def _is_local(self, device: int) -> bool:
        if device not in self._local:
            self._local[device] = _type_of(device) in _LOCAL
        return self._local[device]


def _encoded(known: Mapping[str, Known], now_ns: int) -> bytes:
    records = b"".join(
        _RECORD.pack(
            *one.signature,
            bytes.fromhex(one.digest),
            bytes.fromhex(one.sha256) if one.sha256 else _NO_SUM,
        )
        for one in known.values()
    )
    names = b"\0".join(path.encode() for path in known)
    body = _HEAD.pack(now_ns, len(known), kernel.boot().encode()) + records + names
    return _HEADER + hash_bytes(body).digest.encode() + b"\n" + body


def _decoded(data: bytes) -> tuple[str, Recalled]:
    """The boot in which it was written, and what it says."""
    head, _, body = data.partition(b"\n")
    if head != _HEADER + hash_bytes(body).digest.encode():
        return "", _NOTHING
    moment, count, boot = _HEAD.unpack_from(body)
    end = _HEAD.size + count * _RECORD.size
    names = body[end:].decode().split("\0")
    records = _RECORD.iter_unpack(body[_HEAD.size : end])
    known = {
        name: Known(record[:6], record[6].hex(), record[7].hex() if any(record[7]) else None)
        for name, record in zip(names, records, strict=False)
    }
    return boot.rstrip(b"\0").decode(), Recalled(known, moment, sure=False)


def _latest_first(found: tuple[os.stat_result, str]) -> int:
    return -found[0].st_mtime_ns


def _type_of(device: int) -> str:
    """The type of the mounted file system with this number; empty when that is not known."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for line in mounts.splitlines():  # proc_pid_mountinfo(5)
        mount, _, rest = line.partition(" - ")
        if mount.split(" ")[2] == wanted:
            return rest.partition(" ")[0]
    return ""
