"""Secrets: found in every form in which they would be recorded, and never shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.schemas import canonical
from stillhouse.schemas.secrets import SHORTEST, forms_in_json, scrub, secret_in_json, secret_values

VALUES = st.text(min_size=SHORTEST, max_size=30).filter(lambda text: text.isprintable())
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def found(text: str, *values: str) -> str | None:
    return secret_in_json(canonical.encode({"a": [text]}), forms_in_json(values))


@given(secret=VALUES, before=ANY, after=ANY)
def test_a_secret_value_is_found_wherever_it_stands(secret: str, before: str, after: str) -> None:
    assert found(before + secret + after, secret) is not None


def test_a_value_that_json_escapes_is_found() -> None:
    for secret in ('pass"word', "back\\slash", "two\nlines", "ünïcode🔑"):
        assert found(f"key={secret};", secret) == "the value of a secret variable"


@given(secrets=st.lists(VALUES, max_size=3), text=ANY)
def test_what_was_scrubbed_holds_no_secret(secrets: list[str], text: str) -> None:
    joined = text + "".join(secrets)
    clean = scrub(joined, secrets)
    assert scrub(clean, []) == clean
    for secret in secrets:
        assert secret not in clean or set(secret) <= {"*"}


def test_a_secret_within_another_leaves_nothing_of_it() -> None:
    assert scrub("token-abcdef-123", ["abcdef", "token-abcdef-123"]) == "***"


@pytest.mark.parametrize(
    "url",
    [
        "https://ada:secret@hub.example/x",
        "https://token@hub.example",
        "see HTTPS://ada:s@hub.example:8080/a?b#c for more",
        "git+ssh://git@hub.example/x.git",
        "postgresql://u:p%40ss@db/x",
        "s3://key:s+c.r-e_t~@bucket",
        "(ftp://ada:@host)",
        'cloning "https://ada:x@host/y" failed',
        "line one\nhttps://ada:x@host",
    ],
)
def test_a_url_with_userinfo_is_found_scrubbed_and_not_shown(url: str) -> None:
    said = found(url)
    assert said is not None
    assert "ada" not in said
    assert "token" not in said
    clean = scrub(url, [])
    assert "://***@" in clean
    assert found(clean) is None


@pytest.mark.parametrize(
    "text",
    [
        "https://hub.example/@ada/x",
        "https://hub.example?mail=ada@example.org",
        "https://hub.example#ada@x",
        "see https://hub.example or write to ada@example.org",
        '["https://hub.example","ada@example.org"]',
        "<https://hub.example> ada@example.org",
        "ada@example.org",
        "https://***@hub.example",
        "file:///home/x@y",
        "a://",
    ],
)
def test_other_texts_are_left_alone(text: str) -> None:
    assert found(text) is None
    assert scrub(text, []) == text


def test_two_neighbours_in_a_document_are_not_one_url() -> None:
    assert secret_in_json(canonical.encode({"a": "https://x", "b": "y@z"}), ()) is None


def test_values_come_from_the_variables_that_are_named_and_set() -> None:
    environ = {"KEY": " abcdefgh\n", "SHORT": "abc", "EMPTY": "", "OTHER": "not-asked-for"}
    assert secret_values(environ, ["KEY", "SHORT", "EMPTY", "ABSENT"]) == ("abcdefgh",)


def test_short_values_are_not_looked_for() -> None:
    assert found("abc", "abc") is None
    assert scrub("abc", ["abc"]) == "abc"
