"""The text of a log as it may be shown, from pieces as they come. No I/O.

Rules: no part of a secret is shown, also where pieces or a gap cut through it. Lines are shown
whole, and a line waits until its end came.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stillhouse.phases.workers.livelog import Gap, Piece
from stillhouse.phases.workers.logs import after_gap, before_gap, gap, scrubbed

_LONGEST_LINE = 2**20
"""Bytes after which the beginning of a line is shown before its end came."""


class Redactor:
    """Hides the values of secrets, and passwords in URLs."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets
        self._spelt = [secret.encode() for secret in secrets]
        # A secret of several lines is only recognised whole.
        self._kept_back = max((len(s) for s in self._spelt if b"\n" in s), default=0)
        self._longest = max(map(len, self._spelt), default=0)
        self._rest = b""
        self._after_gap = False

    def feed(self, pieces: Iterable[Piece], tail: int | None = None) -> bytes:
        """Take pieces; return what can be shown now; with `tail`, only the last lines of it.

        What a gap cuts through is left out: half a secret too.
        """
        shown = b""
        for piece in pieces:
            if isinstance(piece, Gap):
                shown += before_gap(self._rest, self._secrets) + gap(piece.missing)
                self._rest, self._after_gap = b"", True
            elif self._after_gap and piece:
                self._rest, self._after_gap = after_gap(piece, self._secrets), False
            else:
                self._rest += piece
        shown += scrubbed(self._taken(), self._secrets)
        return shown if tail is None else self._last(shown, tail)

    def finish(self) -> bytes:
        """Return what is left."""
        left, self._rest = self._rest, b""
        return scrubbed(left, self._secrets)

    def _last(self, shown: bytes, tail: int) -> bytes:
        """The last `tail` lines, of which the rest, shown later, has some."""
        lines = shown.splitlines(keepends=True)
        waiting = len(self._rest.splitlines())
        if tail == 0:
            self._rest = b""
        return b"".join(lines[len(lines) - max(0, min(tail - waiting, len(lines))) :])

    def _taken(self) -> bytes:
        """Take what can be shown off the rest: whole lines, and no part of a secret."""
        room = max(0, len(self._rest) - self._kept_back)
        end = self._rest.rfind(b"\n", 0, room) + 1
        if not end and room > _LONGEST_LINE:
            # No URL has a blank in it, so none of its parts is shown without the others.
            blanks = (self._rest.rfind(blank, 0, room) + 1 for blank in (b" ", b"\t", b"\r"))
            end = max(blanks) or room - self._longest
        while spanning := [
            place
            for secret in self._spelt
            if (place := self._rest.find(secret, max(0, end - len(secret) + 1))) != -1
            and place < end < place + len(secret)
        ]:
            end = min(spanning)
        taken, self._rest = self._rest[:end], self._rest[end:]
        return taken
