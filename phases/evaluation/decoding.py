"""What a model writes: the value of an argument slot, and a free answer.

Greedy, token by token. Decoding stops as soon as the outcome is certain: a slot's value is complete
or can no longer become a right one, a free answer has ended or can no longer be JSON. Stopping
early changes no count, and a model that writes nonsense costs no more than one that does not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stillhouse.phases.data.calls import ArgumentSlot, accepts, parse_call, read_slot, skeleton
from stillhouse.phases.data.records import Record
from stillhouse.phases.teachers import ChatTokenizer
from stillhouse.schemas import canonical
from stillhouse.schemas.errors import InputError

_PARTIAL = 6
"""JSON's error names a place at most this far before the end of a text that is merely unfinished
(`\\ud83`, `fals`)."""


class Predictor(Protocol):
    """A model reading one example (reading.py)."""

    def predicted_after(self, token_ids: Sequence[int], /) -> int:
        """The most likely next token."""
        ...


@dataclass(frozen=True, kw_only=True)
class SlotTask:
    """One argument whose value is to be decoded."""

    slot: ArgumentSlot
    prefix_ids: tuple[int, ...]
    """Prompt and forced skeleton, as tokens."""
    right: tuple[Any, ...]
    """Every acceptable value."""
    budget: int
    """Most tokens to decode."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was decoded, and whether it is right (a slot) or valid (a free answer)."""

    text: str
    good: bool


def slot_tasks(record: Record, tokenizer: ChatTokenizer) -> tuple[SlotTask, ...]:
    """The slots of a record's right call, in order; none when its answer is not a call."""
    call = parse_call(record.answer)
    if call is None:
        return ()
    acceptable = record.acceptable or {}
    return tuple(
        _task(slot, acceptable.get(slot.argument, (slot.value,)), record, tokenizer)
        for slot in skeleton(call)
    )


def _task(
    slot: ArgumentSlot, right: Sequence[Any], record: Record, tokenizer: ChatTokenizer
) -> SlotTask:
    prompt = record.token_ids[: record.answer_start]
    longest = max(len(tokenizer.encode(json.dumps(v, ensure_ascii=False))) for v in right)
    return SlotTask(
        slot=slot,
        prefix_ids=(*prompt, *tokenizer.encode(slot.prefix)),
        right=tuple(right),
        budget=2 * longest + 4,
    )


def decode_slot(model: Predictor, task: SlotTask, tokenizer: ChatTokenizer) -> Written:
    """Decode one slot's value after its forced prefix, and compare it with the right ones."""
    filled = None

    def certain(text: str) -> bool:
        nonlocal filled
        filled = read_slot(task.slot, text)
        return filled is not None or not _may_be_right(task, text)

    text, _ = _decode(model, task.prefix_ids, task.budget, tokenizer, certain)
    return Written(text=text, good=filled is not None and accepts(task.right, filled.value))


def decode_freely(
    model: Predictor, prompt_ids: Sequence[int], budget: int, tokenizer: ChatTokenizer
) -> Written:
    """Decode an answer to a prompt; good when it ends in time and is one JSON object."""

    def certain(text: str) -> bool:
        return not text.lstrip().startswith("{"[: len(text.lstrip())]) or broken_json(text)

    text, ended = _decode(model, prompt_ids, budget, tokenizer, certain)
    return Written(text=text, good=ended and _is_object(text))


def _decode(
    model: Predictor,
    prefix_ids: Sequence[int],
    budget: int,
    tokenizer: ChatTokenizer,
    certain: Callable[[str], bool],
) -> tuple[str, bool]:
    """Greedy text after a prefix, until it is certain, ended (True) or the budget is spent."""
    written: list[int] = []
    while len(written) < budget:
        token = model.predicted_after([*prefix_ids, *written])
        if token in tokenizer.eos_ids:
            # What follows a number completes it, so the end must be seen as something that follows.
            certain(tokenizer.decode(written) + "\n")
            return tokenizer.decode(written), True
        written.append(token)
        if certain(tokenizer.decode(written)):
            break
    return tokenizer.decode(written), False


def broken_json(text: str) -> bool:
    """Whether no continuation of `text` is a JSON value."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        unfinished = error.msg.startswith("Unterminated string") or not text.strip()
        return not unfinished and error.pos < len(text.rstrip()) - _PARTIAL
    except RecursionError:
        return True
    return False


def _is_object(text: str) -> bool:
    try:
        canonical.decode(text.encode("utf-8", "replace"))
    except InputError:
        return False
    return True


def _may_be_right(task: SlotTask, text: str) -> bool:
    """Whether a continuation of `text` may be a right value. Says False only when none can be."""
    if task.slot.is_text:
        begun = _letters(text)
        # An escape is not spelled out here; what it may stand for is left to the comparison.
        return "\\" in text or any(_letters(str(v)).startswith(begun) for v in task.right)
    begun = text.lstrip()
    starts = "".join(_starts(v) for v in task.right)
    return not begun or (begun[0] in starts and not broken_json(begun))


def _starts(value: object) -> str:
    """The characters that the JSON of a value equal to this one may start with."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "-0123456789"
    return json.dumps(value)[0]


def _letters(text: str) -> str:
    """What two texts share whenever they count as equal: letters and digits, without case."""
    return "".join(c.casefold() for c in text if c.isalnum())
