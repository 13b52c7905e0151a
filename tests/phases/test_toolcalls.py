"""Function calls as text, their slots, schemas, and BFCL's examples."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.phases.data.calls import (
    Call,
    MalformedExampleError,
    accepts,
    call_fault,
    call_text,
    instructions,
    normalise_tool,
    parse_call,
    read_bfcl,
    read_slot,
    skeleton,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
CALLS = st.builds(
    lambda name, arguments: Call(name=name, arguments=arguments),
    name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
    arguments=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), JSON, max_size=4),
)


def bfcl(parameters: dict[str, Any], *, required: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "id": "q",
        "question": [[{"role": "user", "content": "Go."}]],
        "function": [
            {
                "name": "f",
                "description": "d",
                "parameters": {
                    "type": "dict",
                    "properties": {n: {"type": kind} for n, kind in parameters.items()},
                    "required": list(required),
                },
            }
        ],
    }


def truth(**arguments: list[Any]) -> dict[str, Any]:
    return {"id": "q", "ground_truth": [{"f": arguments}]}


# --- one way to write a call ----------------------------------------------------------------------


def test_a_call_is_compact_with_its_name_first() -> None:
    call = Call(name="f", arguments={"b": [1, 2.0], "a": "é"})
    assert call_text(call) == '{"name":"f","arguments":{"b":[1,2.0],"a":"é"}}'


@given(CALLS)
def test_a_written_call_is_read_back(call: Call) -> None:
    assert parse_call(call_text(call)) == call


@pytest.mark.parametrize(
    "text",
    [
        "",
        "f(1)",
        '{"name":"f"}',
        '{"name":"f","arguments":[]}',
        '{"name":1,"arguments":{}}',
        '{"name":"f","arguments":{},"more":1}',
        '{"name":"f","arguments":{"a":NaN}}',
        '{"name":"f","arguments":{"a":1,"a":2}}',
        '{"name":"f","arguments":{}} and so on',
        "{'name':'f','arguments':{}}",
        '```json\n{"name":"f","arguments":{}}\n```',
        "[" * 100_000,
        "\ud800",
    ],
)
def test_what_is_not_exactly_one_call_is_none(text: str) -> None:
    assert parse_call(text) is None


# --- slots ----------------------------------------------------------------------------------------


@given(CALLS)
def test_every_slot_holds_its_value_where_the_call_has_it(call: Call) -> None:
    written = call_text(call)
    slots = skeleton(call)
    assert [s.argument for s in slots] == list(call.arguments)
    for slot in slots:
        assert written.startswith(slot.prefix)
        filled = read_slot(slot, written[len(slot.prefix) :])
        assert filled is not None
        assert filled.value == slot.value


def test_a_text_slot_begins_inside_its_quotes() -> None:
    slot, other = skeleton(Call(name="f", arguments={"a": 'x"y', "b": 1}))
    assert slot.prefix == '{"name":"f","arguments":{"a":"'
    assert other.prefix == '{"name":"f","arguments":{"a":"x\\"y","b":'


@pytest.mark.parametrize(
    ("value", "decoded", "expected"),
    [
        (1, "12", None),
        (1, "12,", 12),
        (1, " 12}", 12),
        (1, "-1.5e2}", -150.0),
        (1, "1.", None),
        (1, "1e", None),
        (1, "1.5E-", None),
        (1, "1.\n", 1),
        (True, "tru", None),
        (True, "true}", True),
        ([1], "[1, [2", None),
        ([1], '[1, "]"]', [1, "]"]),
        ({}, '{"a":1}', {"a": 1}),
        ("a", "Oslo", None),
        ("a", 'Oslo"', "Oslo"),
        ("a", 'a \\" b" tail', 'a " b'),
        ("a", '"', ""),
        (1, "NaN,", None),
        (1, "ten,", None),
        ([1], "[" * 100_000, None),
    ],
)
def test_a_slot_is_read_once_its_value_is_complete(
    value: object, decoded: str, expected: object
) -> None:
    (slot,) = skeleton(Call(name="f", arguments={"a": value}))
    filled = read_slot(slot, decoded)
    assert (filled.value if filled else None) == expected


@pytest.mark.parametrize(
    ("right", "value", "good"),
    [
        ([5], 5.0, True),
        ([5, 6], 6, True),
        ([1], True, False),
        ([True], 1, False),
        ([None], None, True),
        ([None], False, False),
        (["New York, NY"], "new york ny", True),
        (["it's"], 'it"s', True),
        (["New York"], "Boston", False),
        (["5"], 5, False),
        ([[1, 2]], [1.0, 2], True),
        ([[1, 2]], [2, 1], False),
        ([{"a": ["X"]}], {"a": ["x"]}, True),
        ([{"a": 1}], {"a": 1, "b": 2}, False),
        ([], 1, False),
    ],
)
def test_values_are_compared_as_the_leaderboard_does(
    right: list[Any], value: object, good: bool
) -> None:
    assert accepts(right, value) is good


# --- schemas --------------------------------------------------------------------------------------


def test_types_of_other_languages_become_json_schema_all_the_way_down() -> None:
    tool = normalise_tool(
        {
            "name": "f",
            "parameters": {
                "type": "dict",
                "properties": {
                    "a": {"type": "float", "optional": True},
                    "b": {"type": "tuple", "items": {"type": "HashMap", "properties": {}}},
                    "c": {"type": "dict", "properties": {"type": {"type": "Boolean"}}},
                    "d": {"type": "any", "description": "x"},
                },
            },
        }
    )
    assert tool["parameters"]["type"] == "object"
    assert tool["parameters"]["properties"] == {
        "a": {"type": "number"},
        "b": {"type": "array", "items": {"type": "object", "properties": {}}},
        "c": {"type": "object", "properties": {"type": {"type": "boolean"}}},
        "d": {"description": "x"},
    }


def test_the_other_common_form_of_a_tool_gives_the_same_schema() -> None:
    own = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
    assert normalise_tool({"type": "function", "function": own}) == normalise_tool(own) == own


def test_normalising_twice_changes_nothing() -> None:
    once = normalise_tool(bfcl({"a": "float", "b": "tuple"})["function"][0])
    assert normalise_tool(once) == once


@pytest.mark.parametrize(
    "raw",
    [
        1,
        {},
        {"name": 1},
        {"function": "f"},
        {"name": "f", "parameters": []},
        {"name": "f", "parameters": {"properties": []}},
        {"name": "f", "parameters": {"properties": {"a": 1}}},
        {"name": "f", "parameters": {"required": "a"}},
    ],
)
def test_a_tool_without_name_or_parameters_is_refused(raw: object) -> None:
    with pytest.raises(MalformedExampleError):
        normalise_tool(raw)


def test_instructions_are_one_signature_a_line() -> None:
    tool = normalise_tool(
        {
            "name": "book",
            "parameters": {
                "properties": {
                    "city": {"type": "string"},
                    "class": {"type": "string", "enum": ["first", "second"]},
                    "days": {"type": "array", "items": {"type": "integer"}},
                },
                "required": ["city"],
            },
        }
    )
    assert instructions([tool]).splitlines()[1:] == [
        'book(city: string, class?: "first"|"second", days?: integer[])'
    ]
    assert instructions([]) == ""


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (Call(name="f", arguments={"a": 1}), None),
        (Call(name="f", arguments={"a": 1, "b": 2}), None),
        (Call(name="g", arguments={}), "g is not one of the tools"),
        (Call(name="f", arguments={}), "f needs a"),
        (Call(name="f", arguments={"a": 1, "c": 1}), "f has no argument c"),
        (Call(name="f", arguments={"a": True}), "a of f is not of type integer"),
        (Call(name="f", arguments={"a": 1.5}), "a of f is not of type integer"),
        (Call(name="f", arguments={"a": 1, "b": "2"}), "b of f is not of type number"),
    ],
)
def test_a_call_is_held_against_its_schema(call: Call, fault: str | None) -> None:
    tools = [normalise_tool(bfcl({"a": "integer", "b": "float"}, required=("a",))["function"][0])]
    assert call_fault(call, tools) == fault


# --- the leaderboard's files ----------------------------------------------------------------------


def test_the_right_call_takes_each_first_value_in_the_schemas_order() -> None:
    question = read_bfcl(
        bfcl({"a": "integer", "b": "string"}, required=("a",)), truth(b=["x", "X"], a=[5, 6])
    )
    assert question.answer == '{"name":"f","arguments":{"a":5,"b":"x"}}'
    assert question.acceptable == {"a": (5, 6), "b": ("x", "X")}
    assert question.messages == ({"role": "user", "content": "Go."},)


def test_an_argument_that_may_be_left_out_is_left_out() -> None:
    question = read_bfcl(bfcl({"a": "integer", "b": "string"}), truth(a=["", 5], b=["x"]))
    assert question.answer == '{"name":"f","arguments":{"b":"x"}}'
    assert question.acceptable == {"b": ("x",)}


def test_a_required_argument_keeps_its_first_real_value() -> None:
    question = read_bfcl(bfcl({"a": "float"}, required=("a",)), truth(a=["", 25.0]))
    assert question.acceptable == {"a": (25.0,)}
    empty = read_bfcl(bfcl({"a": "string"}, required=("a",)), truth(a=[""]))
    assert empty.answer == '{"name":"f","arguments":{"a":""}}'


def test_no_values_mean_the_empty_array() -> None:
    question = read_bfcl(bfcl({"a": "array"}, required=("a",)), truth(a=[]))
    assert question.answer == '{"name":"f","arguments":{"a":[]}}'


def test_an_objects_members_hold_right_values_of_their_own() -> None:
    members = {"size": ["large", "L"], "milk": ["", "oat"]}
    question = read_bfcl(bfcl({"a": "dict"}), truth(a=[members]))
    assert question.acceptable == {
        "a": (
            {"size": "large"},
            {"size": "large", "milk": "oat"},
            {"size": "L"},
            {"size": "L", "milk": "oat"},
        )
    }
    listed = read_bfcl(bfcl({"a": "array"}), truth(a=[[members, {"size": ["S"]}]]))
    assert listed.acceptable is not None
    assert listed.acceptable["a"][0] == [{"size": "large"}, {"size": "S"}]


def test_many_alternatives_are_cut_short() -> None:
    members = {f"m{i}": list(range(1, 9)) for i in range(20)}
    question = read_bfcl(bfcl({"a": "dict"}), truth(a=[members]))
    assert question.acceptable is not None
    assert len(question.acceptable["a"]) == 64


def test_a_question_without_its_answer_has_none() -> None:
    question = read_bfcl(bfcl({"a": "integer"}), None)
    assert question.answer is None
    assert question.acceptable is None


@pytest.mark.parametrize(
    ("question", "answer", "why"),
    [
        ({"question": [], "function": []}, None, "one turn"),
        ({"question": [[]] * 2, "function": []}, None, "one turn"),
        ({"question": "Go", "function": []}, None, "question"),
        ({"function": []}, None, "question"),
        (bfcl({}), {"id": "q", "ground_truth": []}, "one right call"),
        (bfcl({}), {"id": "q", "ground_truth": [{"f": {}, "g": {}}]}, "one right call"),
        (bfcl({}), {"id": "q", "ground_truth": [{"g": {}}]}, "g is not one of the functions"),
        (bfcl({"a": "integer"}), truth(a=["5"]), "not of type integer"),
        (bfcl({"a": "integer"}, required=("a",)), truth(), "needs a"),
        (bfcl({"a": "integer"}), truth(b=[1]), "no argument b"),
        (bfcl({"a": "integer"}), {"ground_truth": [{"f": {"a": 5}}]}, "ground_truth"),
    ],
)
def test_an_example_that_is_not_one_right_call_says_why(
    question: dict[str, Any], answer: dict[str, Any] | None, why: str
) -> None:
    with pytest.raises(MalformedExampleError, match=why):
        read_bfcl(question, answer)


def test_answers_are_tokenisable_json_of_plain_values() -> None:
    question = read_bfcl(bfcl({"a": "dict"}), truth(a=[{"x": [1]}]))
    assert question.answer is not None
    assert json.loads(question.answer) == {"name": "f", "arguments": {"a": {"x": 1}}}
