"""The `still` command's entry point: what comes in, what goes out, and with which exit code.

Rules: `--version` is answered before anything is imported. Stdout carries only what was asked for.
Errors go to stderr as two sentences, or with `--json` as one JSON object. A reader that goes away
(`still log | head`) causes no error message.

Exit codes: 0 done, 1 a gate or a run failed (or bytes are not what was recorded), 2 bad usage or
input, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys

TYPE_CHECKING = False  # known to type checkers; `typing` and `collections` cost 10 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
"""128 + SIGINT, as shells spell it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Raises nothing that a command meets."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        return _version()
    # Looking for pydantic plugins reads the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from stillhouse.cli.app import run  # typer costs 90 ms: only from here on
    from stillhouse.schemas.errors import StillError

    _escape_what_cannot_be_written()
    try:
        code = run(given)
        sys.stdout.flush()
    except StillError as error:
        return _tell(error, as_json="--json" in given)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except Exception:  # noqa: BLE001  # the rim: nothing is swallowed, the traceback is printed
        return _internal()
    return code


def _escape_what_cannot_be_written() -> None:
    """Names that are not UTF-8 shall be shown escaped (in JSON too), not end the command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _version() -> int:
    from stillhouse.cli.version import VERSION

    sys.stdout.write(f"still {VERSION}\n")
    return 0


def _tell(error: object, *, as_json: bool) -> int:
    from stillhouse.cli.screen import here
    from stillhouse.schemas.errors import StillError

    assert isinstance(error, StillError)  # noqa: S101  # caught as such
    here().error(error, as_json=as_json)
    return error.exit_code


def _reader_gone() -> int:
    # The interpreter flushes stdout once more on its way out; that must not fail loudly either.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _internal() -> int:
    import traceback

    traceback.print_exc()
    sys.stderr.write(
        "still: This is an error in stillhouse itself, not in what you did.\n"
        "  Next: what was recorded is safe (see `still fsck`); please report the lines above.\n"
    )
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
