"""The verbs of `still`, and where each one's function is.

Rules: one literal table; only the module of the verb that was typed is imported, so a command pays
for nothing but itself. `--registry DIR` may stand before or after the verb.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from stillhouse.schemas.errors import InputError

VERBS = {
    "init": "stillhouse.cli.verbs.init",
    "publish": "stillhouse.cli.verbs.publish",
    "run": "stillhouse.cli.verbs.run",
    "watch": "stillhouse.cli.verbs.watch",
    "ls": "stillhouse.cli.verbs.ls",
    "show": "stillhouse.cli.verbs.show",
    "cat": "stillhouse.cli.verbs.cat",
    "checkout": "stillhouse.cli.verbs.checkout",
    "lineage": "stillhouse.cli.verbs.lineage",
    "diff": "stillhouse.cli.verbs.diff",
    "blame": "stillhouse.cli.verbs.blame",
    "log": "stillhouse.cli.verbs.log",
    "sql": "stillhouse.cli.verbs.sql",
    "tag": "stillhouse.cli.verbs.tag",
    "runs": "stillhouse.cli.verbs.runs",
    "logs": "stillhouse.cli.verbs.logs",
    "cancel": "stillhouse.cli.verbs.cancel",
    "retry": "stillhouse.cli.verbs.retry",
    "waive": "stillhouse.cli.verbs.waive",
    "gates": "stillhouse.cli.verbs.gates",
    "why": "stillhouse.cli.verbs.why",
    "why-not": "stillhouse.cli.verbs.why_not",
    "manifest": "stillhouse.cli.verbs.manifest",
    "verify": "stillhouse.cli.verbs.verify",
    "audit": "stillhouse.cli.verbs.audit",
    "du": "stillhouse.cli.verbs.du",
    "gc": "stillhouse.cli.verbs.gc",
    "evict": "stillhouse.cli.verbs.evict",
    "rewind": "stillhouse.cli.verbs.rewind",
    "repair": "stillhouse.cli.verbs.repair",
    "fsck": "stillhouse.cli.verbs.fsck",
    "doctor": "stillhouse.cli.verbs.doctor",
}
"""Verb -> the module that holds a function of that name (`-` is `_` there)."""

_REGISTRY = "--registry"


def run(arguments: Sequence[str]) -> int:
    """Parse and execute one command line; returns the exit code.

    Raises every StillError that the command meets; usage errors are printed here and give 2.
    """
    _require_utf8(arguments)
    given = _registry_first(arguments)
    named = next(iter(given[2:] if given[:1] == [_REGISTRY] else given), "")
    verbs = (named,) if named in VERBS else VERBS
    try:
        typer.main.get_command(build(verbs)).main(args=given, prog_name="still")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    return 0


def build(verbs: Iterable[str]) -> typer.Typer:
    """A typer application with these verbs."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,  # rich's help costs 60 ms and says the same
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_still)
    for verb in verbs:
        app.command(verb)(getattr(import_module(VERBS[verb]), verb.replace("-", "_")))
    return app


def _still(
    context: typer.Context,
    *,
    registry: Annotated[
        Path | None,
        typer.Option(
            _REGISTRY,
            metavar="DIR",
            help="The registry's folder. Default: STILL_REGISTRY, else the nearest .still/.",
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001  # answered by its callback
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=lambda asked: _version() if asked else None,
            help="Print the version.",
        ),
    ] = False,
) -> None:
    """From a teacher model to a Core ML release, with proof for every step.

    REF is a digest prefix (4 characters or more), a tag, or kind@latest. Exit codes: 0 done, 1 a
    gate or a run failed, 2 bad usage or input.
    """
    context.obj = registry


def _version() -> None:
    from stillhouse.cli.version import VERSION

    typer.echo(f"still {VERSION}")
    raise typer.Exit


def _require_utf8(arguments: Sequence[str]) -> None:
    """Nothing that the ledger could not hold gets past here, be it a path, a name or a reason."""
    for word in arguments:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"The argument {word!a} is not UTF-8.",
                remedy="Rename the file, or spell it in UTF-8; nothing was recorded.",
                code="usage.not_utf8",
            ) from error


def _registry_first(arguments: Sequence[str]) -> list[str]:
    """The same command line with `--registry DIR` in front, wherever it stood before a `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for place, word in enumerate(arguments[:end]):
        rest = [*arguments[:place], *arguments[place + 1 :]]
        if word.startswith(f"{_REGISTRY}="):
            return [_REGISTRY, word.partition("=")[2], *rest]
        if word == _REGISTRY and place + 1 < end:
            return [_REGISTRY, rest.pop(place), *rest]
    return list(arguments)
