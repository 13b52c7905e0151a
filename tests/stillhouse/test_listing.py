"""Artifacts as they are listed."""

from __future__ import annotations

from stillhouse.listing import list_artifacts
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.events import ArtifactPublished, TagMoved
from stillhouse.session import Session

ONE, TWO = "1" * 64, "2" * 64


def _published(digest: str, kind: Kind, name: str) -> ArtifactPublished:
    return ArtifactPublished(
        digest=digest, kind=kind, form="blob", size=1, origin="imported", name=name
    )


def test_an_artifact_has_one_row_a_kind_by_its_latest_publication(session: Session) -> None:
    session.ledger.append(
        [
            _published(ONE, Kind.SOURCE, "first"),
            _published(TWO, Kind.SOURCE, "other"),
            _published(ONE, Kind.FIXTURES, "as fixtures"),
            _published(ONE, Kind.SOURCE, "again"),
            TagMoved(name="mine", digest=ONE),
        ]
    )
    rows = list_artifacts(session)
    assert [(row.digest, row.kind, row.name, row.seq) for row in rows] == [
        (ONE, Kind.SOURCE, "again", 4),
        (ONE, Kind.FIXTURES, "as fixtures", 3),
        (TWO, Kind.SOURCE, "other", 2),
    ]
    assert [row.tags for row in rows] == [("mine",), ("mine",), ()]
    assert list_artifacts(session, Kind.FIXTURES) == rows[1:2]
