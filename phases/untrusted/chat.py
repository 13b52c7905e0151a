"""Chat templates: programs by strangers, rendered in a process of their own.

Owns when a rendering is given up. Rules: the template runs in jinja2's immutable sandbox, in a
child without our environment variables (phases/untrusted/chat_child.py); the kernel ends the child
when it has used its processor time, whatever it is doing; text and memory are bounded. Time is
processor time, so that a busy machine does not refuse an honest template.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stillhouse.schemas.errors import PhaseError, UntrustedFileError

MAX_TEMPLATE = 1 << 18
"""Characters of a template; the longest in use have some 30 000."""
MAX_TEXT = 1 << 20
"""Characters of one rendered chat, unless told otherwise."""

Chat = Sequence[Mapping[str, Any]]
"""Messages: `{"role": …, "content": …}` and whatever else the template reads."""

_CHILD = Path(__file__).with_name("chat_child.py")
# What an interpreter may need to start; tokens and keys stay with us.
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_START_SECONDS = 120.0
# A template cannot sleep: this only ends a child that is stopped or starved.
_WALL_FACTOR = 30.0


def check_chat_template(template: str) -> None:
    """Refuse a template that is longer than any honest one. Raises UntrustedFileError."""
    if len(template) > MAX_TEMPLATE:
        raise _refusal(f"has {len(template)} characters, more than {MAX_TEMPLATE}", "too_long")


def render_chat(
    template: str,
    chat: Chat,
    *,
    variables: Mapping[str, str],
    add_generation_prompt: bool = True,
    seconds: float = 2.0,
    max_chars: int = MAX_TEXT,
) -> str:
    """Render one chat; see `render_chats`."""
    return render_chats(
        template,
        [chat],
        variables=variables,
        add_generation_prompt=add_generation_prompt,
        seconds=seconds,
        max_chars=max_chars,
    )[0]


def render_chats(
    template: str,
    chats: Sequence[Chat],
    *,
    variables: Mapping[str, str],
    add_generation_prompt: bool = True,
    seconds: float = 2.0,
    max_chars: int = MAX_TEXT,
) -> list[str]:
    """Render each chat with one child process; equal to what transformers' tokenizers render.

    `variables` are the special tokens by the names that templates use (`bos_token`, `eos_token`
    …). `seconds` of processor time and `max_chars` hold for each chat. There is no `strftime_now`:
    a template that asks whether it exists falls back to a fixed date, so that a prompt is the same
    every day.

    Raises UntrustedFileError: `chat_template.endless`, `.too_long`, `.failed`.
    """
    with _renderer(template, variables, add_generation_prompt, seconds, max_chars) as child:
        return [_text(child.ask(_listed(chat), seconds * _WALL_FACTOR)) for chat in chats]


def try_chats(
    template: str,
    chats: Sequence[Chat],
    *,
    variables: Mapping[str, str],
    seconds: float = 2.0,
    max_chars: int = MAX_TEXT,
) -> list[str | UntrustedFileError]:
    """Render each chat as `render_chats` does, or tell why the template refuses it.

    Raises UntrustedFileError when the renderer itself cannot go on: `chat_template.endless`, a
    template that is none.
    """
    found: list[str | UntrustedFileError] = []
    with _renderer(template, variables, True, seconds, max_chars) as child:
        for chat in chats:
            answer = child.ask(_listed(chat), seconds * _WALL_FACTOR)
            found.append(str(answer["text"]) if "text" in answer else _told(answer))
    return found


def _listed(chat: Chat) -> list[dict[str, Any]]:
    return list(map(dict, chat))


def _told(answer: Mapping[str, Any]) -> UntrustedFileError:
    return _refusal(str(answer["what"])[:300], str(answer["fault"]))


def _text(answer: Mapping[str, Any]) -> str:
    if "text" not in answer:
        raise _told(answer)
    return str(answer["text"])


class _Child:
    """One question, one answer: JSON lines over two pipes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None  # noqa: S101  # opened with pipes, below
        assert process.stdout is not None  # noqa: S101
        self._process = process
        self._questions = process.stdin
        self._answers = process.stdout.fileno()

    def ask(self, question: object, wall: float) -> dict[str, Any]:
        try:
            self._questions.write(json.dumps(question).encode() + b"\n")
            self._questions.flush()
        except BrokenPipeError as error:
            raise self._died() from error
        return self._line(time.monotonic() + wall)

    def _line(self, deadline: float) -> dict[str, Any]:
        received = bytearray()
        while not received.endswith(b"\n"):
            left = max(deadline - time.monotonic(), 0.0)
            if not select.select([self._answers], [], [], left)[0]:
                raise _refusal("did not finish", "endless")
            piece = os.read(self._answers, 1 << 16)
            if not piece:
                raise self._died()
            received += piece
        answer: dict[str, Any] = json.loads(received)
        return answer

    def _died(self) -> UntrustedFileError | PhaseError:
        code = self._process.wait()
        if code == -signal.SIGPROF:
            return _refusal("did not finish in its processor time", "endless")
        if code < 0:
            return _refusal(f"broke its renderer ({signal.Signals(-code).name})", "failed")
        return PhaseError(
            f"The renderer of chat templates ended with status {code}.",
            remedy="Check that jinja2 3.1.6 or later is installed (`still doctor`).",
            code="chat_template.renderer",
        )


@contextmanager
def _renderer(
    template: str,
    variables: Mapping[str, str],
    add_generation_prompt: bool,  # noqa: FBT001  # as the callers name it
    seconds: float,
    max_chars: int,
) -> Iterator[_Child]:
    """A child that has compiled the template."""
    check_chat_template(template)
    settings = {
        "template": template,
        "variables": {**variables, "add_generation_prompt": add_generation_prompt},
        "seconds": seconds,
        "max_chars": max_chars,
    }
    with _child() as child:
        _text(child.ask(settings, _START_SECONDS))
        yield child


@contextmanager
def _child() -> Iterator[_Child]:
    process = subprocess.Popen(
        [sys.executable, "-I", str(_CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in _INHERITED if name in os.environ},
    )
    try:
        yield _Child(process)
    finally:
        process.kill()
        process.communicate()


def _refusal(what: str, fault: str) -> UntrustedFileError:
    return UntrustedFileError(
        f"The chat template {what}.",
        remedy="Give the model's own chat template (chat_template.jinja, or chat_template in"
        " tokenizer_config.json), and messages in the roles it knows.",
        code=f"chat_template.{fault}",
    )
