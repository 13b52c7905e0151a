"""Bytes of artifacts, handed out to people."""

from __future__ import annotations

from io import BufferedReader
from pathlib import Path

import pytest

from stillhouse.content import check_out, open_content
from stillhouse.progress import Unseen
from stillhouse.publish import publish
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.schemas.events import BytesSwept
from stillhouse.schemas.plain import plain
from stillhouse.session import Session


@pytest.fixture
def folder(session: Session, tmp_path: Path) -> Digest:
    made = tmp_path / "pair"
    (made / "inner").mkdir(parents=True)
    (made / "a.txt").write_bytes(b"alpha")
    (made / "inner" / "b.txt").write_bytes(b"beta")
    return publish(session, made, Kind.SOURCE).digest


def _read(session: Session, reference: str, path: str = "") -> bytes:
    found = open_content(session, reference, path)
    assert isinstance(found, BufferedReader)
    with found:
        return found.read()


def test_a_folder_is_the_list_of_its_files_and_a_file_its_bytes(
    session: Session, folder: Digest
) -> None:
    entries = open_content(session, folder)
    assert isinstance(entries, tuple)
    assert [(each.path, each.size) for each in entries] == [("a.txt", 5), ("inner/b.txt", 4)]
    assert _read(session, folder, "inner/b.txt") == b"beta"


def test_no_byte_of_a_damaged_file_is_handed_out(session: Session, folder: Digest) -> None:
    entries = open_content(session, folder)
    assert isinstance(entries, tuple)
    digest = entries[0].digest
    stored = session.home.objects / digest[:2] / digest[2:]
    stored.chmod(0o600)
    stored.write_bytes(b"other")
    with pytest.raises(IntegrityError):
        open_content(session, folder, "a.txt")


def test_what_was_given_up_is_neither_opened_nor_checked_out(
    session: Session, folder: Digest, tmp_path: Path
) -> None:
    session.ledger.append([BytesSwept(artifacts=(folder,), objects=3, size=9)])
    for take in (
        lambda: open_content(session, folder),
        lambda: check_out(session, folder, tmp_path / "out"),
    ):
        with pytest.raises(InputError) as caught:
            take()
        assert caught.value.code == "artifact.absent"


def test_a_checkout_says_what_it_made_and_what_it_swept(
    session: Session, folder: Digest, tmp_path: Path
) -> None:
    (tmp_path / ".still-unfinished-dead").mkdir()
    meter = Unseen()
    done = check_out(session, folder, tmp_path / "out", meter=meter)
    assert meter.of == sum(done.bytes.values()) == 9
    assert plain(done) == {
        "digest": folder,
        "path": str(tmp_path / "out"),
        "files": dict(done.files),
        "bytes": dict(done.bytes),
        "swept": [".still-unfinished-dead"],
    }
