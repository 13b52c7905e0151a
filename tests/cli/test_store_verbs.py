"""How the store's own choices are asked for at the command line: rehash, link, what fsck reads."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from stillhouse.registry.home import Home
from stillhouse.store.objects.staging import Batch

from .conftest import Still


@pytest.fixture
def source(tmp_path: Path, home: Home) -> Path:  # noqa: ARG001  # the registry that is published to
    folder = tmp_path / "source"
    folder.mkdir()
    for n in range(3):
        (folder / str(n)).write_bytes(bytes([n]) * 1000)
    time.sleep(0.03)  # older than a tick
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that are read."""
    seen: list[str] = []
    add_open = Batch.add_open

    def note(batch: Batch, path: Path | str, *rest: object, **more: object) -> object:
        seen.append(Path(path).name)
        return add_open(batch, path, *rest, **more)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(Batch, "add_open", note)
    return seen


def test_publishing_again_reads_nothing_unless_rehash_asks_for_it(
    still: Still, source: Path, read: list[str]
) -> None:
    first = still("publish", source, "--kind", "source").out
    read.clear()
    assert still("publish", source, "--kind", "source").out == first
    assert read == []
    assert still("publish", source, "--kind", "source", "--rehash").out == first
    assert sorted(read) == ["0", "1", "2"]


def test_a_checkout_says_by_which_mode_and_warns_of_links(
    still: Still, source: Path, tmp_path: Path
) -> None:
    digest = still("publish", source, "--kind", "source").out.strip()
    copied = still("checkout", digest, tmp_path / "copied", "--json").json
    assert sum(copied["files"].values()) == 3
    assert sum(copied["bytes"].values()) == 3000
    linked = still("checkout", digest, tmp_path / "linked", "--link", "--json")
    assert linked.json["files"] == {"link": 3}
    answer = still("checkout", digest, tmp_path / "again", "--link")
    assert "damages the store" in answer.err


def test_fsck_reads_what_it_is_asked_to(still: Still, source: Path, home: Home) -> None:
    digest = still("publish", source, "--kind", "source").out.strip()
    full = still("fsck", "--json").json["store"]
    looked = still("fsck", "--metadata", "--json").json["store"]
    sample = still("fsck", "--sample", "50%", "--json").json["store"]
    assert (full["how"], full["verified"]) == ("full", full["objects"])
    assert (looked["how"], looked["verified"], looked["damaged_below"]) == ("metadata", 0, None)
    assert sample["how"] == "sample"
    assert 0 < sample["damaged_below"] < 1
    place = home.objects / digest[:2] / digest[2:]
    place.chmod(0o644)
    answer = still("fsck", "--metadata", "--json")
    assert answer.code == 1
    (exposed,) = answer.json["store"]["exposed"]
    assert exposed["digest"] == digest
    assert exposed["artifacts"]
    assert still("fsck").code == 0


def test_fsck_goes_on_where_it_was_interrupted(still: Still, source: Path, home: Home) -> None:
    still("publish", source, "--kind", "source")
    digests = sorted(p.parent.name + p.name for p in home.objects.glob("??/*"))
    mark = f'{{"version": 1, "after": "{digests[1]}", "began": 0, "corrupt": []}}'
    (home.root / "fsck.state").write_text(mark)
    report = still("fsck", "--resume", "--json").json["store"]
    assert report["resumed_after"] == digests[1]
    assert report["verified"] == len(digests)
    assert not (home.root / "fsck.state").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--sample", "0"), "fsck.bad_sample"),
        (("--sample", "100%"), "fsck.bad_sample"),
        (("--sample", "many"), "fsck.bad_sample"),
        (("--sample", "nan"), "fsck.bad_sample"),
        (("--metadata", "--resume"), "fsck.conflict"),
        (("--metadata", "--sample", "5%"), "fsck.conflict"),
    ],
)
@pytest.mark.usefixtures("home")
def test_senseless_wishes_are_refused(still: Still, arguments: tuple[str, ...], code: str) -> None:
    answer = still("fsck", *arguments, "--json")
    assert answer.code == 2
    assert code in answer.err


def test_a_swapped_file_of_the_same_size_and_time_is_published_as_it_is(
    still: Still, source: Path
) -> None:
    first = still("publish", source, "--kind", "source").out
    times = (source / "0").stat()
    (source / "0").write_bytes(b"x" * 1000)
    os.utime(source / "0", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert still("publish", source, "--kind", "source").out != first
