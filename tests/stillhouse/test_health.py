"""What a check of a whole registry finds, and whom it concerns."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillhouse.health import check_registry
from stillhouse.publish import publish
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.events import BytesSwept
from stillhouse.schemas.plain import plain
from stillhouse.session import Session, open_unchecked


@pytest.fixture
def folder(session: Session, tmp_path: Path) -> Digest:
    """Two files, published as one folder."""
    made = tmp_path / "pair"
    made.mkdir()
    for name in ("a", "b"):
        (made / name).write_text(name, encoding="utf-8")
    return publish(session, made, Kind.SOURCE).digest


@pytest.fixture
def file(session: Session, tmp_path: Path, folder: Digest) -> Digest:
    """One of these files, published alone."""
    assert folder
    return publish(session, tmp_path / "pair" / "a", Kind.SOURCE).digest


def _object(session: Session, digest: Digest) -> Path:
    return session.home.objects / digest[:2] / digest[2:]


def test_damage_concerns_every_artifact_that_needs_the_object(
    session: Session, folder: Digest, file: Digest
) -> None:
    _object(session, file).chmod(0o600)
    _object(session, file).write_bytes(b"?")
    found = check_registry(session)
    assert not found.ok
    (problem,) = found.store.corrupt
    assert problem.digest == file
    assert problem.artifacts == (f"source pair {folder[:SHORT]}", f"source a {file[:SHORT]}")


def test_a_folder_that_cannot_be_read_is_itself_the_problem(
    session: Session, folder: Digest
) -> None:
    _object(session, folder).unlink()
    (problem,) = check_registry(session).store.missing
    assert (problem.digest, problem.artifacts) == (folder, (f"source pair {folder[:SHORT]}",))


def test_bytes_that_were_given_up_are_missed_only_where_something_else_needs_them(
    session: Session, folder: Digest, file: Digest
) -> None:
    _object(session, file).unlink()
    session.ledger.append([BytesSwept(artifacts=(file,), objects=1, size=1)])
    assert [problem.digest for problem in check_registry(session).store.missing] == [file]
    session.ledger.append([BytesSwept(artifacts=(folder,), objects=1, size=1)])
    assert check_registry(session).ok


def test_a_broken_ledger_says_what_the_store_must_hold_as_far_as_it_verifies(
    session: Session, folder: Digest, file: Digest
) -> None:
    log = session.home.log
    log.write_bytes(log.read_bytes().replace(b'"name":"a"', b'"name":"z"'))
    for digest in (folder, file):
        _object(session, digest).unlink()
    found = check_registry(open_unchecked(session.home))
    assert not found.ok
    assert plain(found)["ledger"]["fault"]["code"] == "ledger.broken"
    assert [problem.digest for problem in found.store.missing] == [folder]


def test_whoever_waits_hears_of_every_byte(session: Session, folder: Digest) -> None:
    class Watcher:
        of: int | None = None
        done = 0

        def add(self, count: int) -> None:
            self.done += count

        def move(self, done: int) -> None:
            self.done = done

    assert folder
    watcher = Watcher()
    found = check_registry(session, meter=watcher)
    assert (watcher.done, watcher.of) == (found.store.bytes, found.store.bytes)
