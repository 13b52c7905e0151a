from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given
from hypothesis import strategies as st

from stillhouse.phases.workers import logs as runlogs

GAP = re.compile(rb"\[\.\.\. (\d+) bytes and the lines cut by that were left out here \.\.\.\]\n")
LIMIT = 400
LINES = st.lists(st.binary(max_size=60).map(lambda b: b.replace(b"\n", b" ")), max_size=30)


@given(st.lists(LINES, max_size=8))
@example([[b"x" * 60] * 30] * 3)
@example([[b""] * 3, [b"y" * 60] * 7, [b"z"]])
def test_a_rotated_log_keeps_its_first_and_newest_lines_and_counts_the_rest(
    parts: list[list[bytes]],
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.1"
        path.touch()
        printed = b""
        with path.open("ab") as log:
            for part in parts:
                text = b"".join(line + b"\n" for line in part)
                log.write(text)
                log.flush()
                printed += text
                runlogs.rotate(path, LIMIT)
                assert path.stat().st_size <= LIMIT
        kept = runlogs.whole(path, limit=LIMIT)
        _check(kept, printed)
        assert sum(p.stat().st_size for p in Path(folder).iterdir()) <= 2 * LIMIT + 64


def _check(kept: bytes, printed: bytes) -> None:
    found = GAP.search(kept)
    if found is None:
        assert kept == printed
        return
    head, tail = kept[: found.start()], kept[found.end() :]
    assert printed.startswith(head)
    assert printed.endswith(tail)
    assert head == b"" or head.endswith(b"\n")
    cut = len(printed) - len(head) - len(tail)
    assert 0 < int(found[1]) <= cut
    assert cut <= int(found[1]) + 2 * 61, "more was cut than a line at each side"


def test_a_worker_goes_on_printing_into_a_log_that_is_rotated_under_it(tmp_path: Path) -> None:
    path = tmp_path / "log.1"
    lines = 100_000
    code = f"for n in range({lines}): print(n)"
    with path.open("ab") as log, subprocess.Popen([sys.executable, "-c", code], stdout=log) as done:
        rotated = 0
        while done.poll() is None:
            rotated += runlogs.rotate(path, 20_000)
    assert rotated > 1
    kept = runlogs.whole(path, limit=20_000)
    assert kept.startswith(b"0\n1\n2\n")
    assert kept.endswith(b"\n%d\n" % (lines - 1))
    assert len(kept) < 21_000
    assert GAP.search(kept)


def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.1"
    assert not runlogs.rotate(path, 10)
    path.write_bytes(b"0123456789")
    assert not runlogs.rotate(path, 10)
    assert [p.name for p in tmp_path.iterdir()] == ["log.1"]
    assert runlogs.whole(path, limit=10) == b"0123456789"


@given(st.integers(0, 420), st.sampled_from(["", "\n"]), st.booleans())
def test_no_part_of_a_secret_is_kept_wherever_a_log_is_cut(
    before: int, end: str, live: bool
) -> None:
    secret = "SEKRIT-ÄÖÜ-8501"  # noqa: S105  # nobody's
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.1"
        text = "." * before + end + secret + end + "." * 700 + end + secret + end + "." * before
        path.write_bytes(text.encode())
        if not live:
            runlogs.rotate(path, LIMIT)
        kept = runlogs.whole(path, [secret], LIMIT).decode(errors="replace")
        tail = runlogs.end_of(path, before + 8, [secret])
    for said in (kept, tail):
        assert not re.search("[SEKRITÄÖÜ8501]{2}", GAP.sub(b"", said.encode()).decode())


def test_a_line_without_end_is_cut_and_not_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "log.1"
    path.write_bytes(b"begin\n" + b"12345\r" * 10_000)
    kept = runlogs.whole(path, limit=40_000)
    assert kept.startswith(b"begin\n12345\r")
    assert len(kept) > 40_000


def test_bytes_that_are_no_text_and_passwords_in_urls(tmp_path: Path) -> None:
    path = tmp_path / "log.1"
    path.write_bytes(b"\xff\xfe https://me:word@host/x \x80")
    assert runlogs.whole(path) == b"\xff\xfe https://***@host/x \x80"
    assert runlogs.end_of(path, 10) == "*@host/x \ufffd"


def test_the_end_of_a_log_that_does_not_exist_is_nothing(tmp_path: Path) -> None:
    assert runlogs.end_of(tmp_path / "log.1", 400) == ""


def test_an_older_part_that_a_power_cut_emptied_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    path = tmp_path / "log.1"
    path.write_bytes(b"newest\n")
    (tmp_path / "log.1.1").touch()
    assert runlogs.whole(path) == b"newest\n"
    assert runlogs.older_part(path) is None


def test_logs_of_earlier_attempts_are_removed_with_their_older_parts(tmp_path: Path) -> None:
    for name in ("log.1", "log.1.1", "log.2", "log.10", "log.10.1", "lock"):
        (tmp_path / name).touch()
    runlogs.remove(tmp_path, before=10)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock", "log.10", "log.10.1"]
