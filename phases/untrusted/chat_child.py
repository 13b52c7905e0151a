"""The process that renders chat templates: run by phases/untrusted/chat.py, never imported.

Reads JSON lines, answers JSON lines: first the settings, then one chat after the other. Imports
nothing of ours, so that it starts fast and knows nothing. Before a template runs, the process gives
up opening files, writing them, starting processes, and more than 1 GiB of memory; while one runs, a
timer of processor time is set whose signal nobody handles.
"""

from __future__ import annotations

import codecs
import json
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jinja2
import jinja2.debug  # here, because jinja2 loads it at the first error, when it is too late
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

_MEMORY = 1 << 30


class _Generation(Extension):
    """`{% generation %}` marks what the assistant says; here it renders as if it were not there."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it as a plain set

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """Refuses names of Python's internals."""

    def __setitem__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a namespace may not hold {name!r}")
        super().__setitem__(name, value)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _Generation],
    )
    environment.filters["tojson"] = _tojson
    environment.globals = {
        "range": environment.globals["range"],  # the sandbox's, which refuses long ones
        "dict": _dict,
        "namespace": _namespace,
        "raise_exception": _raise_exception,
    }
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002  # templates may give them in order
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """Encode as transformers does: plain JSON, without jinja2's escapes for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _dict(*arguments: Any, **named: Any) -> dict[Any, Any]:  # noqa: ANN401  # as dict itself
    return dict(*arguments, **named)


def _namespace(**named: object) -> _Namespace:
    made = _Namespace()
    for name, value in named.items():
        made[name] = value
    return made


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


class _TooLongError(Exception):
    """The text has more characters than it may have."""


class _Renderer:
    """One template, and what it may use."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._seconds = float(settings["seconds"])
        self._max_chars = int(settings["max_chars"])
        self._variables = dict(settings["variables"])
        self._source = str(settings["template"])
        self._template: jinja2.Template | None = None

    def compile(self) -> str:
        # Compiling runs constant expressions already.
        self._template = _environment().from_string(self._source)
        return ""

    def render(self, chat: list[Any]) -> str:
        assert self._template is not None  # noqa: S101  # asked in this order
        pieces: list[str] = []
        size = 0
        context = {"messages": chat, "tools": None, "documents": None, **self._variables}
        for piece in self._template.generate(context):
            size += len(piece)
            if size > self._max_chars:
                raise _TooLongError
            pieces.append(piece)
        return "".join(pieces)

    def bounded(self, work: Callable[[], str]) -> dict[str, str]:
        """Do `work` under the timer; the answer says what came of it."""
        signal.setitimer(signal.ITIMER_PROF, self._seconds)
        try:
            return {"text": work()}
        except (OverflowError, RecursionError) as error:  # the sandbox's range, a macro in itself
            return {"fault": "endless", "what": f"asks for endless work ({error})"}
        except (_TooLongError, MemoryError):
            return {"fault": "too_long", "what": f"renders more than {self._max_chars} characters"}
        except Exception as error:  # noqa: BLE001  # a stranger's program may raise anything
            return {"fault": "failed", "what": f"failed: {type(error).__name__}: {error}"[:300]}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)


def _give_up_rights() -> None:
    codecs.lookup("unicode_escape")  # by which jinja2 reads texts; loaded on first use
    limits = {resource.RLIMIT_FSIZE: 0, resource.RLIMIT_NOFILE: 3, resource.RLIMIT_NPROC: 0}
    if sys.platform == "linux":  # macOS does not enforce it, and may refuse to set it
        limits[resource.RLIMIT_AS] = _MEMORY
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def _answer(answer: Mapping[str, str]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Serve one parent until it closes the pipe."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    questions = sys.stdin.buffer
    renderer = _Renderer(json.loads(questions.readline()))
    _give_up_rights()
    _answer(renderer.bounded(renderer.compile))
    for line in questions:
        chat = json.loads(line)
        _answer(renderer.bounded(partial(renderer.render, chat)))


if __name__ == "__main__":
    main()
