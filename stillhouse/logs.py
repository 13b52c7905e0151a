"""What a run printed, or prints: the log of one attempt, with the values of secrets hidden.

The log of an attempt that goes on is a file that grows; of one that ended it is in the store.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillhouse.phases.workers.livelog import LiveLog, Piece
from stillhouse.phases.workers.redaction import Redactor
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
_NONE = "logs.none"
_DESERTED = "Its worker is gone, and no process advances this registry to record how it ended."


def find_log(session: Session, reference: str, *, attempt: int | None = None) -> Log:
    """The log of an attempt, by default the latest, of the run that `reference` names.

    Raises ReferenceError_ when there is no such run, InputError when it has no such attempt.
    """
    run = find_run(session.state(), reference)
    if attempt is not None and attempt > run.attempts:
        raise InputError(
            f"{run.short_name} has no attempt {attempt}: its latest is {run.attempts}.",
            remedy=f"Name one from 1 to {run.attempts}, or leave --attempt out.",
            code="logs.no_attempt",
        )
    return Log(session=session, run=run.key, attempt=attempt or run.attempts)


def log_end(session: Session, run: Digest, lines: int) -> list[str]:
    """The last lines of the log of a run's latest attempt; none where there is no log.

    Raises IntegrityError when the stored one is damaged.
    """
    try:
        text = b"".join(find_log(session, run).read(tail=lines))
    except InputError as error:
        if error.code == _NONE:
            return []
        raise
    return text.decode("utf-8", errors="replace").splitlines()


@dataclass(frozen=True, kw_only=True)
class Log:
    """The log of one attempt."""

    session: Session
    run: Digest
    attempt: int

    def read(self, *, tail: int | None = None, follow: bool = False) -> Iterator[bytes]:
        """What was printed, in pieces; an empty one where nothing came.

        tail: only so many lines, the last ones, of what is there already. follow: go on until the
        attempt ends, or its worker is gone and no process is there to record that.

        Raises InputError when there is no log, IntegrityError when the stored one is damaged.
        """
        redactor = Redactor(self.session.secrets)
        parts = self._parts(follow=follow)
        yield redactor.feed(next(parts), tail)
        for pieces in parts:
            yield redactor.feed(pieces)
        yield redactor.finish()

    def why_unsuccessful(self) -> str:
        """Why the log is over although its run did not succeed; empty when it did.

        A success counts from the moment when its worker wrote it down, recorded or not.
        """
        run = self._run
        if self._goes_on:
            return "" if self._left_success() else _DESERTED
        if self.attempt < run.attempts:
            return f"Attempt {self.attempt} did not succeed; the latest is {run.attempts}."
        if run.status is RunStatus.SUCCEEDED:
            return ""
        again = " It is tried again by itself." if run.goes_on_by_itself else ""
        return f"Attempt {self.attempt} is over: {run.ending}.{again}"

    def _parts(self, *, follow: bool) -> Iterator[Sequence[Piece]]:
        """What is there already, then what comes."""
        stored = self._stored()
        if stored is not None:
            yield [self.session.store.read(stored)]
            return
        with closing(LiveLog(self.session.home.run(self.run) / f"log.{self.attempt}")) as live:
            if not live.exists and not self._goes_on:
                raise self._none()
            yield live.new()
            while follow and self._goes_on and not self._deserted:
                time.sleep(_POLL_SECONDS)
                yield live.new()
            yield live.new()  # what came between the last look and the end

    def _stored(self) -> Digest | None:
        """The stored log, once the attempt has ended and its outcome was recorded."""
        run = self._run
        return run.log if run.attempts == self.attempt else self._stored_before()

    def _stored_before(self) -> Digest | None:
        """The stored log of an attempt that another one followed; only the ledger knows it."""
        found = None
        for lines in self.session.reader().chunks():
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
    def _run(self) -> Run:
        """The run as of now."""
        return self.session.state().runs[self.run]

    @property
    def _goes_on(self) -> bool:
        """Whether the attempt has no recorded end."""
        run = self._run
        return run.going_on and run.attempts == self.attempt

    @property
    def _deserted(self) -> bool:
        """Whether its worker is gone, and nobody is there who would record that."""
        home = self.session.home
        return not held(home.run_lock(self.run)) and not held(home.reactor_lock)

    def _left_success(self) -> bool:
        from stillhouse.phases.workers.job import read_outcome

        outcome = read_outcome(self.session.home.run(self.run), self.attempt)
        return outcome is not None and outcome.status == "succeeded"

    def _none(self) -> InputError:
        run = self.run[:SHORT]
        return InputError(
            f"There is no log of attempt {self.attempt} of run {run}.",
            remedy="It printed nothing, a later attempt took its place, or it was swept; "
            f"see `still show {run}`.",
            code=_NONE,
        )
