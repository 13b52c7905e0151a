"""The verb `logs`: what a run printed, or prints.

The log of an attempt that goes on is a file that grows; of one that ended it is in the store.
Values of secrets are hidden in both. In a pipe the bytes come as they were printed; at a terminal
whatever could steer it is escaped.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.arguments import session_of
from stillhouse.cli.views import render
from stillhouse.phases.workers.livelog import Gap, LiveLog, Piece
from stillhouse.registry.state.references import find_run
from stillhouse.registry.state.runs import RunStatus
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.events import BytesSwept, RunFailed, RunSucceeded
from stillhouse.store.disk.locks import held

if TYPE_CHECKING:
    from stillhouse.registry.state.runs import Run
    from stillhouse.session import Session

_POLL_SECONDS = 0.2
_LONGEST_LINE = 2**20
"""Bytes after which the beginning of a line is told before its end came."""


def logs(
    context: typer.Context,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|SLOT", help="A prefix of a run's key, or a slot of the latest plan."
        ),
    ],
    *,
    attempt: Annotated[
        int | None, typer.Option("--attempt", metavar="N", min=1, help="Default: the latest.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run ends; 1 if it failed.")
    ] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", metavar="N", min=0, help="Only the last N lines.")
    ] = None,
) -> None:
    """Show what a run printed.

    Of an attempt that ended, or so far.
    """
    session = session_of(context)
    found = find_run(session.state(), run)
    log = _Log(session=session, run=found.key, attempt=_attempt(found, attempt))
    printer = _Printer(_secrets(session))
    recorded = log.recorded()
    if recorded is not None:
        printer.first([session.store.read(recorded)], tail)
    else:
        _print_live(log, printer, tail, follow=follow)
    printer.end()
    if follow and not log.succeeded:
        render.note(_how(log.of, log.attempt))
        raise typer.Exit(1)


def _attempt(run: Run, asked: int | None) -> int:
    if asked is not None and asked > run.attempts:
        raise InputError(
            f"{run.short_name} has no attempt {asked}: its latest is {run.attempts}.",
            remedy=f"Name one from 1 to {run.attempts}, or leave --attempt out.",
            code="logs.no_attempt",
        )
    return asked or run.attempts


def _secrets(session: Session) -> tuple[str, ...]:
    from stillhouse.config import read_config
    from stillhouse.schemas.secrets import secret_values

    return secret_values(os.environ, read_config(session.home).secrets)


def _print_live(log: _Log, printer: _Printer, tail: int | None, *, follow: bool) -> None:
    live = LiveLog(log.session.home.run(log.run) / f"log.{log.attempt}")
    try:
        if not live.exists and not log.goes_on:
            raise InputError(
                f"There is no log of attempt {log.attempt} of run {log.run[:SHORT]}.",
                remedy="It printed nothing, a later attempt took its place, or it was swept; "
                f"see `still show {log.run[:SHORT]}`.",
                code="logs.none",
            )
        printer.first(live.new(), tail)
        while follow and log.goes_on and not log.deserted:
            time.sleep(_POLL_SECONDS)
            printer.more(live.new())
        printer.more(live.new())  # what came between the last look and the end
    finally:
        live.close()


def _how(run: Run, attempt: int) -> str:
    """Why a log that was followed is over although its run did not succeed."""
    if attempt < run.attempts:
        return f"Attempt {attempt} did not succeed; the latest is {run.attempts}."
    if run.going_on:
        return "Its worker is gone, and no process advances this registry to record how it ended."
    again = " It is tried again by itself." if run.goes_on_by_itself else ""
    return f"Attempt {attempt} is over: {render.clean(run.ending)}.{again}"


@dataclass(frozen=True, kw_only=True)
class _Log:
    """The log of one attempt, and whether more will come."""

    session: Session
    run: Digest
    attempt: int

    @property
    def of(self) -> Run:
        """The run as of now."""
        return self.session.state().runs[self.run]

    def recorded(self) -> Digest | None:
        """The stored log, once the attempt has ended and its outcome was recorded."""
        run = self.of
        return run.log if run.attempts == self.attempt else self._earlier()

    def _earlier(self) -> Digest | None:
        """The stored log of an attempt that another one followed; only the ledger knows it."""
        from stillhouse.registry.ledger.ledger import LedgerReader

        found = None
        for lines in LedgerReader(self.session.ledger.path).chunks():
            for line in lines:
                if line.type in (RunFailed.TYPE, RunSucceeded.TYPE):
                    if self.run.encode() in line.body:
                        data = line.event().data
                        mine = (data["run"], data["attempt"]) == (self.run, self.attempt)
                        found = data.get("log") if mine else found
                elif line.type == BytesSwept.TYPE and found in line.event().data.get("orphans", ()):
                    found = None
        return found

    @property
    def goes_on(self) -> bool:
        """Whether the attempt has no recorded end."""
        run = self.of
        return run.going_on and run.attempts == self.attempt

    @property
    def deserted(self) -> bool:
        """Whether its worker is gone, and nobody is there who would record that."""
        home = self.session.home
        return not held(home.run_lock(self.run)) and not held(home.reactor_lock)

    @property
    def succeeded(self) -> bool:
        """Whether it ended well, be it recorded or not."""
        from stillhouse.phases.workers.job import read_outcome

        run = self.of
        if self.goes_on:
            outcome = read_outcome(self.session.home.run(self.run), self.attempt)
            return outcome is not None and outcome.status == "succeeded"
        return run.attempts == self.attempt and run.status is RunStatus.SUCCEEDED


class _Printer:
    """Writes what was printed, without secrets, line by line."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets
        self._spelt = [secret.encode() for secret in secrets]
        # A secret of several lines is only recognised whole.
        self._kept_back = max((len(s) for s in self._spelt if b"\n" in s), default=0)
        self._longest = max(map(len, self._spelt), default=0)
        self._rest = b""
        self._after_gap = False

    def first(self, pieces: Iterable[Piece], tail: int | None) -> None:
        """Take in what is there already, of which only the last `tail` lines are asked for."""
        if tail is None:
            self.more(pieces)
            return
        lines = self._told(pieces).splitlines(keepends=True)
        waiting = len(self._rest.splitlines())
        self._write(b"".join(lines[len(lines) - max(0, min(tail - waiting, len(lines))) :]))
        if tail == 0:
            self._rest = b""

    def more(self, pieces: Iterable[Piece]) -> None:
        """Take in what came; the line that is not complete yet waits."""
        self._write(self._told(pieces))

    def _told(self, pieces: Iterable[Piece]) -> bytes:
        """What can be told now. Whatever a gap cuts through is left out: half a secret too."""
        from stillhouse.phases.workers.logs import after_gap, before_gap, gap

        told = b""
        for piece in pieces:
            if isinstance(piece, Gap):
                told += before_gap(self._rest, self._secrets) + gap(piece.missing)
                self._rest, self._after_gap = b"", True
            elif self._after_gap and piece:
                self._rest, self._after_gap = after_gap(piece, self._secrets), False
            else:
                self._rest += piece
        return told + self._scrubbed(self._taken())

    def _taken(self) -> bytes:
        """Take what can be told off the rest: whole lines, and no part of a secret."""
        room = max(0, len(self._rest) - self._kept_back)
        end = self._rest.rfind(b"\n", 0, room) + 1
        if not end and room > _LONGEST_LINE:
            # No URL has a blank in it, so none of its parts is told without the others.
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

    def end(self) -> None:
        """Write what is left."""
        self._write(self._scrubbed(self._rest))
        self._rest = b""

    def _scrubbed(self, data: bytes) -> bytes:
        from stillhouse.phases.workers.logs import scrubbed

        return scrubbed(data, self._secrets)

    @staticmethod
    def _write(data: bytes) -> None:
        if render.at_terminal():
            for text in data.decode("utf-8", errors="replace").splitlines():
                render.line(render.clean(text.expandtabs()))
        elif data:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
        render.flush()
