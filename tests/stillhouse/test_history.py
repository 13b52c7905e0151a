"""What happened, once and as it goes on."""

from __future__ import annotations

from itertools import islice

import pytest

from stillhouse.history import history
from stillhouse.schemas.errors import IntegrityError
from stillhouse.schemas.events import TagMoved
from stillhouse.session import Session


def _happen(session: Session, *names: str) -> None:
    session.ledger.append([TagMoved(name=name, digest="1" * 64) for name in names])


def test_what_is_recorded_comes_once_and_then_it_ends(session: Session) -> None:
    _happen(session, "one", "two", "three")
    (events,) = history(session, after=1)
    assert [event.seq for event in events] == [2, 3]


def test_what_is_recorded_later_follows(session: Session) -> None:
    _happen(session, "one", "two")
    news = iter([(), ("three",), ("four", "five")])

    def wait(seconds: float) -> None:
        assert seconds > 0
        if names := next(news):
            _happen(session, *names)

    found = islice(history(session, after=3, follow=True, wait=wait), 4)
    assert [[event.seq for event in events] for events in found] == [[], [], [], [4, 5]]


def test_of_a_broken_ledger_nothing_is_given_out(session: Session) -> None:
    _happen(session, "one")
    _happen(session, "two")
    log = session.home.log
    log.write_bytes(log.read_bytes().replace(b'"name":"two"', b'"name":"six"'))
    with pytest.raises(IntegrityError):
        next(history(session))
