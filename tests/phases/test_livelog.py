"""Logs as they are shown while they grow: told once and in order, and no secret among them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.phases.workers import logs as runlogs
from stillhouse.phases.workers.livelog import LiveLog, Piece
from stillhouse.phases.workers.redaction import Redactor


class Heard:
    """What was shown of the pieces so far."""

    def __init__(self, *secrets: str) -> None:
        self._redactor = Redactor(secrets)
        self._text = b""

    def hear(self, pieces: Iterable[Piece], tail: int | None = None) -> None:
        self._text += self._redactor.feed(pieces, tail)

    def told(self) -> bytes:
        self._text += self._redactor.finish()
        return self._text


@given(cuts=st.lists(st.integers(0, 60), max_size=8), tail=st.sampled_from([None, 1, 2]))
def test_a_secret_is_hidden_however_its_bytes_arrive(cuts: list[int], tail: int | None) -> None:
    data = b"begin\nabc secret-value def\n- key line one\nkey line two -\nend of secret-value"
    heard = Heard("secret-value", "key line one\nkey line two")
    places = sorted({0, *cuts, len(data)})
    first, *rest = [data[a:b] for a, b in pairwise(places)]
    heard.hear([first], tail)
    for part in rest:
        heard.hear([part])
    told = heard.told()
    assert b"secret-value" not in told
    assert b"key line" not in told
    assert told.endswith(b"end of ***")
    if tail is None:
        assert told == b"begin\nabc *** def\n- *** -\nend of ***"


@given(before=st.integers(0, 900), told=st.booleans(), lines=st.booleans())
def test_no_part_of_a_secret_is_told_where_a_log_has_a_gap(
    before: int, told: bool, lines: bool
) -> None:
    """Be it that the gap begins in a secret, ends in one, or what was told last ended in one."""
    secret = "SEKRIT" + "\n" * lines + "8501"
    text = b"begin\n" + (b"." * 17 + b"\n") * 50
    text = text[:before] + secret.encode() + text[before:]
    heard = Heard(secret)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.1"
        live = LiveLog(path)
        path.write_bytes(text[: before + 5])
        if told:
            heard.hear(live.new())
        with path.open("ab") as log:
            log.write(text[before + 5 :])
        runlogs.rotate(path, limit=200)
        heard.hear(live.new())
        live.close()
    assert not re.search(rb"SE|EK|KR|RI|IT|85|50|01", re.sub(rb"\[\.{3}.*", b"", heard.told()))


def test_a_password_in_a_url_is_hidden_where_a_line_is_too_long_to_wait_for() -> None:
    heard = Heard()
    heard.hear([b"." * (2**20 - 8) + b" https://me:pass"])
    heard.hear([b"word@host/"])
    assert heard.told().endswith(b" https://***@host/")


@pytest.mark.parametrize("seed", range(12))
def test_a_log_that_is_shortened_is_told_once_and_in_order(tmp_path: Path, seed: int) -> None:
    """Whatever was looked at before it was moved aside is told whole; else the gap is told."""
    chance = random.Random(seed)
    path = tmp_path / "log.1"
    live, heard, number = LiveLog(path), Heard(), 0
    everything: list[bytes] = []
    with path.open("ab", buffering=0) as log:
        for _ in range(60):
            for _ in range(chance.randrange(12)):
                everything.append(b"line %d %s\n" % (number, b"x" * chance.randrange(20)))
                log.write(everything[-1])
                number += 1
            if chance.random() < 0.4:
                runlogs.rotate(path, limit=400)
            if chance.random() < 0.5:
                heard.hear(live.new())
        path.unlink()  # its success was recorded
        heard.hear(live.new())
    live.close()
    told = heard.told()
    lines = told.splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(b"[... ")]
    numbers = [int(line.split()[1]) for line in kept]
    assert set(kept) <= set(everything)
    assert numbers == sorted(set(numbers))
    assert kept[-1] == everything[-1]
    if len(kept) == len(lines):
        assert kept == everything


def test_a_log_that_is_looked_at_often_enough_is_told_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.1"
    live, heard, printed = LiveLog(path), Heard(), b""
    with path.open("ab", buffering=0) as log:
        for number in range(200):
            line = b"line %d\n" % number
            log.write(line)
            printed += line
            if number % 7 == 0:
                heard.hear(live.new())
            runlogs.rotate(path, limit=300)
        heard.hear(live.new())
    live.close()
    assert heard.told() == printed


def test_a_log_whose_older_part_never_came_goes_on(tmp_path: Path) -> None:
    """The file was cut, and the disk was full, or the reactor killed, before the rest was moved."""
    path = tmp_path / "log.1"
    path.write_bytes(b"long ago\n")
    live = LiveLog(path)
    heard = Heard()
    heard.hear(live.new())
    path.write_bytes(b"")
    for _ in range(10):
        heard.hear(live.new())
    with path.open("ab") as log:
        log.write(b"now\n")
    heard.hear(live.new())
    assert heard.told() == b"long ago\nnow\n"
    live.close()
