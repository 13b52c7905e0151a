"""Function calls as text: one answer form, its argument slots, and the leaderboard that has them.

Rules: a call is written in exactly one way (`call_text`), so the same call always has the same
tokens; what is read back is strict JSON and nothing is repaired; a schema leaves here as plain JSON
Schema whatever dialect it came in.

The Berkeley Function-Calling Leaderboard (BFCL v4, the files of the package `bfcl-eval`) has one
JSON object a line. Questions: `id`, `question` (a list of conversations, each a list of messages),
`function` (a list of schemas with Python, Java or JavaScript type names). Possible answers: `id`,
`ground_truth` (a list of `{function: {argument: [every right value]}}`). The value "" in such a
list means that the argument may be left out. An object's members hold lists of right values too.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from stillhouse.schemas import canonical
from stillhouse.schemas.canonical import Json
from stillhouse.schemas.errors import InputError

_TYPES = {
    "object": ("object", "dict", "hashmap", "map"),
    "array": ("array", "list", "tuple", "arraylist"),
    "integer": ("integer", "int", "long", "short", "byte"),
    "number": ("number", "float", "double"),
    "boolean": ("boolean", "bool"),
    "string": ("string", "str", "char"),
    "null": ("null", "none"),
}
_JSON_TYPE = {spelled: name for name, spellings in _TYPES.items() for spelled in spellings}
_NOT_SCHEMA = frozenset({"optional"})
"""Keys that BFCL adds to a schema, whose meaning `required` already holds."""
_MOST_ALTERNATIVES = 64
"""An object whose members have many right values is expanded to at most this many objects."""
_DROPPED_BY_COMPARISON = str.maketrans("'", '"', " ,./-_*^")
"""BFCL compares texts without case, these characters, or the kind of quote."""

T = TypeVar("T")

INSTRUCTION = 'Answer with one JSON call: {"name":...,"arguments":{...}}'


class MalformedExampleError(ValueError):
    """An example that does not say what it must; its text says why."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One function call."""

    name: str
    arguments: Json
    """In the order in which they are written."""


@dataclass(frozen=True, kw_only=True)
class ArgumentSlot:
    """One argument's place in a call: what stands before its value, and the value itself."""

    argument: str
    prefix: str
    """The call from its first character to the value; a text's opening quote is part of it."""
    value: Any

    @property
    def is_text(self) -> bool:
        """Whether the value is a string, so that the prefix ends inside its quotes."""
        return isinstance(self.value, str)


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A value that was read out of a slot."""

    value: Any


@dataclass(frozen=True, kw_only=True)
class Question:
    """One BFCL example."""

    messages: tuple[dict[str, str], ...]
    tools: tuple[Json, ...]
    answer: str | None = None
    """`call_text` of the right call with the first right value of each argument."""
    acceptable: dict[str, tuple[Any, ...]] | None = None
    """Argument of that call -> every right value."""


# --- calls as text --------------------------------------------------------------------------------


def call_text(call: Call) -> str:
    """The one way to write a call: compact JSON, `name` first, arguments in the call's order."""
    return _json({"name": call.name, "arguments": call.arguments})


def parse_call(text: str) -> Call | None:
    """The call in `text`, or None unless it is one strict JSON call and nothing else."""
    try:
        value = canonical.decode(text.encode())
    except (InputError, UnicodeEncodeError):
        return None
    name, arguments = value.get("name"), value.get("arguments")
    if set(value) != {"name", "arguments"} or not isinstance(name, str):
        return None
    return Call(name=name, arguments=arguments) if isinstance(arguments, dict) else None


def skeleton(call: Call) -> tuple[ArgumentSlot, ...]:
    """The argument slots of a call, each with everything before it as the call has it."""
    slots = []
    written = f'{{"name":{_json(call.name)},"arguments":{{'
    for argument, value in call.arguments.items():
        written += f"{_json(argument)}:"
        slots.append(
            ArgumentSlot(
                argument=argument, prefix=written + '"' * isinstance(value, str), value=value
            )
        )
        written += f"{_json(value)},"
    return tuple(slots)


def read_slot(slot: ArgumentSlot, decoded: str) -> Filled | None:
    """The value at the start of `decoded`, the text that a model wrote after the slot's prefix.

    None while it is unfinished (a number is finished only by what follows it) or when it is not
    JSON; so decode token by token until this answers or the budget is spent.
    """
    text = '"' + decoded if slot.is_text else decoded.lstrip()
    try:
        value, end = _STRICT.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, str | list | dict) and _UNFINISHED.fullmatch(text, end):
        return None
    return Filled(value=value)


def accepts(right: Sequence[Any], value: object) -> bool:
    """Whether `value` is one of the `right` ones, compared as BFCL does.

    Numbers by value (5 is 5.0, true is not 1), texts without case, spaces and `,./-_*^`.
    """
    return any(_comparable(value) == _comparable(each) for each in right)


def _comparable(value: object) -> object:
    if isinstance(value, str):
        return value.lower().translate(_DROPPED_BY_COMPARISON)
    if isinstance(value, bool) or value is None:
        return ("constant", value)
    if isinstance(value, list | tuple):
        return [_comparable(each) for each in value]
    if isinstance(value, dict):
        return {name: _comparable(each) for name, each in value.items()}
    return value


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _refuse(constant: str) -> Any:  # noqa: ANN401  # json's own hook signature
    raise ValueError(constant)


_STRICT = json.JSONDecoder(parse_constant=_refuse)
_UNFINISHED = re.compile(r"(\.|[eE][+-]?)?")
"""What may stand after a number that still goes on: `1.` holds 1, but is on its way to `1.5`."""


# --- schemas --------------------------------------------------------------------------------------


def normalise_tool(raw: object) -> Json:
    """A function schema as `{"name", "description", "parameters"}`, parameters in JSON Schema.

    Takes BFCL's form, OpenAI's (`{"type": "function", "function": …}`), and its own.
    Raises MalformedExampleError.
    """
    inner = raw.get("function", raw) if isinstance(raw, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise MalformedExampleError("a tool needs a `name`")
    parameters = inner.get("parameters", {"type": "object"})
    if not isinstance(parameters, Mapping):
        raise MalformedExampleError(f"the parameters of {inner['name']} are not an object")
    schema = {"properties": {}, **_schema(parameters)}
    return {
        "name": inner["name"],
        "description": str(inner.get("description", "")),
        "parameters": schema,
    }


def _schema(raw: Mapping[str, Any]) -> Json:
    """`raw` with JSON Schema's type names, all the way down."""
    schema: Json = {}
    for key, value in _of(dict, "schema", raw).items():
        if key == "type":
            if kind := _JSON_TYPE.get(str(value).lower()):
                schema["type"] = kind
        elif key == "properties":
            schema[key] = {n: _schema(v) for n, v in _of(dict, key, value).items()}
        elif key == "items":
            schema[key] = _schema(_of(dict, key, value))
        elif key in ("required", "enum"):
            schema[key] = _of(list, key, value)
        elif key not in _NOT_SCHEMA:
            schema[key] = value
    return schema


def _of(kind: type[T], name: str, value: object) -> T:
    if not isinstance(value, kind):
        raise MalformedExampleError(f"`{name}` in a tool's schema is {type(value).__name__}")
    return value


def instructions(tools: Sequence[Mapping[str, Any]]) -> str:
    """What the system prompt says about the tools: one signature a line, `?` marks optional ones.

    Signatures and no descriptions, because a small model's context is short: of 858 BFCL examples
    746 fit 160 tokens this way, 466 with descriptions. Empty when there are no tools.
    """
    return "\n".join([INSTRUCTION, *map(_signature, tools)]) if tools else ""


def _signature(tool: Mapping[str, Any]) -> str:
    required = tool["parameters"].get("required", ())
    arguments = ", ".join(
        f"{name}{'' if name in required else '?'}: {_kind(schema)}"
        for name, schema in tool["parameters"]["properties"].items()
    )
    return f"{tool['name']}({arguments})"


def _kind(schema: Mapping[str, Any]) -> str:
    if schema.get("enum"):
        return "|".join(_json(value) for value in schema["enum"])
    kind = str(schema.get("type", "any"))
    return _kind(schema.get("items", {})) + "[]" if kind == "array" else kind


def call_fault(call: Call, tools: Sequence[Mapping[str, Any]]) -> str | None:
    """Why `call` does not fit the tools, or None: its name, required arguments, and their types."""
    tool = next((t for t in tools if t["name"] == call.name), None)
    if tool is None:
        return f"{call.name} is not one of the tools"
    properties = tool["parameters"]["properties"]
    for name in tool["parameters"].get("required", ()):
        if name not in call.arguments:
            return f"{call.name} needs {name}"
    for name, value in call.arguments.items():
        if name not in properties:
            return f"{call.name} has no argument {name}"
        if not _fits(value, properties[name].get("type")):
            return f"{name} of {call.name} is not of type {properties[name]['type']}"
    return None


def _fits(value: object, kind: str | None) -> bool:
    if kind is None:
        return True
    if isinstance(value, bool):
        return kind == "boolean"
    python: dict[str, tuple[type, ...]] = {
        "object": (dict,),
        "array": (list, tuple),
        "integer": (int,),
        "number": (int, float),
        "string": (str,),
        "null": (type(None),),
    }
    return isinstance(value, python.get(kind, ()))


# --- BFCL -----------------------------------------------------------------------------------------


class _QuestionLine(BaseModel):
    """What is read of a line of a question file; the rest is for multi-turn tasks."""

    question: tuple[tuple[dict[str, str], ...], ...]
    function: tuple[dict[str, Any], ...]


class _TruthLine(BaseModel):
    """What is read of a line of an answer file."""

    ground_truth: tuple[dict[str, dict[str, list[Any]]], ...]


def read_bfcl(question: Mapping[str, Any], truth: Mapping[str, Any] | None) -> Question:
    """One BFCL question and, when it is known, its right call.

    Raises MalformedExampleError when it is not one conversation of one turn with one right call, or
    when that call does not fit its schema.
    """
    try:
        asked = _QuestionLine.model_validate(question)
        known = None if truth is None else _TruthLine.model_validate(truth)
    except ValidationError as error:
        first = error.errors()[0]
        raise MalformedExampleError(
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from error
    if len(asked.question) != 1:
        raise MalformedExampleError("only one turn is supported")
    tools = tuple(normalise_tool(tool) for tool in asked.function)
    if known is None:
        return Question(messages=asked.question[0], tools=tools)
    answer, acceptable = _right_call(known, tools)
    return Question(messages=asked.question[0], tools=tools, answer=answer, acceptable=acceptable)


def _right_call(
    known: _TruthLine, tools: Sequence[Mapping[str, Any]]
) -> tuple[str, dict[str, tuple[Any, ...]]]:
    if [len(calls) for calls in known.ground_truth] != [1]:
        raise MalformedExampleError("only one right call is supported")
    ((name, possible),) = known.ground_truth[0].items()
    tool = next((t for t in tools if t["name"] == name), None)
    if tool is None:
        raise MalformedExampleError(f"{name} is not one of the functions")
    acceptable = dict(_arguments(possible, tool["parameters"]))
    call = Call(name=name, arguments={a: values[0] for a, values in acceptable.items()})
    if fault := call_fault(call, tools):
        raise MalformedExampleError(fault)
    return call_text(call), acceptable


def _arguments(
    possible: Mapping[str, Sequence[Any]], schema: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each argument of the right call with its right values, in the schema's order."""
    order = {name: place for place, name in enumerate(schema["properties"])}
    required = schema.get("required", ())
    for name in sorted(possible, key=lambda n: order.get(n, math.inf)):
        if name in required or "" not in possible[name]:
            yield name, _alternatives(possible[name])


def _alternatives(possible: Sequence[Any]) -> tuple[Any, ...]:
    """Every right value. No values at all means the empty array (live_simple_106 and 112)."""
    if not possible:
        return ([],)
    stated = [value for value in possible if value != ""] or [""]
    return tuple(_first(itertools.chain.from_iterable(map(_expanded, stated))))


def _expanded(value: object) -> Iterator[Any]:
    """`value`, or all the objects (lists of objects) that its members' right values make."""
    if isinstance(value, dict):
        for members in itertools.product(*(_member(n, v) for n, v in value.items())):
            yield dict(itertools.chain.from_iterable(members))
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        yield from map(list, itertools.product(*(_first(_expanded(each)) for each in value)))
    else:
        yield value


def _member(name: str, possible: object) -> list[tuple[tuple[str, Any], ...]]:
    """The ways to write one member of an object: left out where that is right, else each value."""
    if not isinstance(possible, list):
        return [((name, possible),)]
    written = [((name, value),) for value in _alternatives(possible)]
    return [(), *written] if "" in possible else list(written)


def _first(values: Iterable[Any]) -> list[Any]:
    return list(itertools.islice(values, _MOST_ALTERNATIVES))
