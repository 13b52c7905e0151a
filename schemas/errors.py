"""The one error tree. Every error says what happened and what to do next.

    StillError                      anything that the user hears of
     ├─ InputError                  bad usage or input                           exit 2
     │   ├─ ReferenceError_         a REF names nothing, or more than one thing
     │   ├─ RecipeError             a recipe or policy cannot be read or resolved
     │   └─ UntrustedFileError      a file from outside that we refuse to open
     ├─ IntegrityError              bytes or events are not what was recorded    exit 1
     ├─ PhaseError                  a phase could not do its work                exit 1
     ├─ BusyError                   someone else holds what we need              exit 1
     └─ StorageError                the disk refused: full, read-only, fsync     exit 1

Exit codes: 0 done, 1 a gate or a run failed, 2 bad usage or input.
"""

from __future__ import annotations


class StillError(Exception):
    """An error that is shown to the user as two sentences.

    `message` says what happened, `remedy` what to do next; `code` is a stable, dotted name for
    scripts (`store.corrupt`, `recipe.unknown_tier` …).
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.code = code

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()

    def as_dict(self) -> dict[str, str]:
        """The error as it is printed by `--json` and recorded in `run.failed`."""
        return {"code": self.code, "message": self.message, "remedy": self.remedy}


class InputError(StillError):
    """Bad usage or input."""

    exit_code = 2


class ReferenceError_(InputError):  # noqa: N801, N818  # `ReferenceError` is a builtin
    """A REF (digest prefix, tag, `kind@latest`) that names nothing, or more than one thing."""


class RecipeError(InputError):
    """A recipe or policy that cannot be read or resolved."""


class UntrustedFileError(InputError):
    """A file from outside that is malformed or dangerous, and therefore was not opened."""


class IntegrityError(StillError):
    """Bytes or events are not what was recorded. Never repaired silently."""


class PhaseError(StillError):
    """A phase could not do its work; recorded as `run.failed`."""


class BusyError(StillError):
    """Another process holds what we need, and did not let go in time."""


class StorageError(StillError):
    """The file system refused a write: full, read-only, or a failed fsync."""
