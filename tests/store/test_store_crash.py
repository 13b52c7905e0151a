"""What survives a kill, a full disk and a read-only disk. Each in a process of its own."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stillhouse.store.check.fsck import fsck
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.trees.trees import put_tree, read_tree

ROOT = Path(__file__).parents[2]

# Puts blobs and trees for ever; prints a line for each that was acknowledged.
WRITER = """
import os, sys, pathlib
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.objects.statcache import StatCache
from stillhouse.store.trees.trees import put_tree
store, work = BlobStore(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2])
cache = StatCache(work.with_name("stat.cache"))
work.mkdir()
for n in range(FILES):
    (work / f"file-{n}").write_bytes(os.urandom(2_000))
(work / "large").write_bytes(os.urandom(5 << 20))
print("ready", flush=True)
last = None
while True:
    print("blob", store.put_bytes(os.urandom(100_000)).digest, flush=True)
    (work / "file-0").write_bytes(os.urandom(2_000))
    if last is not None:
        store.condemn([last])
    last = put_tree(store, work, cache=cache).digest
    print("tree", last, flush=True)
"""
FILES = 30  # enough for one sync of the whole file system

# Puts one file and says how that ended.
PUTTER = """
import pathlib, sys
from stillhouse.schemas.errors import StorageError
from stillhouse.store.objects.local import BlobStore
store = BlobStore(pathlib.Path(sys.argv[1]))
try:
    store.put_file(pathlib.Path(sys.argv[2]))
except StorageError as error:
    print(error.code, [str(p) for p in store.digests()], list((store.root / "tmp").iterdir()))
else:
    print("stored")
"""


def test_a_kill_at_any_moment_shows_no_partial_object_and_loses_nothing_acknowledged(
    store: BlobStore, tmp_path: Path
) -> None:
    chance = random.Random(20)
    acknowledged: list[list[str]] = []
    for attempt in range(8):
        writer = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"FILES = {FILES}\n{WRITER}",
                store.root,
                tmp_path / f"work-{attempt}",
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        with writer, writer.stdout as lines:
            assert lines.readline() == "ready\n"
            time.sleep(chance.uniform(0.0, 0.25))
            writer.send_signal(signal.SIGKILL)
            acknowledged += [line.split() for line in lines if line.endswith("\n")]
    assert len(acknowledged) > 8
    for digest in store.digests():
        store.verify(digest)
    for form, digest in acknowledged:
        assert store.verify(digest)
        if form == "tree":
            assert len(read_tree(store, digest)) == FILES + 1
    expected = [(digest, "tree" if form == "tree" else "blob") for form, digest in acknowledged]
    report = fsck(store, expected=expected, now=time.time() + 7200)  # type: ignore[arg-type]  # narrowed above
    assert report.ok
    assert list((store.root / "tmp").iterdir()) == []


# For every n: a child that dies at its n-th call that changes the disk, and what is left is sound.
STEPPER = """
import os, pathlib, sys
from stillhouse.store.disk import kernel
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.objects.statcache import StatCache
from stillhouse.store.trees.trees import put_tree

CALLS = ("open", "write", "rename", "mkdir", "fsync", "fchmod", "unlink", "rmdir", "link", "chmod")
root, work = map(pathlib.Path, sys.argv[1:3])
acknowledge = os.write


def dying_at(call):
    left = [call]

    def dying(real):
        def stub(*given, **named):
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return real(*given, **named)

        return stub

    for name in CALLS:
        setattr(os, name, dying(getattr(os, name)))
    kernel.sync_all = dying(kernel.sync_all)


def work_on(store, pipe):
    cache = StatCache(root / "stat.cache")
    first = store.put_bytes(b"first").digest
    acknowledge(pipe, first.encode())
    tree = put_tree(store, work, cache=cache)
    acknowledge(pipe, tree.digest.encode())
    store.condemn([first, tree.entries[0].digest])
    acknowledge(pipe, store.put_bytes(b"first").digest.encode())
    acknowledge(pipe, put_tree(store, work, cache=cache).digest.encode())
    store.restore(first)
    store.condemn([first])
    store.sweep([digest for digest, _, _ in store.condemned() if digest != first])


call = 0
while True:
    call += 1
    store = BlobStore.create(root / str(call))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        dying_at(call)
        work_on(store, writer)
        os._exit(0)
    os.close(writer)
    told = ""
    while more := os.read(reader, 1 << 16).decode():
        told += more
    os.close(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for digest in {*store.digests(), *(one.digest for one in store.condemned())}:
        store.verify(digest)
    for place in range(0, len(told), 64):
        store.verify(told[place : place + 64])
    if status == 0:
        print("calls", call)
        break
    assert status == 9, status
"""


def test_death_at_any_call_that_changes_the_disk_leaves_only_whole_objects(tmp_path: Path) -> None:
    """And loses nothing that was acknowledged; also while objects are condemned and come back."""
    (tmp_path / "work").mkdir()
    (tmp_path / "stores").mkdir()
    for n in range(18):  # past MANY: the sync of everything takes part
        (tmp_path / "work" / str(n)).write_bytes(b"%d" % n)
    done = subprocess.run(
        [sys.executable, "-c", STEPPER, tmp_path / "stores", tmp_path / "work"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 100


def test_a_file_past_the_size_limit_is_refused_and_leaves_nothing(
    store: BlobStore, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(bytes(3 << 20))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
    told = subprocess.run(
        [sys.executable, "-c", limit + PUTTER, store.root, tmp_path / "large"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told == "store.full [] []\n"


def in_private_mounts(script: str, *arguments: Path) -> str:
    """Run a shell script whose mounts vanish with it. Skips where mounting is not allowed."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare(1)")
    command = ["unshare", "--mount", "sh", "-euc", script, "sh", *map(str, arguments)]
    probe = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True)
    if probe.returncode:
        pytest.skip("needs the right to mount")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "large").write_bytes(bytes(3 << 20))
    (tmp_path / "putter.py").write_text(PUTTER)
    told = in_private_mounts(
        'mount -t tmpfs -o size=1m tmpfs "$1/disk"; mkdir "$1/disk/objects"\n'
        f'PYTHONPATH=. "{sys.executable}" "$1/putter.py" "$1/disk/objects" "$1/large"',
        tmp_path,
    )
    assert told == "store.full [] []\n"


@pytest.mark.usefixtures("store")
def test_a_read_only_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"abc")
    (tmp_path / "putter.py").write_text(PUTTER)
    told = in_private_mounts(
        'mount --bind "$1/objects" "$1/objects"; mount -o remount,ro,bind "$1/objects"\n'
        f'PYTHONPATH=. "{sys.executable}" "$1/putter.py" "$1/objects" "$1/small"',
        tmp_path,
    )
    assert told == "store.read_only [] []\n"


# Becomes somebody without rights; once everything is imported, for that may lie in root's home.
POWERLESS = "os.setgid(65534); os.setuid(65534)\n"

IMPORTS = """
import os, pathlib, sys
from stillhouse.schemas.errors import StillError
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.trees.trees import put_tree
"""
ERRORS = """
store, source = BlobStore(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2])
try:
    put_tree(store, source) if source.is_dir() else store.put_file(source)
except StillError as error:
    print(error.code)
else:
    print("stored")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_lost_rights_are_told(store: BlobStore, folder: Path, tmp_path: Path) -> None:
    """To the store, to a source, and to a folder within the source."""
    secret = folder / "weights" / "model.bin"
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)

    def told(source: Path) -> str:
        command = [sys.executable, "-c", IMPORTS + POWERLESS + ERRORS, str(store.root), str(source)]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert told(folder / "config.json") == "store.read_only"
    for path in (store.root, store.root / "tmp"):
        path.chmod(0o777)
    assert told(folder / "config.json") == "stored"
    secret.chmod(0o600)
    assert told(secret) == "file.unreadable"
    assert told(folder) == "file.unreadable"
    secret.chmod(0o644)
    secret.parent.chmod(0o700)
    assert told(folder) == "file.unreadable"
    assert list((store.root / "tmp").iterdir()) == []


def test_a_full_disk_is_told_of_many_small_files_too(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "many").mkdir()
    for n in range(100):
        (tmp_path / "many" / str(n)).write_bytes(n.to_bytes(2, "big") * 16_000)
    (tmp_path / "putter.py").write_text(IMPORTS + ERRORS)
    told = in_private_mounts(
        'mount -t tmpfs -o size=1m tmpfs "$1/disk"; mkdir "$1/disk/objects"\n'
        f'PYTHONPATH=. "{sys.executable}" "$1/putter.py" "$1/disk/objects" "$1/many"\n'
        'find "$1/disk/objects" -type f | wc -l',
        tmp_path,
    )
    assert told.split() == ["store.full", "0"]


def test_a_full_disk_ends_a_checkout_without_a_trace(store: BlobStore, tmp_path: Path) -> None:
    digest = store.put_bytes(bytes(3 << 20)).digest
    (tmp_path / "disk").mkdir()
    (tmp_path / "taker.py").write_text(
        "import pathlib, sys\nfrom stillhouse.schemas.errors import StorageError\n"
        "from stillhouse.store.objects.local import BlobStore\n"
        "from stillhouse.store.trees.checkout import checkout\n"
        "try:\n    checkout(BlobStore(pathlib.Path(sys.argv[1])), sys.argv[2], 'blob',"
        " pathlib.Path(sys.argv[3]))\nexcept StorageError as error:\n    print(error.code)\n"
    )
    told = in_private_mounts(
        'mount -t tmpfs -o size=1m tmpfs "$1/disk"\n'
        f'PYTHONPATH=. "{sys.executable}" "$1/taker.py" "$1/objects" {digest} "$1/disk/out"\n'
        'ls -A "$1/disk" | wc -l',
        tmp_path,
    )
    assert told.split() == ["store.full", "0"]


def test_two_processes_that_put_the_same_tree_both_succeed(store: BlobStore, folder: Path) -> None:
    script = (
        "import pathlib, sys\nfrom stillhouse.store.objects.local import BlobStore\n"
        "from stillhouse.store.trees.trees import put_tree\n"
        "s = BlobStore(pathlib.Path(sys.argv[1]))\n"
        "print({put_tree(s, pathlib.Path(sys.argv[2])).digest for _ in range(20)})"
    )
    twins = [
        subprocess.Popen(
            [sys.executable, "-c", script, store.root, folder],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = {twin.communicate()[0] for twin in twins}
    assert [twin.returncode for twin in twins] == [0, 0]
    assert told == {f"{{'{put_tree(store, folder).digest}'}}\n"}
